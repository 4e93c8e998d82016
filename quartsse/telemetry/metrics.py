"""The verbs of telemetry: what happened, said where it happens. Every room may use them."""

from typing import Protocol


class Telemetry(Protocol):
    """Who is told. Every verb returns at once and raises nothing."""

    def stream_opened(self) -> None:
        """A stream has its slot."""

    def stream_ended(self, reason: str, seconds: float) -> None:
        """A stream is gone: by its client (`client`), or for one of the reasons of `stream_end`."""

    def refused(self, reason: str) -> None:
        """A request was refused."""

    def resumed(self, mode: str, replayed: int) -> None:
        """A reader came back with an id."""

    def published(self, name: str) -> None:
        """An event went to the hub."""

    def feed_read(self, seconds: float, units: float) -> None:
        """A read of the source ended well; it took so long and cost so many read units."""

    def feed_failed(self, reason: str) -> None:
        """A read of the source failed."""

    def items_skipped(self, kind: str, count: int) -> None:
        """Records did not fit."""


class NoTelemetry:
    """Tells nobody."""

    def stream_opened(self) -> None:
        """Nothing."""

    def stream_ended(self, reason: str, seconds: float) -> None:
        """Nothing."""

    def refused(self, reason: str) -> None:
        """Nothing."""

    def resumed(self, mode: str, replayed: int) -> None:
        """Nothing."""

    def published(self, name: str) -> None:
        """Nothing."""

    def feed_read(self, seconds: float, units: float) -> None:
        """Nothing."""

    def feed_failed(self, reason: str) -> None:
        """Nothing."""

    def items_skipped(self, kind: str, count: int) -> None:
        """Nothing."""
