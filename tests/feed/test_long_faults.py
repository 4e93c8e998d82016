"""A minute of each fault, and a frozen process, as a reader of the served process lives through them."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from quartsse.client import stream
from tests.dynamodb import Tables, record, tables_at
from tests.feed import fault_proxy as faults
from tests.feed.fault_proxy import FaultProxy, fault_proxy
from tests.served import Served

INTERVAL = 1.0
HEARTBEAT = 1.0
LONGEST_PAUSE = 10.0
"""The poller's longest back-off."""
PATIENCE = 2.0
"""How long an answer is waited for; it is asked for twice before a read has failed."""

FAULTS: dict[str, faults.Fault | None] = {
    "throttled": faults.throttling,
    "time-outs": faults.hanging,
    "half an answer": faults.half_an_answer,
    "access denied": faults.access_denied,
    "refused": None,
    "half-open": None,
    "frozen": None,
}


class Reader:
    """Reads a stream for as long as it lives, and keeps every event and when it came."""

    def __init__(self, url: str) -> None:
        self.events: list[tuple[float, str, dict[str, Any]]] = []
        self._url = url

    async def read(self) -> None:
        async with stream(f"{self._url}/api/v2/stream", tickers="*") as events:
            async for event in events:
                self.events.append((time.monotonic(), event.event, event.json()))

    def named(self, name: str, since: float = 0.0) -> list[tuple[float, dict[str, Any]]]:
        return [(at, data) for at, event, data in self.events if event == name and at >= since]


async def until(true: Callable[[], object], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        await asyncio.sleep(0.02)
    return bool(true())


async def begin(name: str, served: Served, proxy: FaultProxy) -> None:
    if name == "refused":
        await proxy.refuse()
    elif name == "half-open":
        proxy.half_open = True
        proxy.lose_connections()
    elif name == "frozen":
        os.kill(served.pid, signal.SIGSTOP)
    else:
        proxy.fault = FAULTS[name]


async def end(name: str, served: Served, proxy: FaultProxy) -> None:
    proxy.fault = None
    if name == "refused":
        await proxy.accept()
    elif name == "half-open":
        proxy.half_open = False  # those that are stay so
    elif name == "frozen":
        os.kill(served.pid, signal.SIGCONT)


async def live_through(name: str, table: Tables, log: Path, seconds: float) -> None:
    async with fault_proxy(table.endpoint) as proxy:
        settings = {
            "AWS_ENDPOINT_URL_DYNAMODB": proxy.endpoint,
            "SSE_POLL_INTERVAL": str(INTERVAL),
            "SSE_HEARTBEAT_INTERVAL": str(HEARTBEAT),
        }
        await table.fill([record(f"old:{n}", f"T{n}", age=600 * n, sentiment="positive") for n in range(50)])
        served = Served(table.environment() | settings, log)
        reader = Reader(served.url)
        try:
            await asyncio.to_thread(served.wait_until_healthy)
            reading = asyncio.create_task(reader.read())
            assert await until(lambda: reader.named("metrics"), 10)
            await asyncio.sleep(2)
            assert reader.named("metrics")[-1][1]["total"] == 50
            await check(name, table, reader, served, proxy, seconds)
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
        finally:
            served.kill()


async def check(name: str, table: Tables, reader: Reader, served: Served, proxy: FaultProxy, seconds: float) -> None:
    await begin(name, served, proxy)
    broken, asked = time.monotonic(), proxy.requests
    for n in range(10):
        await table.analyse(await table.put(f"new:{n}", f"N{n}", age=7200 * n), "negative")
        await asyncio.sleep(seconds / 10)
    asked = proxy.requests - asked
    await end(name, served, proxy)
    mended = time.monotonic()
    patience = 2 * PATIENCE + LONGEST_PAUSE + 3 * INTERVAL
    assert await until(lambda: len(reader.named("sentiment_update", mended)) >= 10, patience)
    await asyncio.sleep(3 * INTERVAL)
    came = [at for at, _ in reader.named("sentiment_update", mended)]
    assert sorted(data["ticker"] for _, data in reader.named("sentiment_update", mended)) == [
        f"N{n}" for n in range(10)
    ]
    assert came[-1] - came[0] <= 2 * INTERVAL + 0.5
    assert all(data["total"] >= 50 for _, data in reader.named("metrics"))
    assert reader.named("metrics")[-1][1]["total"] == 60
    if name == "frozen":
        assert came[0] - mended < 2 * INTERVAL + 0.5
        return
    assert not [at for at, _ in reader.named("sentiment_update", broken + INTERVAL) if at < mended]
    beats = [at for at, _ in reader.named("heartbeat")]
    assert max(later - earlier for earlier, later in pairwise(beats)) <= 1.5 * HEARTBEAT
    stale = [at - broken for at, data in reader.named("heartbeat", broken) if data["feed"] == "stale"]
    assert 4 <= stale[0] <= 5 + 2 * INTERVAL
    assert reader.named("heartbeat")[-1][1]["feed"] == "live"
    assert proxy.most_under_way <= 3
    assert asked <= 3 * seconds / INTERVAL  # never more than without a fault, though a read has up to 36 attempts
    print(f"{name}: asked {asked} times, stale after {stale[0]:.1f} s, all told {came[-1] - mended:.1f} s after it")
    assert sum("feed: cannot read" in line for line in served.output()) <= 3


@pytest.mark.slow
async def test_a_minute_of_each_fault_and_a_frozen_process_lose_nothing_and_invent_nothing(
    dynamodb: str, tmp_path: Path
) -> None:
    with ExitStack() as tables:
        await asyncio.gather(
            *(
                live_through(
                    name,
                    tables.enter_context(tables_at(dynamodb)),
                    tmp_path / f"{name}.log",
                    20.0 if name == "frozen" else 60.0,
                )
                for name in FAULTS
            )
        )
