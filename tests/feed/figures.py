"""The feed's figures on this machine: `python -m tests.feed.figures [items]`. Prints them as JSON.

Memory per item of the window; how long the event loop was held while that window was loaded; what an empty poll
costs; what a sweep costs and how long it takes.
"""

import asyncio
import gc
import json
import os
import subprocess
import sys
import time
import tracemalloc
from contextlib import suppress
from typing import Any

from quartsse.feed.dynamodb import client, lazily
from quartsse.feed.poller import Poller
from quartsse.feed.query import QuerySource
from quartsse.feed.window import Window
from quartsse.hub.hub import Hub
from quartsse.tools.emulator import environment
from quartsse.web.server import calm_the_collector, growing

STEP = 0.001


def parts(budget: float, interval: float) -> tuple[Poller, Window]:
    """The feed as the service puts it together."""
    window = Window()
    source = QuerySource(lazily(client), "news", "by_sentiment", budget=budget, population=window)
    return Poller(source, window, Hub(), interval=interval, loading=growing), window


async def holds(done: asyncio.Event) -> list[tuple[float, float]]:
    """For how long the loop was held beyond a step, each time, until `done`; and for how much of that by this process.

    On a busy machine the rest is others': they had the core.
    """
    held = []
    while not done.is_set():
        before, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(STEP)
        seconds = time.perf_counter() - before - STEP
        held.append((seconds, min(seconds, time.process_time() - cpu)))
    return held


async def load(traced: bool) -> dict[str, Any]:
    """Load the window, and watch the loop or the memory meanwhile."""
    poller, window = parts(100, 2.0)
    client().close()  # boto3's own memory and first import are not the window's
    gc.collect()
    if traced:
        tracemalloc.start()
    else:
        calm_the_collector()
    done = asyncio.Event()
    watch = asyncio.create_task(holds(done))
    poller.attend()
    started, cpu = time.perf_counter(), time.process_time()
    task = asyncio.create_task(poller.run())
    while not poller.loaded:
        await asyncio.sleep(0.01)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    done.set()
    held = sorted(await watch)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    figures: dict[str, Any] = {"items": len(window)}
    if traced:
        gc.collect()
        kept, peak = tracemalloc.get_traced_memory()
        figures |= {"bytes_per_item": round(kept / len(window)), "peak_bytes_per_item": round(peak / len(window))}
        tracemalloc.stop()
    else:
        figures |= {
            "seconds": round(seconds, 2),
            "cpu_seconds": round(cpu, 2),
            "longest_hold_ms": round(held[-1][0] * 1000, 1),
            "longest_hold_by_itself_ms": round(max(own for _, own in held) * 1000, 1),
            "p999_hold_ms": round(held[int(len(held) * 0.999)][0] * 1000, 1),
        }
    return figures


async def empty_polls() -> dict[str, float]:
    """CPU of a poll that finds nothing, beside the interval's sleep."""
    poller, _ = parts(100, 0.05)
    poller.attend()
    task = asyncio.create_task(poller.run())
    while not poller.loaded:
        await asyncio.sleep(0.01)
    before, polls = time.process_time(), poller._read
    await asyncio.sleep(5)
    cost = (time.process_time() - before) / (poller._read - polls)
    units = poller.status().read_units_per_minute / poller._read
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return {"cpu_ms": round(cost * 1000, 2), "units": round(units, 2)}


async def sweeps(budget: float, interval: float) -> dict[str, Any]:
    """Two sweeps over a loaded window."""
    poller, window = parts(budget, interval)
    poller.attend()
    task = asyncio.create_task(poller.run())
    done = asyncio.Event()
    watch = asyncio.create_task(holds(done))
    while not poller.loaded:
        await asyncio.sleep(0.01)
    loaded_units = sum(units for _, units in poller._units)
    while poller.status().advice is None and poller._read < 1000:
        await asyncio.sleep(0.05)
    polls, cpu = poller._read, time.process_time()
    measured = len(poller._units)
    began = poller._covered_at
    while poller._covered_at == began:
        await asyncio.sleep(0.01)
    spent = sum(units for _, units in list(poller._units)[measured:])
    polls = poller._read - polls
    status = poller.status()
    done.set()
    held = sorted(await watch)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return {
        "items": len(window),
        "budget": budget,
        "interval": interval,
        "load_units": loaded_units,
        "sweep_seconds": status.sweep_seconds,
        "hot_seconds": status.hot_seconds,
        "units_per_poll": round(spent / polls, 1),
        "cpu_ms_per_poll": round((time.process_time() - cpu) / polls * 1000, 1),
        "longest_hold_ms": round(held[-1][0] * 1000, 1),
        "longest_hold_by_itself_ms": round(max(own for _, own in held) * 1000, 1),
    }


def stub(items: int, item_bytes: int) -> subprocess.Popen[str]:
    """A stub of so many items; this process's clients find it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.feed.paging_stub", str(items), str(item_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    os.environ |= environment(process.stdout.readline().strip())
    return process


def main() -> None:
    """Measure and print."""
    items = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    figures: dict[str, Any] = {}
    for name, count, measure in (
        ("memory", items, lambda: load(traced=True)),
        ("loop", items, lambda: load(traced=False)),
        ("sweep", items // 10, lambda: sweeps(100, 0.5)),
        ("empty poll", 0, empty_polls),
    ):
        with stub(count, 1200) as process:
            figures[name] = asyncio.run(measure())
            process.kill()
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
