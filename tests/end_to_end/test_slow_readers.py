"""Readers that do not keep up: what they cost, how they are ended, and that it costs them nothing."""

import asyncio
import json
import re
import time
from array import array
from collections.abc import Callable
from statistics import quantiles
from typing import cast

import pytest
import uvloop

from tests.end_to_end.hosted import SENT_AT, Hosted
from tests.end_to_end.readers import ASK, open_stream, read_bytes, read_until, rest, stopped_reader
from tests.processes import eventually
from tests.web.serving import request

type Host = Callable[..., Hosted]

BACKLOG = 65_536
BOTH_WAYS = pytest.mark.parametrize("handover", ["1", "0"], ids=["handed-over", "iterator"])


def numbers(ids: list[str]) -> list[int]:
    """The numbers of the events that a hosted service was told to send."""
    return [int(found[1]) for found in map(re.compile(r"evt_n(\d+)-x\.").match, ids) if found]


@BOTH_WAYS
async def test_a_reader_that_stops_is_ended_with_lagged_and_comes_back_without_a_loss(
    host: Host, handover: str
) -> None:
    hosted = await asyncio.to_thread(host, SSE_BACKLOG_BYTES=str(BACKLOG), SSE_HANDOVER=handover)
    other = await open_stream(hosted)
    reading = asyncio.ensure_future(other.events(900, seconds=20))
    stopped = await asyncio.to_thread(stopped_reader, hosted)
    assert await asyncio.to_thread(eventually, lambda: len(hosted.opened()) == 2, 3)
    before = (await hosted.held())["memory"]
    await hosted.send(900, 1024, seconds=2)
    heard = numbers([event["id"] for event in await reading])
    assert heard == list(range(1, 1 + len(heard))), "in order, without a gap"
    assert len(heard) >= 899, "a heartbeat may be among them"
    assert (await hosted.held())["subscriptions"] == 1
    assert (await hosted.held())["memory"] - before < 8_000_000
    found = await asyncio.to_thread(rest, stopped)
    assert found.whole, "it read again in time, and so has the proper end"
    assert found.events[-1].json()["reason"] == "lagged"
    assert 1500 <= found.events[-1].json()["retry_ms"] <= 3000
    had = numbers([event.id for event in found.events])
    assert had == list(range(1, 1 + len(had)))
    assert len(had) < 900
    again = await request_from(hosted, found.events[-1].id)
    assert json.loads(again[0]["data"]) == {"mode": "exact", "replayed": 900 - len(had)}
    assert had + numbers([event["id"] for event in again]) == list(range(1, 901))
    assert await asyncio.to_thread(eventually, lambda: [c["reason"] for c in hosted.closings()] == ["lagged"], 3)
    stopped.close()


async def request_from(hosted: Hosted, last_event_id: str) -> list[dict[str, str]]:
    """What a reader that comes back with an id is told in its opening."""
    reply = await request(hosted.port, "/api/v2/stream?tickers=*", headers={"Last-Event-ID": last_event_id})
    return [event for event in await reply.until("metrics") if event["event"] != "heartbeat"]


async def test_a_reader_that_is_slow_and_not_stuck_is_held_to_the_same_bound(host: Host) -> None:
    hosted = await asyncio.to_thread(host, SSE_BACKLOG_BYTES=str(BACKLOG))
    slow = await asyncio.to_thread(stopped_reader, hosted)
    await asyncio.to_thread(read_until, slow, b"event: metrics")
    while not await hosted.most_unsent():
        await hosted.send(5, 1024)
    for _ in range(8):  # half of what waits leaves at once, and so the rest waits somewhere else
        await hosted.send(40, 1024)
        await asyncio.to_thread(read_bytes, slow, 30_000)
    print(f"most unsent of one reader: {await hosted.most_unsent()} of {BACKLOG}")
    assert BACKLOG / 2 < await hosted.most_unsent() <= BACKLOG + 2 * 1200, (
        "and one event more, which is what went beyond it"
    )
    slow.close()


async def test_of_totals_that_wait_for_a_slow_reader_only_the_last_is_sent(host: Host) -> None:
    hosted = await asyncio.to_thread(host, SSE_BACKLOG_BYTES=str(BACKLOG))
    stopped = await asyncio.to_thread(stopped_reader, hosted, ASK.replace(b"?tickers=*", b""))
    assert await asyncio.to_thread(eventually, lambda: len(hosted.opened()) == 1, 3)
    await hosted.send_totals(300)
    held = await hosted.held()
    assert held["subscriptions"] == 1, "1 MB of totals, and none of them is backlog but the last"
    terminated = asyncio.create_task(asyncio.to_thread(hosted.terminate))
    found = await asyncio.to_thread(rest, stopped)
    totals = [event.json()["total"] for event in found.said("metrics")]
    assert totals[-1] == 300
    assert len(totals) < 100, "what the kernel took, again after 0.2 s if there was room, and the last"
    assert totals == sorted(set(totals)), "none twice, and none behind a newer one"
    assert (await terminated)[0] == 0
    stopped.close()


