"""The verbs of telemetry: what happened, said where it happens. Every room may use them."""


class Telemetry:
    """Who is told: here nobody. Every verb returns at once and raises nothing."""

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

    def delivered(self, events: int, size: int) -> None:
        """Events, and all their bytes, were handed to readers: a tick to all of a channel, or an opening to one."""

    def handed_over(self, seconds: float, since_stamp: float | None) -> None:
        """Readers have the updates of a read: told once for each slice of the fan-out, of at most 500 readers.

        `seconds`: since the read that saw them began. `since_stamp`: since the source's own time of the oldest
        change. Measured when a channel's last reader has been written to or, where the transport takes no more,
        has it in its backlog: so one slow reader changes nothing, and what a network then takes is not in it.
        """

    def feed_read(self, seconds: float, units: float) -> None:
        """A read of the source ended well; it took so long and cost so many read units."""

    def feed_failed(self, kind: str) -> None:
        """A read of the source failed: `throttled`, or else `failed`."""

    def throttled(self) -> None:
        """DynamoDB asked for patience, once; whoever asked may have got through by trying again."""

    def items_skipped(self, kind: str, count: int) -> None:
        """Records did not fit."""

    def loop_late(self, seconds: float) -> None:
        """The event loop came back so late to a short sleep."""
