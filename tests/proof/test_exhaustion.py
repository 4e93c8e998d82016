"""Connections that ask for nothing, or for a long time: others must not have to wait for them."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.end_to_end.hosted import Hosted
from tests.end_to_end.readers import open_stream
from tests.web.serving import request

type Host = Callable[..., Hosted]
type Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

GOOD = 1.0
"""Seconds in which a good client has its opening."""


@contextlib.asynccontextmanager
async def connections(port: int, count: int, first: bytes = b"") -> AsyncIterator[list[Connection]]:
    """So many connections that have sent these bytes and no more."""
    opened: list[Connection] = []
    try:
        for _ in range(count):
            opened.append(await asyncio.open_connection("127.0.0.1", port))
            opened[-1][1].write(first)
        yield opened
    finally:
        for _, writer in opened:
            writer.transport.abort()


async def trickle(slow: list[Connection], number: int = 0) -> None:
    """Send a header on each, a byte at a time, for as long as one is let."""
    while True:
        number += 1
        for _, writer in slow:
            if not writer.is_closing():
                writer.write(b"%d: x\r\n" % number)
        await asyncio.sleep(0.2)


async def good_clients(hosted: Hosted, count: int) -> list[float]:
    """How long each of a few good clients waits for its opening."""
    waited = []
    for _ in range(count):
        began = time.monotonic()
        (await open_stream(hosted)).close()
        waited.append(time.monotonic() - began)
        await asyncio.sleep(0.05)
    return waited


@pytest.mark.parametrize(
    ("idle", "trickling"),
    [(100, 20), pytest.param(2000, 200, marks=pytest.mark.slow)],
    ids=["a hundred", "two thousand"],
)
async def test_idle_connections_and_headers_that_trickle_keep_nobody_waiting(
    host: Host, idle: int, trickling: int
) -> None:
    hosted = await asyncio.to_thread(host)
    await good_clients(hosted, 3)
    before = await hosted.held()
    async with (
        connections(hosted.port, idle),
        connections(hosted.port, trickling, b"GET /api/v2/stream HTTP/1.1\r\n") as slow,
    ):
        trickling_on = asyncio.create_task(trickle(slow))
        waited = await good_clients(hosted, 10)
        held = await hosted.held()
        trickling_on.cancel()
    per_connection = (held["memory"] - before["memory"]) / (idle + trickling)
    print(f"the slowest of ten waited {max(waited):.3f} s; {per_connection / 1024:.1f} KiB a connection")
    assert sorted(waited)[-2] < GOOD
    assert held["slots"] <= 1, "they hold no slot"
    async with asyncio.timeout(10):
        while (after := await hosted.held())["descriptors"] + after["tasks"] > before["descriptors"] + before["tasks"]:
            await asyncio.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("forged", ["", "192.0.2.1", "192.0.2.1, 198.51.100.7"])
async def test_an_address_has_its_share_whatever_it_says_of_itself(host: Host, forged: str) -> None:
    hosted = await asyncio.to_thread(host, SSE_MAX_CONNECTIONS_PER_ADDRESS="2")
    headers = {"X-Forwarded-For": forged, "Forwarded": f"for={forged}", "X-Real-IP": forged} if forged else {}
    statuses = [(await request(hosted.port, "/api/v2/stream", headers=headers)).status for _ in range(3)]
    assert statuses == [200, 200, 429]


TRICKS = {
    "HEAD": (b"HEAD /api/v2/stream HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20, 0),
    "pipelined": (b"GET /api/v2/stream HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20, 1),
    "half-closed": (b"GET /api/v2/stream HTTP/1.1\r\nHost: localhost\r\n\r\n", 0),
}
"""What connections send, and how many slots each may hold when that has settled."""


@pytest.mark.parametrize("trick", TRICKS)
async def test_no_trick_holds_more_slots_than_connections_or_any_when_they_are_gone(host: Host, trick: str) -> None:
    hosted = await asyncio.to_thread(host, SSE_MAX_CONNECTIONS="8")
    ask, share = TRICKS[trick]
    async with connections(hosted.port, 7, ask) as tricky:
        for reader, writer in tricky:
            assert b" 200 " in await asyncio.wait_for(reader.readline(), 5)
            if trick == "half-closed":
                writer.write_eof()
        assert (await request(hosted.port, "/api/v2/stream")).status == 200
        await settled(hosted, 7 * share + 1)
    await settled(hosted, 1)


async def settled(hosted: Hosted, slots: int) -> None:
    """Wait until so many slots are taken."""
    async with asyncio.timeout(10):
        while (await hosted.held())["slots"] != slots:
            await asyncio.sleep(0.05)


def cpu_seconds(hosted: Hosted) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{hosted.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_the_dearest_head_that_is_taken_is_cheap_and_larger_ones_are_refused(host: Host) -> None:
    hosted = await asyncio.to_thread(host)
    used, memory = cpu_seconds(hosted), hosted.memory
    begun = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    async with connections(hosted.port, 5, begun + b"a:\r\n" * 16_000 + b"\r\n"):
        await good_clients(hosted, 1)
        print(f"{(cpu_seconds(hosted) - used) / 5:.3f} s, {(hosted.memory - memory) / 5e6:.1f} MB for each")
        assert cpu_seconds(hosted) - used < 5 * 0.2
        assert hosted.memory - memory < 5 * 5_000_000
    for size in (70_000, 1_000_000):
        reader, writer = await asyncio.open_connection("127.0.0.1", hosted.port)
        writer.write(begun + b"X: " + b"y" * size)
        assert b" 431 " in await asyncio.wait_for(reader.readline(), 5)
        writer.transport.abort()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ask"),
    {
        "a body without end": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n"
        + b"x" * 4_000_000,
        "a header of 40 KB": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
        "a header of a megabyte": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n",
        "ten thousand headers": b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"a: b\r\n" * 10_000 + b"\r\n",
        "ten thousand parameters": b"GET /api/v2/stream?" + b"a=b&" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a path of slashes": b"GET " + b"/" * 12_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "tickers without end": b"GET /api/v2/stream?tickers=" + b"A," * 6_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "an id for a backtracking pattern": b"GET /api/v2/stream HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: evt_"
        + b"a-" * 5_000 + b"!\r\n\r\n",
        "a host for a backtracking pattern": b"GET /api/v2/stream HTTP/1.1\r\nHost: " + b"a." * 6_000 + b"!\r\n\r\n",
        "an Accept for a backtracking pattern": b"GET /api/v2/stream HTTP/1.1\r\nHost: localhost\r\nAccept: "
        + b"text/*;q=0.1," * 1_000 + b'"\\' * 500 + b"\r\n\r\n",
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
async def test_what_is_large_or_intricate_costs_no_more_than_its_own_connection(
    host: Host, name: str, ask: bytes
) -> None:
    hosted = await asyncio.to_thread(host)
    stream = await open_stream(hosted)
    before = await hosted.held()
    async with connections(hosted.port, 5, ask):
        waited = await good_clients(hosted, 3)
        held = await hosted.held()
    print(f"{name}: {max(waited):.3f} s, {(held['memory'] - before['memory']) / 1024:.0f} KiB")
    assert sorted(waited)[1] < GOOD
    assert held["memory"] - before["memory"] < 5 * 4_000_000
    stream.close()
