"""Streams over real sockets, the ordinary way out; `tests/end_to_end` has the handed-over one."""

import asyncio
import json
import re
import time

import pytest

from quartsse.feed.configurations import Saved
from quartsse.hub.filters import Filter
from quartsse.web.stream import View
from tests.web.serving import item, serving

NOW = time.time()
ID = re.compile(r"evt_[A-Za-z0-9._~-]{1,124}")


async def test_a_stream_begins_with_its_head_a_retry_and_a_heartbeat() -> None:
    async with serving() as service:
        reply = await service.get("/api/v2/stream")
        assert reply.status == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["cache-control"] == "no-cache, no-transform"
        assert reply.headers["x-accel-buffering"] == "no"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["connection"] == "close"
        first = await anext(reply.chunks())
        assert first.startswith(b"retry: 3000\n\nid: evt_")
        heartbeat = json.loads(first.decode().split("data: ")[1])
        assert set(heartbeat) == {"timestamp", "connections", "uptime_seconds", "feed", "feed_age_seconds"}
        assert heartbeat["connections"] == 1
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", heartbeat["timestamp"])


async def test_the_opening_has_the_last_update_of_every_ticker_and_then_the_totals() -> None:
    items = (
        item("tiingo:1", "AAPL", at=NOW - 60),
        item("tiingo:2", "AAPL", "MSFT", at=NOW - 30, sentiment="negative"),
        item("tiingo:3", "TSLA", at=NOW - 20),
    )
    async with serving(*items) as service:
        reply = await service.get("/api/v2/stream?tickers=aapl,msft")
        events = [event for event in await reply.until("metrics") if event["event"] != "heartbeat"]
        assert [event["event"] for event in events] == ["sentiment_update", "sentiment_update", "metrics"]
        updates = [json.loads(event["data"]) for event in events[:2]]
        assert [(update["ticker"], update["score"], update["count"]) for update in updates] == [
            ("AAPL", -0.8, 2),
            ("MSFT", -0.8, 1),
        ]
        assert set(updates[0]) == {
            "ticker", "score", "label", "confidence", "source", "timestamp", "count", "mean_score",
        }  # fmt: skip
        totals = json.loads(events[2]["data"])
        assert (totals["total"], totals["positive"], totals["neutral"], totals["negative"]) == (3, 2, 0, 1)
        assert totals["by_tag"] == {"AAPL": 2, "MSFT": 1, "TSLA": 1}
        assert (totals["rate_last_hour"], totals["rate_last_24h"]) == (3, 3)
        assert all(ID.fullmatch(event["id"]) for event in events)
        assert [event["id"].endswith(".~") for event in events] == [True, True, False], "only the last has a place"


async def test_a_new_item_is_an_update_and_new_totals_and_without_tickers_only_totals() -> None:
    async with serving() as service:
        with_tickers, without = await service.get("/api/v2/stream?tickers=*"), await service.get("/api/v2/stream")
        for reply in (with_tickers, without):
            await reply.until("metrics")
        service.source.put(item("tiingo:1", "AAPL", at=NOW))
        assert [e["event"] for e in await with_tickers.until("metrics") if e["event"] != "heartbeat"] == [
            "sentiment_update",
            "metrics",
        ]
        assert [e["event"] for e in await without.until("metrics") if e["event"] != "heartbeat"] == ["metrics"]


async def test_a_reader_who_comes_back_gets_exactly_what_was_missed() -> None:
    async with serving(item("tiingo:0", "AAPL", at=NOW - 9)) as service:
        reply = await service.get("/api/v2/stream?tickers=*")
        last = (await reply.until("metrics"))[-1]["id"]
        reply.close()
        other = await service.get("/api/v2/stream?tickers=*")  # keeps the feed going
        await other.until("metrics")
        for number in (1, 2):
            service.source.put(item(f"tiingo:{number}", "AAPL", at=NOW + number))
            await other.until("metrics")
        for reply in (
            await service.get("/api/v2/stream?tickers=*", Last_Event_ID=last),
            await service.get(f"/api/v2/stream?tickers=*&last_event_id={last}"),
            await service.get("/api/v2/stream?tickers=*&last_event_id=nonsense", Last_Event_ID=last),
        ):
            events = [event for event in await reply.until("metrics") if event["event"] != "heartbeat"]
            assert [event["event"] for event in events] == ["resume", *["sentiment_update"] * 2, "metrics"]
            assert json.loads(events[0]["data"]) == {"mode": "exact", "replayed": 2}


