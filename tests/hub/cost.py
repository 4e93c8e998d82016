"""What the hub itself costs: CPU per delivery with readers that do nothing. `python -m tests.hub.cost [--profile]`."""

import cProfile
import pstats
import sys
import time
from collections import deque
from collections.abc import Callable

from quartsse.hub.events import Event
from quartsse.hub.filters import Filter
from quartsse.hub.hub import Hub

DATA = b'{"ticker":"T001","score":0.87,"label":"positive","confidence":0.87,"source":"reuters",' + b" " * 100 + b"}"
TICKERS = [f"T{number:03d}" for number in range(500)]


class Bench:
    """A hub with readers, whose fan-out runs when it is told to."""

    def __init__(self, filters: list[Filter]) -> None:
        self._calls: deque[Callable[[], None]] = deque()
        self.hub = Hub(schedule=self._calls.append, log_events=10_000)
        self.delivered = 0
        self._number = 0
        for wanted in filters:
            subscription, _ = self.hub.subscribe(wanted)
            subscription.follow(self._write)

    def tick(self, events: int) -> None:
        """Publish some events, and hand them to everyone."""
        self._number += events
        numbers = range(self._number - events, self._number)
        self.hub.publish([Event("sentiment_update", f"abcdefghijklm-{n:08d}", DATA, TICKERS[n % 500]) for n in numbers])
        while self._calls:
            self._calls.popleft()()

    def _write(self, data: bytes) -> None:
        self.delivered += len(data) > 0


def shared(readers: int) -> list[Filter]:
    """Everyone asks for everything."""
    return [Filter(None)] * readers


def distinct(readers: int, filters: int) -> list[Filter]:
    """So many filters of ten tickers each, the last five shared with the next one."""
    wanted = [Filter(frozenset(TICKERS[(n + k) % 500] for k in range(10))) for n in range(filters)]
    return [wanted[number % filters] for number in range(readers)]


WORKLOADS = {
    "1 filter, 1,000 readers, 1 event a tick": (shared(1_000), 1),
    "500 filters, 1,000 readers, 1 event a tick": (distinct(1_000, 500), 1),
    "1 filter, 1,000 readers, 50 events a tick": (shared(1_000), 50),
    "500 filters, 1,000 readers, 50 events a tick": (distinct(1_000, 500), 50),
    "1 filter, 10,000 readers, 1 event a tick": (shared(10_000), 1),
    "1 filter, 10,000 readers, 50 events a tick": (shared(10_000), 50),
}
"""Readers' filters, and events per tick."""


def cost(filters: list[Filter], events: int, seconds: float = 1.0) -> tuple[float, float, float]:
    """CPU in microseconds per tick, per write and per delivery: one event for one reader."""
    bench = Bench(filters)
    for _ in range(5):
        bench.tick(events)
    bench.delivered, ticks, started = 0, 0, time.process_time()
    while time.process_time() - started < seconds:
        bench.tick(events)
        ticks += 1
    spent = 1e6 * (time.process_time() - started)
    per_event = sum(10 if wanted.tickers else 500 for wanted in filters) / 500  # readers that an event matches
    return spent / ticks, spent / bench.delivered, spent / (ticks * events * per_event)


def main() -> None:
    """Print the table."""
    for name, (filters, events) in WORKLOADS.items():
        tick, write, delivery = cost(filters, events)
        print(f"{name:<46} {tick:10.1f} µs a tick {write:8.3f} µs a write {delivery:8.4f} µs a delivery")


if __name__ == "__main__":
    if "--profile" in sys.argv:
        with cProfile.Profile() as profile:
            main()
        pstats.Stats(profile).sort_stats("tottime").print_stats(15)
    else:
        main()