@BOTH_WAYS
async def test_a_stream_that_was_ended_and_is_not_read_is_cut_off_after_five_seconds(host: Host, handover: str) -> None:
    hosted = await asyncio.to_thread(host, SSE_MAX_STREAM_AGE="1", SSE_HANDOVER=handover)
    stopped = await asyncio.to_thread(stopped_reader, hosted)
    assert await asyncio.to_thread(eventually, lambda: len(hosted.opened()) == 1, 3)
    opened = time.monotonic()
    await hosted.send(200, 1024)
    assert (await hosted.held())["subscriptions"] == 1
    assert await asyncio.to_thread(eventually, lambda: len(hosted.closings()) == 1, 8)
    seconds = time.monotonic() - opened
    assert 0.9 + 4.9 < seconds < 1.1 + 5 + 1
    assert hosted.closings()[0]["reason"] == "max_age"
    assert (await hosted.held())["slots"] == 0
    found = await asyncio.to_thread(rest, stopped)
    assert not found.whole
    stopped.close()


HEALTHY = 500
STOPPED = 50
PHASE = 14.0


class Timed(asyncio.Protocol):
    """A reader that only notes how late each event comes, in seconds."""

    def __init__(self, delays: array[float]) -> None:
        self._delays = delays

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(ASK)

    def data_received(self, data: bytes) -> None:
        now, at = time.monotonic_ns(), data.rfind(SENT_AT)
        if at >= 0:
            sent = data[at + len(SENT_AT) : at + 40].partition(b",")[0]
            self._delays.append((now - int(sent)) / 1e9)


@pytest.mark.slow
def test_fifty_readers_that_stop_cost_the_others_nothing(host: Host) -> None:
    hosted = host(SSE_MAX_CONNECTIONS="1000", SSE_LOG_EVENTS="500")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(compare_without_and_with(hosted))


async def compare_without_and_with(hosted: Hosted) -> None:
    """Time the deliveries to the healthy in turns: without any that have stopped, and with them."""
    delays: array[float] = array("d")
    loop = asyncio.get_running_loop()
    healthy = [await loop.create_connection(lambda: Timed(delays), "127.0.0.1", hosted.port) for _ in range(HEALTHY)]
    try:
        await take_turns(hosted, delays)
    finally:
        for transport, _ in healthy:
            transport.abort()
        await asyncio.sleep(0.1)


async def take_turns(hosted: Hosted, delays: array[float]) -> None:
    """Two turns without, and two with."""
    await hosted.send(250, 1024, 5)
    found: dict[int, list[float]] = {0: [], STOPPED: []}
    for turn, stopped in enumerate((0, STOPPED, 0, STOPPED)):
        p99, grown = await one_phase(hosted, delays, stopped)
        found[stopped].append(p99)
        print(f"{stopped} stopped among {HEALTHY}: p99 {1000 * p99:.1f} ms, memory +{grown / 1e6:.1f} MB at most")
        if turn:  # the first one fills what every process fills once
            assert grown < stopped * 262_144 + 6_000_000
    assert [line["reason"] for line in hosted.closings()] == ["lagged"] * 2 * STOPPED, "each was ended and counted"
    assert (await hosted.held())["streams"] == HEALTHY
    assert min(found[STOPPED]) <= 1.2 * min(found[0]) + 0.005


async def one_phase(hosted: Hosted, delays: array[float], stopped: int) -> tuple[float, int]:
    """50 events a second of 1 KB; gives the 99th percentile of the delays, and by how much memory grew at most."""
    socks = [await asyncio.to_thread(stopped_reader, hosted) for _ in range(stopped)]
    await asyncio.sleep(1)
    del delays[:]
    before, most = hosted.memory, 0
    sending = asyncio.create_task(hosted.send(round(50 * PHASE), 1024, PHASE))
    while not sending.done():
        await asyncio.sleep(0.5)
        most = max(most, hosted.memory - before)
    await sending
    await asyncio.sleep(6 if stopped else 0)  # who was ended is cut off
    assert len(delays) > 0.5 * HEALTHY * 50 * PHASE, "several may come at once, but not all"
    for sock in socks:
        sock.close()
    return quantiles(delays, n=100)[98], most
