"""The served process over a real DynamoDB API: what a viewer sees, and what it costs."""

import asyncio
import json
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.dynamodb import Tables
from tests.end_to_end.counting_proxy import proxy
from tests.served import Served
from tests.web.serving import Reply, request

type Serve = Callable[..., Served]

INTERVAL = 0.5
SOON = INTERVAL + 0.5


@pytest.fixture(params=["1", "0"], ids=["handed-over", "iterator"])
def handover(request: pytest.FixtureRequest) -> str:
    """Both ways out."""
    return str(request.param)


async def open_stream(served: Served, query: str = "?tickers=*", **headers: str) -> Reply:
    """A stream whose opening has been read."""
    reply = await request(served.port, f"/api/v2/stream{query}", headers=headers)
    await reply.until("metrics")
    return reply


async def next_update(reply: Reply, seconds: float) -> dict[str, object]:
    """The next `sentiment_update`."""
    data: dict[str, object] = json.loads((await reply.until("sentiment_update", seconds))[-1]["data"])
    return data


async def totals(reply: Reply, seconds: float) -> int:
    """The total of the next `metrics`."""
    return int(json.loads((await reply.until("metrics", seconds))[-1]["data"])["total"])


async def test_what_changes_in_the_table_is_on_the_stream_within_a_poll(
    serve: Serve, table: Tables, handover: str
) -> None:
    served = await asyncio.to_thread(serve, SSE_POLL_INTERVAL=str(INTERVAL), SSE_HANDOVER=handover)
    reply = await open_stream(served)
    fresh = await table.put("tiingo:fresh", "AAPL", sentiment="positive")
    assert (await next_update(reply, SOON))["label"] == "positive"
    old = datetime.now(UTC) - timedelta(hours=6)
    await table.put("tiingo:old", "MSFT", published=old.isoformat(), sentiment="neutral")
    update = await next_update(reply, SOON)
    assert (update["ticker"], update["label"]) == ("MSFT", "neutral")
    await table.analyse(fresh, "negative", 0.9)
    update = await next_update(reply, SOON)
    assert (update["ticker"], update["score"]) == ("AAPL", -0.9)
    assert await totals(reply, SOON) == 2
    await table.delete(fresh)
    assert await totals(reply, 3 * INTERVAL + 0.5) == 1
    reply.close()


async def test_an_item_without_a_sentiment_is_not_there_until_it_has_one(serve: Serve, table: Tables) -> None:
    served = await asyncio.to_thread(serve, SSE_POLL_INTERVAL=str(INTERVAL))
    reply = await open_stream(served)
    key = await table.put("tiingo:1", "TSLA")
    await table.put("tiingo:2", "AAPL", sentiment="positive")
    assert (await next_update(reply, SOON))["ticker"] == "AAPL"
    await table.analyse(key, "negative", 0.7)
    assert (await next_update(reply, SOON))["ticker"] == "TSLA"
    reply.close()


async def test_nothing_of_an_items_text_leaves_the_service(serve: Serve, table: Tables) -> None:
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    served = await asyncio.to_thread(serve)
    reply = await open_stream(served)
    reply.close()
    snapshot = await (await request(served.port, "/api/v2/stream/snapshot?tickers=*")).body()
    assert b"headline" not in snapshot
    assert not any("headline" in line or "never" in line for line in served.output())


async def test_a_hundred_streams_cost_as_many_calls_as_one(serve: Serve, table: Tables) -> None:
    async with proxy(table.endpoint) as between:
        address = f"http://127.0.0.1:{between.port}"
        served = await asyncio.to_thread(serve, SSE_POLL_INTERVAL="0.25", AWS_ENDPOINT_URL_DYNAMODB=address)
        replies = [await open_stream(served, "")]
        counts = []
        for more in (99, 0):
            before = between.calls["Query"]
            await asyncio.sleep(4)
            counts.append(between.calls["Query"] - before)
            replies += [await open_stream(served, "") for _ in range(more)]
        alone, together = counts
        assert set(between.calls) == {"Query"}
        assert abs(alone - together) <= 6, "two polls more or less of three queries each"
        assert 36 <= together <= 51, "three queries every quarter of a second, for four seconds"
        for reply in replies:
            reply.close()


