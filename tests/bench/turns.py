"""Servers side by side: in every period each has its moment, one after the other.

What else the machine does lasts for many periods and makes all of them dearer. So what a server takes in a period is
compared with what the others take in the same one: the floor, and the feed alone.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise, product
from math import ceil
from statistics import median, quantiles
from typing import Any

from tests.bench.listening import Load
from tests.bench.machine import cpu_seconds
from tests.bench.servers import SERVERS, Filtered, Floor, Quartsse, Server
from tests.bench.tables import Result

LOOK_SECONDS = 0.02
"""How long before its moment a server's CPU is read: it has done by then what the period before asked of it."""

UNMEASURED = 2
"""Periods at the beginning, to warm up."""


@dataclass(slots=True)
class Part:
    """A server with its open streams, and the CPU seconds it had used before each of its moments."""

    server: Server
    load: Load
    feed: "Part | None" = None
    """Ours once more, with one reader."""
    used: list[float] = field(default_factory=list)
    late: int = 0
    """How often the CPU was read when the moment had come already."""
    sent: Future[None] | None = None
    arrived: dict[str, Any] = field(default_factory=dict)

    def look(self, moment: float) -> None:
        """Read the CPU, and see that the last tick has been taken."""
        self.used.append(cpu_seconds(self.server.pid))
        self.late += time.monotonic() > moment
        if self.sent is not None:
            self.sent.result()

    def finish(self, least: int) -> None:
        """Let nothing more come, and take what was counted. Raises RuntimeError if that is less than it had to be."""
        if isinstance(self.server, Quartsse):
            self.server.rest()
        self.arrived = counted = self.load.report()
        if counted["gaps"] or counted["repeats"] or counted["lost"] or counted["events"] < least:
            raise RuntimeError(f"{self.server.name}: {counted}")

    def costs(self) -> list[float]:
        """CPU seconds of each measured period."""
        return [after - before for before, after in pairwise(self.used[UNMEASURED:])]

    def own(self) -> list[float]:
        """The same without what the feed took in that period."""
        if self.feed is None:
            return self.costs()
        return [all_of_it - feed for all_of_it, feed in zip(self.costs(), self.feed.costs(), strict=True)]


def in_turns(names: list[str], streams: int, events: int, turns: int) -> list[Result]:
    """All servers at once with so many streams, for so many periods with so many events in each.

    A period is a second for every four servers begun, and twice that for 50 events: so each is done before the next.
    """
    chosen = [SERVERS[name] for name in names if SERVERS[name].most >= streams]
    chosen = [server for server in chosen if events == 1 or not issubclass(server, Filtered)]
    period = float(ceil(len(chosen) / 4) * (2 if events == 50 else 1))
    with ExitStack() as stack:
        parts = [_opened(stack, server(), streams) for server in chosen]
        for part in parts:
            if isinstance(part.server, Quartsse):
                part.feed = _opened(stack, _companion(part.server), 1)
        feeds = [part.feed for part in parts if part.feed is not None]
        moments = dict(zip(_phases(len(parts), len(feeds)), [*parts, *feeds], strict=True))
        _take_turns(moments, period, events, turns)
    floor = next((part for part in parts if isinstance(part.server, Floor)), None)
    return [
        Result(
            part.server.name,
            f"in turns, {events} in a tick",
            streams,
            {"period": period, **_figures(part, floor, streams * events)},
        )
        for part in parts
    ]


def _opened(stack: ExitStack, server: Server, streams: int) -> Part:
    stack.enter_context(server)
    return Part(server, stack.enter_context(server.readers(streams)))


def _companion(server: Quartsse) -> Quartsse:
    companion = type(server)()
    companion.name += "-feed"
    return companion


def _phases(servers: int, feeds: int) -> list[float]:
    """Where in a period each has its moment: every server a slot of its own, all feeds one, as they are quick."""
    slots = servers + (feeds > 0)
    places = [*range(servers), *(servers + feed / feeds for feed in range(feeds))]
    return [place / slots for place in places]


def _take_turns(parts: dict[float, Part], period: float, events: int, turns: int) -> None:
    """Ticks for each at its phase of every period. Ours is told once and keeps to it by itself.

    Whoever answers only when a tick is out may do so in another's slot: that is waited for in a thread.
    """
    began, last = time.monotonic() + 1, UNMEASURED + turns
    with ThreadPoolExecutor(len(parts)) as senders:
        for number, (phase, part) in product(range(last + 1), parts.items()):
            moment = began + period * (number + phase)
            _sleep_until(moment - LOOK_SECONDS)
            part.look(moment)
            if number == UNMEASURED:
                part.load.reset()
            if number == last:
                part.finish(least=(turns - 1) * events * part.load.count)  # one tick may be late at the end
                continue
            _sleep_until(moment)
            if not isinstance(part.server, Quartsse):
                part.sent = senders.submit(part.server.publish, events)
            elif number == 0:
                part.server.pace(period, events)


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def _figures(part: Part, floor: Part | None, deliveries: int) -> dict[str, Any]:
    """Medians of the periods, with so many deliveries in each; microseconds, milliseconds, seconds for the feed."""
    figures = {
        "cpu_us": round(1e6 * median(part.own()) / deliveries, 3),
        "cpu_us_with_feed": round(1e6 * median(part.costs()) / deliveries, 3),
        "feed_cpu_of_a_period": round(median(part.feed.costs()), 6) if part.feed else 0.0,
        "last_ms": part.arrived["last_ms"],
        "bytes_per_event": round(part.arrived["bytes"] / max(1, part.arrived["events"]), 1),
        "late": part.late + (part.feed.late if part.feed else 0),
    }
    if floor is None:
        return figures
    ratios = [own / least for own, least in zip(part.own(), floor.own(), strict=True)]
    first, middle, third = (round(quartile, 3) for quartile in quantiles(ratios, n=4, method="inclusive"))
    return figures | {"to_floor": middle, "to_floor_quarters": [first, third]}
