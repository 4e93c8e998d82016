"""The meter: what happened, counted in the process until somebody collects it; and the list of all that is counted."""

import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple, override

from quartsse.telemetry.metrics import Telemetry

MOST_VALUES = 100
"""Values of one measure that are kept between two collections: what one metric of an EMF document may hold."""


class Metric(NamedTuple):
    """What is measured. `unit` is CloudWatch's word for it."""

    name: str
    unit: str
    help: str
    label: str = ""
    """What the parts of a counter are told apart by."""
    bounds: tuple[float, ...] = ()
    """Upper bounds of a measure's buckets, in its unit."""


def _named(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


GAUGES = _named(
    Metric("Connections", "Count", "Streams that are open"),
    Metric("ConnectionsShare", "Percent", "Of the slots taken"),
    Metric("FeedAge", "Seconds", "Since the last complete read; none before the first"),
    Metric("FeedStale", "Count", "1 while the feed is stale, else 0"),
    Metric("Items", "Count", "Items in the window"),
    Metric("SweepPeriod", "Seconds", "Time to cover the whole window: how much later a late item may come"),
    Metric("Memory", "Bytes", "Resident set of the process"),
    Metric("OpenFiles", "Count", "Open descriptors of the process"),
)
"""What has a value whenever one looks."""

COUNTERS = _named(
    Metric("ConnectionsOpened", "Count", "Streams that got their slot"),
    Metric("ConnectionsClosed", "Count", "Streams that are over, by reason", "reason"),
    Metric("Refused", "Count", "Requests that were refused, by reason", "reason"),
    Metric("Resumes", "Count", "Readers that came back with an id, by mode", "mode"),
    Metric("EventsReplayed", "Count", "Updates sent again to readers that came back"),
    Metric("EventsPublished", "Count", "Events handed to the hub, by name", "event"),
    Metric("EventsDelivered", "Count", "Events handed to readers: one event to a thousand readers is a thousand"),
    Metric("DeliveredBytes", "Bytes", "Their bytes, compressed where a reader takes that"),
    Metric("ReadUnits", "Count", "DynamoDB read units consumed"),
    Metric("PollErrors", "Count", "Reads of the source that failed, by kind", "kind"),
    Metric("Throttles", "Count", "Answers by which DynamoDB asked for patience, those that a retry got over included"),
    Metric("ItemsSkipped", "Count", "Records that did not fit, by kind", "kind"),
)
"""What only ever grows."""

_MILLISECONDS = (1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0)
_LONG = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0)

MEASURES = _named(
    Metric(
        "DeliveryLatency",
        "Milliseconds",
        "From the start of the read that saw a change until it was handed to a channel's last reader",
        bounds=_MILLISECONDS,
    ),
    Metric(
        "SourceLatency",
        "Seconds",
        "From a new item's own timestamp (with `SSE_SOURCE=streams`: from the change in the table) until it was handed "
        "to a channel's last reader",
        bounds=_LONG,
    ),
    Metric("PollDuration", "Milliseconds", "How long a read of the source took", bounds=_MILLISECONDS),
    Metric("StreamAge", "Seconds", "How old streams were when they ended", bounds=_LONG),
    Metric("LoopLag", "Milliseconds", "How late the event loop came back to a short sleep", bounds=_MILLISECONDS),
)
"""What happens again and again, each time with a value."""


class Measure:
    """Values of one kind: how many fell below each bound and their sum since the start, and a sample of the newest.

    The sample holds at most `MOST_VALUES` of those since the last collection, each with the same chance to be in it,
    and always the greatest.
    """

    __slots__ = ("_bounds", "_chance", "_greatest", "_sample", "_since", "buckets", "sum")

    def __init__(self, bounds: tuple[float, ...], chance: random.Random) -> None:
        self._bounds = bounds
        self._chance = chance
        self._sample: list[float] = []
        self._since = 0
        self._greatest = float("-inf")
        self.buckets = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Take in a value."""
        self.buckets[bisect_left(self._bounds, value)] += 1
        self.sum += value
        self._since += 1
        self._greatest = max(self._greatest, value)
        if len(self._sample) < MOST_VALUES:
            self._sample.append(value)
        elif (place := int(self._chance.random() * self._since)) < MOST_VALUES:
            self._sample[place] = value

    def collect(self) -> list[float]:
        """The sample; the next one begins."""
        sample = self._sample
        if self._since > MOST_VALUES and self._greatest not in sample:
            sample[-1] = self._greatest
        self._sample, self._since, self._greatest = [], 0, float("-inf")
        return sample


class Meter(Telemetry):
    """Telemetry that counts. Labels are words of ours, never a client's: their number is bounded."""

    def __init__(self, chance: random.Random | None = None) -> None:
        sampling = chance or random.Random()  # noqa: S311 - sampling
        self.counters: Counter[tuple[str, str]] = Counter()
        self.measures = {name: Measure(metric.bounds, sampling) for name, metric in MEASURES.items()}
        self._gauges: dict[str, Callable[[], float | None]] = {}

    def watch(self, name: str, read: Callable[[], float | None]) -> None:
        """Look at a gauge at every collection; `read` answers None while there is nothing to see."""
        self._gauges[GAUGES[name].name] = read

    def gauges(self) -> Iterator[tuple[Metric, float]]:
        """Every gauge that has a value now."""
        for name, read in self._gauges.items():
            value = read()
            if value is not None:
                yield GAUGES[name], value

    def parts(self, name: str) -> dict[str, float]:
        """A counter by its label, or at least a zero."""
        return {label: count for (of, label), count in sorted(self.counters.items()) if of == name} or {"": 0}

    @override
    def stream_opened(self) -> None:
        self._count("ConnectionsOpened")

    @override
    def stream_ended(self, reason: str, seconds: float) -> None:
        self._count("ConnectionsClosed", reason)
        self.measures["StreamAge"].add(seconds)

    @override
    def refused(self, reason: str) -> None:
        self._count("Refused", reason)

    @override
    def resumed(self, mode: str, replayed: int) -> None:
        self._count("Resumes", mode)
        self._count("EventsReplayed", by=replayed)

    @override
    def published(self, name: str) -> None:
        self._count("EventsPublished", name)

    @override
    def delivered(self, events: int, size: int) -> None:
        self._count("EventsDelivered", by=events)
        self._count("DeliveredBytes", by=size)

    @override
    def handed_over(self, seconds: float, since_stamp: float | None) -> None:
        self.measures["DeliveryLatency"].add(1000 * seconds)
        if since_stamp is not None:
            self.measures["SourceLatency"].add(since_stamp)

    @override
    def feed_read(self, seconds: float, units: float) -> None:
        self.measures["PollDuration"].add(1000 * seconds)
        self._count("ReadUnits", by=units)

    @override
    def feed_failed(self, kind: str) -> None:
        self._count("PollErrors", kind)

    @override
    def throttled(self) -> None:
        self._count("Throttles")

    @override
    def items_skipped(self, kind: str, count: int) -> None:
        self._count("ItemsSkipped", kind, count)

    @override
    def loop_late(self, seconds: float) -> None:
        self.measures["LoopLag"].add(1000 * seconds)

    def _count(self, name: str, label: str = "", by: float = 1) -> None:
        self.counters[name, label] += by  # type: ignore[assignment]  # a Counter adds up fractions as well