@pytest.mark.parametrize("how", ["hanging", "refusing"])
async def test_an_outage_costs_a_viewer_nothing(serve: Serve, table: Tables, how: str) -> None:
    async with proxy(table.endpoint) as between:
        await table.put("tiingo:1", "AAPL", sentiment="positive")
        settings = {"AWS_ENDPOINT_URL_DYNAMODB": f"http://127.0.0.1:{between.port}", "SSE_POLL_INTERVAL": "0.3"}
        served = await asyncio.to_thread(serve, SSE_HEARTBEAT_INTERVAL="0.5", **settings)
        reply = await open_stream(served)
        between.refusing = how == "refusing"
        between.open.clear()
        await table.put("tiingo:2", "MSFT", sentiment="negative")
        states = [json.loads(event["data"])["feed"] for event in await reply.events(14, seconds=9)]
        assert states[0] == "live"
        assert states[-1] == "stale"
        began = time.monotonic()
        late = await request(served.port, "/api/v2/stream")
        chunk = await anext(late.chunks())
        assert time.monotonic() - began < 0.3, "0.1 s on a quiet machine"
        assert chunk.startswith(b"retry: 3000\n\n")
        assert (await (await request(served.port, "/health/feed")).json())["state"] == "stale"
        assert (await request(served.port, "/health/feed")).status == 503
        assert (await request(served.port, "/health")).status == 200
        between.refusing = False
        between.open.set()
        events = await reply.until("sentiment_update", seconds=20)
        assert json.loads(events[-1]["data"])["ticker"] == "MSFT"
        assert await totals(reply, 5) == 2
        assert not any(event["event"] == "metrics" for event in events[:-1]), "nothing was said without a read"
        reply.close()
        late.close()


async def test_a_stream_begins_at_once_although_dynamodb_was_never_there(serve: Serve) -> None:
    served = await asyncio.to_thread(serve, AWS_ENDPOINT_URL_DYNAMODB="http://127.0.0.1:9", SSE_HEARTBEAT_INTERVAL="1")
    reply = await request(served.port, "/api/v2/stream?tickers=*")
    events = await reply.events(8, seconds=10)
    assert {event["event"] for event in events} == {"heartbeat"}
    assert json.loads(events[-1]["data"])["feed"] == "stale"
    reply.close()


async def test_a_thousand_connects_for_a_hundred_slots_give_a_hundred_streams(serve: Serve, handover: str) -> None:
    served = await asyncio.to_thread(serve, SSE_MAX_CONNECTIONS="100", SSE_HANDOVER=handover)
    replies = await asyncio.gather(*(request(served.port, "/api/v2/stream") for _ in range(1000)))
    assert [reply.status for reply in replies].count(200) == 100
    refused = [reply for reply in replies if reply.status != 200]
    assert {(reply.status, reply.headers["retry-after"], await reply.body()) for reply in refused} == {
        (503, "30", b'{"detail":"Connection limit reached. Try again later.","max_connections":100,"retry_after":30}')
    }
    for reply in replies:
        reply.close()
    assert await _connections(served, 0)


async def test_a_thousand_aborted_connects_leave_no_slot_and_no_file(serve: Serve, handover: str) -> None:
    served = await asyncio.to_thread(serve, SSE_MAX_CONNECTIONS="1000", SSE_HANDOVER=handover)
    (await open_stream(served)).close()
    assert await _connections(served, 0)
    files = _files(served)
    chance = random.Random(7)

    async def leave_early() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(
            b"GET /api/v2/stream?tickers=* HTTP/1.1\r\nHost: localhost\r\n\r\n" + b"x" * chance.choice([0, 0, 1])
        )
        await asyncio.sleep(chance.random() ** 3 * 0.3)
        writer.transport.abort()

    for _ in range(10):
        await asyncio.gather(*(leave_early() for _ in range(100)))
    assert await _connections(served, 0)
    assert _files(served) <= files + 2


