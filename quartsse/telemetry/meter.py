"""The meter: what happened, counted in the process until somebody collects it."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

MOST_VALUES = 100
"""Values of one measure that are kept between two collections: what one metric of an EMF document may hold."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """Something that has a value whenever one looks. `unit` is CloudWatch's word for it."""

    name: str
    unit: str
    help: str
    read: Callable[[], float | None]


@dataclass(slots=True)
class Measure:
    """Values of one kind: the last hundred since the last collection, and count and sum since the start."""

    values: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_VALUES))
    count: int = 0
    sum: float = 0.0

    def add(self, value: float) -> None:
        """Take in a value."""
        self.values.append(value)
        self.count += 1
        self.sum += value


COUNTERS = {
    "ConnectionsOpened": "Streams that got their slot",
    "ConnectionsClosed": "Streams that are over, by reason",
    "Refused": "Requests that were refused, by reason",
    "Resumes": "Readers that came back with an id, by mode",
    "EventsReplayed": "Updates sent to readers that came back",
    "EventsPublished": "Events handed to the hub, by name",
    "ReadUnits": "Read units consumed",
    "PollErrors": "Reads of the source that failed",
    "ItemsSkipped": "Records that did not fit, by kind",
}
"""Counters and what they count; those with a label have it as the reason, mode, name or kind."""

MEASURES = {
    "PollDuration": ("Milliseconds", "How long a read of the source took"),
    "StreamAge": ("Seconds", "How old streams were when they ended"),
}


class Meter:
    """Telemetry that counts. Labels are words of ours, never a client's: their number is bounded."""

    def __init__(self) -> None:
        self.counters: Counter[tuple[str, str]] = Counter()
        self.measures = {name: Measure() for name in MEASURES}
        self.gauges: list[Gauge] = []

    def watch(self, name: str, unit: str, text: str, read: Callable[[], float | None]) -> None:
        """Look at something at every collection; `read` answers None while there is nothing to see."""
        self.gauges.append(Gauge(name, unit, text, read))

    def gauge_values(self) -> Iterator[tuple[Gauge, float]]:
        """Every gauge that has a value now."""
        for gauge in self.gauges:
            value = gauge.read()
            if value is not None:
                yield gauge, value

    def stream_opened(self) -> None:
        """Count it."""
        self.counters["ConnectionsOpened", ""] += 1

    def stream_ended(self, reason: str, seconds: float) -> None:
        """Count it, and note its age."""
        self.counters["ConnectionsClosed", reason] += 1
        self.measures["StreamAge"].add(seconds)

    def refused(self, reason: str) -> None:
        """Count it."""
        self.counters["Refused", reason] += 1

    def resumed(self, mode: str, replayed: int) -> None:
        """Count it, and what it was sent."""
        self.counters["Resumes", mode] += 1
        self.counters["EventsReplayed", ""] += replayed

    def published(self, name: str) -> None:
        """Count it."""
        self.counters["EventsPublished", name] += 1

    def feed_read(self, seconds: float, units: float) -> None:
        """Note how long it took and what it cost."""
        self.measures["PollDuration"].add(seconds * 1000)
        self.counters["ReadUnits", ""] += units  # type: ignore[assignment]  # a Counter adds up fractions as well

    def feed_failed(self, reason: str) -> None:  # noqa: ARG002 - it is in the log
        """Count it."""
        self.counters["PollErrors", ""] += 1

    def items_skipped(self, kind: str, count: int) -> None:
        """Count them."""
        self.counters["ItemsSkipped", kind] += count
