"""The bench: the same workloads for quartsse and for every peer that is installed. `make bench` runs it.

python -m tests.bench [--servers quartsse,floor,…] [--streams 100,1000,…] [--seconds 8] [--quick] [--turns 60]
"""

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from queue import Empty
from statistics import median
from typing import Any

from tests.bench.listening import Load
from tests.bench.machine import cpu_seconds, memory_kib
from tests.bench.servers import BUILD, FILTERS, SERVERS, Filtered, Quartsse, Server
from tests.bench.tables import Result, tables
from tests.bench.turns import in_turns

IN_FLIGHT = 8
BATCHES = (5, 50)
REST_SECONDS = 30.0
"""A heartbeat, and a comment between two of them, are part of it."""

SLOW = {"sse-starlette", "quart-hypercorn", "quartsse-ordinary"}
"""Not asked for 18,000 streams: they take minutes to open them."""


class Run:
    """One server with a number of streams, under one workload after the other."""

    def __init__(self, server: Server, streams: int, seconds: float) -> None:
        self.server = server
        self.streams = streams
        self.seconds = seconds
        self.results: list[Result] = []
        self._feed: dict[str, float] = {}

    def all(self) -> list[Result]:
        """Every workload that makes sense for this many streams."""
        with self.server:
            before = self._alone()
            cpu = cpu_seconds(self.server.pid)
            with self.server.readers(self.streams) as load:
                time.sleep(1)
                self._opened(load, cpu, before)
                self._paced(load, "one a second", 1)
                if self.streams <= 1000:
                    for events in BATCHES:
                        self._paced(load, f"{events} in a tick", events)
                self._saturated(load)
                self._at_rest()
        return self.results

    def filters(self) -> list[Result]:
        """A filter of its own for every second reader: ours only."""
        server = self.server
        assert isinstance(server, Quartsse)
        for name, path in (("one event for 500 filters", "SHARED,F{}"), ("an event for each of 500 filters", "O{}")):
            server.paths = [f"/api/v2/stream?tickers={path.format(n)}" for n in range(FILTERS)]
            start = self._own if path == "O{}" else self._shared
            with server:
                with server.readers(1) as load:
                    figures = self._drive(load, 1, start)
                    self._feed["1"] = figures["cpu_of_a_second"]
                with server.readers(self.streams) as load:
                    self._measure(load, name, 1, start)
        return self.results

    def _shared(self, events: int = 1) -> None:
        if isinstance(self.server, Quartsse):
            self.server.pace(1.0, events)

    def _own(self) -> None:
        if isinstance(self.server, Quartsse):
            self.server.own(1.0)

    def _alone(self) -> int:
        """One stream by itself: warms up, and tells what the feed costs. Returns the memory then."""
        with self.server.readers(1) as load:
            time.sleep(1)
            if isinstance(self.server, Quartsse):
                for events in (1, *BATCHES):
                    figures = self._drive(load, events, partial(self._shared, events))
                    self._feed[str(events)] = figures["cpu_of_a_second"]
                self.server.rest()
        time.sleep(0.5)
        return memory_kib(self.server.pid)

    def _opened(self, load: Load, cpu_before: float, memory_before: int) -> None:
        memory = memory_kib(self.server.pid)
        self._note(
            "opening",
            {
                "connected": load.connected,
                "seconds": load.connect_seconds,
                "cpu_ms_per_connect": round(1000 * (cpu_seconds(self.server.pid) - cpu_before) / load.count, 4),
                "memory_kib": memory,
                "memory_before_kib": memory_before,
                "memory_kib_per_stream": round((memory - memory_before) / load.count, 2),
            },
        )

    def _paced(self, load: Load, name: str, events: int) -> None:
        ours = isinstance(self.server, Quartsse)
        self._measure(load, name, events, partial(self._shared, events) if ours else None)

    def _measure(self, load: Load, name: str, events: int, start: Callable[[], None] | None) -> None:
        figures = self._drive(load, events, start)
        deliveries = max(1.0, figures["events"] / figures["seconds"])
        feed = self._feed.get(str(events), 0.0)
        figures["feed_cpu_of_a_second"] = round(feed, 6)
        figures["cpu_us_with_feed"] = round(1e6 * figures["cpu_of_a_second"] / deliveries, 3)
        figures["cpu_us"] = round(1e6 * max(0.0, figures["cpu_of_a_second"] - feed) / deliveries, 3)
        figures["bytes_per_event"] = round(figures["bytes"] / max(1, figures["events"]), 1)
        self._note(name, figures)

    def _drive(self, load: Load, events: int, start: Callable[[], None] | None) -> dict[str, Any]:
        """Ticks, one a second, for the time of a measurement; what they cost and how they arrived.

        The median second's CPU is what counts: what else runs on the machine makes single ones dearer.
        """
        if start is not None:
            start()
            time.sleep(1.5)
        load.reset()
        began, used = time.monotonic(), [cpu_seconds(self.server.pid)]
        for tick in range(round(self.seconds)):
            if start is None:
                self.server.publish(events)
            time.sleep(max(0.0, began + tick + 1 - time.monotonic()))
            used.append(cpu_seconds(self.server.pid))
        seconds = [after - before for before, after in pairwise(used)]
        figures: dict[str, Any] = {"seconds": time.monotonic() - began, "cpu_seconds": used[-1] - used[0]}
        return figures | {"cpu_of_a_second": median(seconds)} | load.report()

    def _saturated(self, load: Load) -> None:
        """As many events as go through, with at most eight on their way."""
        server = self.server
        if isinstance(server, Quartsse):
            server.rest()
        time.sleep(1.5)
        load.reset()
        cpu, began = cpu_seconds(server.pid), time.monotonic()
        server.publish(1)
        for ack, _ in enumerate(load.acks(self.seconds)):
            server.publish(IN_FLIGHT if ack == 0 else 1)
        seconds = time.monotonic() - began
        used = cpu_seconds(server.pid) - cpu
        time.sleep(1)
        figures = {"seconds": seconds, "cpu_seconds": used, **load.report()}
        figures["cpu_us"] = round(1e6 * used / max(1, figures["events"]), 3)
        figures["deliveries_per_second"] = round(figures["events"] / seconds)
        self._note("saturation", figures)

    def _at_rest(self) -> None:
        """Nothing happens."""
        if isinstance(self.server, Quartsse):
            self.server.rest()
        time.sleep(1)
        cpu = cpu_seconds(self.server.pid)
        time.sleep(REST_SECONDS)
        share = (cpu_seconds(self.server.pid) - cpu) / REST_SECONDS
        self._note("at rest", {"core_percent": round(100 * share, 2), "memory_kib": memory_kib(self.server.pid)})

    def _note(self, workload: str, figures: dict[str, Any]) -> None:
        self.results.append(Result(self.server.name, workload, self.streams, figures))
        shown = {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}
        print(f"{self.server.name:18} {self.streams:6} {workload:20} {json.dumps(shown)}", flush=True)