@pytest.mark.parametrize("nonsense", ["", "x", "evt_h1.~", "evt_a.b", "evt_h1.aaaaaaaa.99.0", "é" * 300])
async def test_a_reader_with_an_id_that_leads_nowhere_gets_the_state_and_is_told(nonsense: str) -> None:
    async with serving(item("tiingo:0", "AAPL", at=NOW - 9)) as service:
        reply = await service.get("/api/v2/stream?tickers=*", Last_Event_ID=nonsense)
        events = [event for event in await reply.until("metrics") if event["event"] != "heartbeat"]
        told = [json.loads(event["data"]) for event in events if event["event"] == "resume"]
        assert told == ([{"mode": "snapshot", "replayed": 0}] if nonsense else [])
        assert [event["event"] for event in events][-2:] == ["sentiment_update", "metrics"]


async def test_a_filtered_reader_moves_on_with_every_heartbeat() -> None:
    async with serving(SSE_HEARTBEAT_INTERVAL="0.2") as service:
        reply = await service.get("/api/v2/stream?tickers=TSLA")
        await reply.until("metrics")
        service.source.put(item("tiingo:1", "AAPL", at=NOW))
        await reply.until("metrics")
        heartbeat = (await reply.until("heartbeat"))[-1]
        assert heartbeat["id"].split(".")[1:3] == [service.parts.hub.instance, "1"]


async def test_a_heartbeat_comes_at_every_interval_while_the_feed_cannot_be_read() -> None:
    async with serving(SSE_HEARTBEAT_INTERVAL="0.1", hanging=True) as service:
        reply = await service.get("/api/v2/stream")
        events = await reply.events(4, seconds=2)
        assert [event["event"] for event in events] == ["heartbeat"] * 4
        assert json.loads(events[-1]["data"])["feed"] == "starting"


async def test_a_reader_who_was_told_that_the_feed_is_starting_is_told_when_it_is_live() -> None:
    async with serving(SSE_HEARTBEAT_INTERVAL="0.3") as service:
        parts = service.parts
        stream = parts.streams.start(parts.slots.take(), View(Filter(), parts.poller.totals), None)
        body = stream.body(fast=False)
        assert b'"feed":"starting"' in await anext(body)
        await parts.poller.ready()
        await parts.pulse.beat.wait()  # this heartbeat says "live", to channels that the reader has not joined yet
        assert b'"feed":"live"' in await anext(body)
        await body.aclose()
        stream.close()


async def test_a_quiet_stream_gets_a_comment() -> None:
    async with serving(SSE_KEEPALIVE_INTERVAL="0.1") as service:
        reply = await service.get("/api/v2/stream")
        async with asyncio.timeout(3):
            async for chunk in reply.chunks():
                if chunk == b":\n\n":
                    break


async def test_the_head_of_a_stream_can_be_asked_for_and_takes_no_slot() -> None:
    async with serving() as service:
        reply = await service.get("/api/v2/stream", method="HEAD")
        assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert service.parts.slots.taken == 0


async def test_the_slot_is_free_again_when_the_client_leaves_at_any_moment() -> None:
    async with serving(SSE_MAX_CONNECTIONS="5") as service:
        for delay in (0, 0, 0, 0.001, 0.002, 0.005, 0.01, 0.05):
            _, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write(b"GET /api/v2/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(delay)
            writer.transport.abort()
        async with asyncio.timeout(2):
            while service.parts.slots.taken or service.parts.streams.open:
                await asyncio.sleep(0.01)


async def test_a_stream_ends_at_its_greatest_age_and_can_be_resumed() -> None:
    async with serving(SSE_MAX_STREAM_AGE="0.3") as service:
        reply = await service.get("/api/v2/stream")
        ending = (await reply.until("stream_end"))[-1]
        assert json.loads(ending["data"])["reason"] == "max_age"
        assert 1500 <= json.loads(ending["data"])["retry_ms"] == int(ending["retry"]) <= 3000
        assert service.parts.hub.instance in ending["id"]


async def test_at_the_end_of_the_service_every_stream_is_ended_with_a_retry_of_its_own() -> None:
    async with serving(SSE_DRAIN_SECONDS="10") as service:
        replies = [await service.get("/api/v2/stream") for _ in range(20)]
        for reply in replies:
            await reply.until("metrics")
        service.stop.set()
        endings = [json.loads((await reply.until("stream_end"))[-1]["data"]) for reply in replies]
        assert {ending["reason"] for ending in endings} == {"draining"}
        retries = sorted(ending["retry_ms"] for ending in endings)
        assert all(index * 500 <= retry <= index * 500 + 501 for index, retry in enumerate(retries))


async def test_what_is_private_is_never_in_a_stream() -> None:
    saved = {("ann", "one"): Saved("one", "mine", ("AAPL",))}
    async with serving(item("tiingo:1", "AAPL", "TSLA", at=NOW), saved=saved) as service:
        reply = await service.get("/api/v2/configurations/one/stream", X_User_ID="ann")
        events = [event for event in await reply.until("configuration") if event["event"] != "heartbeat"]
        assert [json.loads(event["data"])["ticker"] for event in events[:-1]] == ["AAPL"]