async def test_sigterm_with_a_hundred_streams_ends_each_of_them_properly(serve: Serve, handover: str) -> None:
    served = await asyncio.to_thread(serve, SSE_HANDOVER=handover)
    replies = [await open_stream(served) for _ in range(100)]
    ending = asyncio.create_task(asyncio.to_thread(served.terminate))
    for reply in replies:
        last = (await reply.until("stream_end"))[-1]
        assert json.loads(last["data"])["reason"] == "draining"
        with pytest.raises(EOFError):
            await reply.events(1)
        assert await reply.reader.read() == b"\r\n", "behind the last chunk there is nothing but its end"
        reply.close()
    status, seconds = await ending
    assert status == 0
    assert seconds < 2, "well under 1 s on a quiet machine"


async def test_a_reader_resumes_after_a_restart_and_is_told_how(serve: Serve, table: Tables) -> None:
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    served = await asyncio.to_thread(serve)
    reply = await request(served.port, "/api/v2/stream?tickers=*")
    last = (await reply.until("metrics"))[-1]["id"]
    await asyncio.to_thread(served.terminate)
    other = await asyncio.to_thread(serve)
    again = await request(other.port, "/api/v2/stream?tickers=*", headers={"Last-Event-ID": last})
    events = [event for event in await again.until("metrics") if event["event"] != "heartbeat"]
    assert [event["event"] for event in events] == ["resume", "sentiment_update", "metrics"]
    assert json.loads(events[0]["data"]) == {"mode": "snapshot", "replayed": 0}
    reply.close()
    again.close()


async def _connections(served: Served, count: int, seconds: float = 3) -> bool:
    """Whether the number of open streams comes to be this within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        reply = await request(served.port, "/api/v2/stream/status")
        status = await reply.json()
        reply.close()
        if status["connections"] == count:
            return True
        await asyncio.sleep(0.05)
    return False


def _files(served: Served) -> int:
    """How many files a process has open."""
    return len(list(Path(f"/proc/{served.pid}/fd").iterdir()))


async def test_prometheus_sees_the_streams_and_the_feed(serve: Serve) -> None:
    served = await asyncio.to_thread(serve, SSE_POLL_INTERVAL="0.2")
    await open_stream(served)
    reply = await request(served.port, "/metrics")
    lines = (await reply.body()).decode().splitlines()
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "quartsse_connections 1" in lines
    assert "quartsse_connections_opened_total 1" in lines
    assert "quartsse_feed_stale 0" in lines


async def test_on_aws_the_last_minutes_metrics_are_written_at_the_end(serve: Serve) -> None:
    served = await asyncio.to_thread(serve, SSE_METRICS="emf")
    assert (await request(served.port, "/metrics")).status == 404
    await open_stream(served)
    await asyncio.to_thread(served.terminate)
    documents = [json.loads(line) for line in served.output() if line.startswith('{"_aws"')]
    assert [document["ConnectionsOpened"] for document in documents] == [1]
    assert documents[0]["ConnectionsClosedDraining"] == 1


async def test_with_the_tables_stream_as_its_source_a_change_is_there_within_a_second(
    serve: Serve, table: Tables
) -> None:
    old = await table.put("tiingo:old", "AAPL", sentiment="positive")
    served = await asyncio.to_thread(serve, SSE_SOURCE="streams", SSE_POLL_INTERVAL="0.25")
    reply = await open_stream(served)
    await table.put("tiingo:new", "MSFT", sentiment="neutral")
    assert (await next_update(reply, 1.5))["ticker"] == "MSFT"
    await table.analyse(old, "negative", 0.9)
    assert (await next_update(reply, 1.5))["score"] == -0.9
    await table.delete(old)
    assert await totals(reply, 3) == 2, "the one that came with the re-analysis"
    assert await totals(reply, 3) == 1