def main() -> int:
    """Run what was asked for, print the tables, and keep everything in `build/bench/`."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    everyone = ",".join(name for name in SERVERS if name != Filtered.name)
    parser.add_argument("--servers", default=everyone, help="which of them, separated by commas")
    parser.add_argument("--streams", default="100,1000,10000,18000")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement; none in turns")
    parser.add_argument("--quick", action="store_true", help="1,000 streams, three seconds, quartsse and the floor")
    turns = (
        "so many periods for each workload, with a moment in each for every server; paced ticks only (default 0: off)"
    )
    parser.add_argument("--turns", type=int, default=0, help=turns)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all that was started is ended
    if asked.quick:
        asked.servers, asked.streams, asked.seconds = "floor,quartsse", "1000", 3.0
    names, counts = installed(asked.servers.split(",")), [int(count) for count in asked.streams.split(",")]
    if asked.turns:
        results = [
            each
            for count in counts
            for events in ((1, *BATCHES) if count <= 1000 else (1,))
            for each in in_turns(names, count, events, asked.turns)
        ]
    else:
        results = run(names, counts, asked.seconds)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    path = BUILD / f"{stamp}.json"
    path.write_text(json.dumps({"machine": machine, "results": [asdict(result) for result in results]}, indent=1))
    print("\n" + tables(json.loads(path.read_text())["results"]) + f"\n\nkept in {path}")
    return 0


def installed(names: list[str]) -> list[str]:
    """Those of them that can be started; of the others it is told what they need."""
    for name in names:
        if SERVERS[name].missing():
            print(f"{name:18} passed over: {SERVERS[name].missing()}")
    return [name for name in names if not SERVERS[name].missing()]


def run(names: list[str], streams: list[int], seconds: float) -> list[Result]:
    """Every server with every number of streams. One that breaks down is told and passed over.

    By number of streams first, so that what is compared ran within a few minutes.
    """
    results: list[Result] = []
    for count in streams:
        for name in names:
            if count > SERVERS[name].most or (count > 10_000 and name in SLOW):
                continue
            try:
                results += Run(SERVERS[name](), count, seconds).all()
                if name == "quartsse" and count == 1000:
                    results += Run(SERVERS[name](), count, seconds).filters()
            except (RuntimeError, OSError, Empty) as error:
                print(f"{name:18} {count:6} broke down: {error}", flush=True)
    return results


if __name__ == "__main__":
    sys.exit(main())
