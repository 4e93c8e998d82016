"""Readers that do not keep up: what they cost, how they are ended, and that it costs them nothing."""

import asyncio
import json
import re
import time
from collections.abc import Callable

import pytest

from tests.end_to_end.hosted import Hosted
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
    assert len(totals) < 200
    first = totals[0]  # the opening's: none yet, or the first one, if that was quicker
    assert totals[:-1] == list(range(first, first + len(totals) - 1)), "what the kernel had taken, and then the last"
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
