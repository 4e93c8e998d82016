"""What a served process tells of itself: each metric and log line caused by what it stands for, with its number."""

import asyncio
import json
import re
import socket
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as families

from tests.dynamodb import Tables
from tests.end_to_end.hosted import Hosted
from tests.end_to_end.readers import rest, stopped_reader
from tests.feed import fault_proxy as faults
from tests.feed.fault_proxy import Request, fault_proxy
from tests.processes import eventually
from tests.served import Served
from tests.telemetry.metering import check_emf
from tests.web.serving import Reply, request

type Host = Callable[..., Hosted]
type Serve = Callable[..., Served]

STREAM = "/api/v2/stream?tickers=*"
LAMBDA = {"AWS_LAMBDA_FUNCTION_NAME": "quartsse", "AWS_REGION": "eu-west-1"}
ROOT = "1-6a1b2c3d-0123456789abcdef01234567"


async def scraped(port: int) -> dict[str, float]:
    """The samples of `/metrics`; labels stand behind the name, as `name:value`."""
    answer = await request(port, "/metrics")
    text = (await answer.body()).decode()
    answer.close()
    return {
        ":".join((sample.name, *sample.labels.values())): sample.value
        for family in families(text)
        for sample in family.samples
    }


async def opened(port: int, path: str = STREAM, **headers: str) -> Reply:
    """A stream whose opening has been read."""
    reply = await request(port, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    await reply.until("metrics")
    return reply


def lines_of(served: Served, message: str) -> list[dict[str, Any]]:
    """What its log says with one message."""
    lines = (json.loads(line) for line in served.output() if line.startswith('{"time"'))
    return [line for line in lines if line["message"] == message]


async def read(reply: Reply, count: int) -> tuple[int, int]:
    """Read so many more updates: how many events came, and how many bytes of the stream."""
    events = size = 0
    updates = 0
    while updates < count:
        block = (await asyncio.wait_for(anext(aiter(reply.chunks())), 5)).decode()
        events += block.count("\nevent: ")
        updates += block.count("\nevent: sentiment_update")
        size += len(block)
    return events, size


async def test_deliveries_are_counted_by_event_and_by_byte(host: Host) -> None:
    hosted = host(SSE_POLL_INTERVAL="0.05", SSE_METRICS="prometheus")
    readers = [await opened(hosted.port) for _ in range(3)]
    before = await scraped(hosted.port)
    await hosted.send(10, size=300)
    got = [await read(reply, 10) for reply in readers]
    after = await scraped(hosted.port)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown["quartsse_events_delivered_total"] == sum(events for events, _ in got)
    assert grown["quartsse_delivered_bytes_total"] == sum(size for _, size in got)
    assert after["quartsse_connections"] == after["quartsse_connections_opened_total"] == 3
    assert after["quartsse_connections_share_ratio"] == 0.03


async def test_bytes_are_those_on_the_wire_where_one_reader_takes_gzip_and_one_does_not(host: Host) -> None:
    hosted = host(SSE_POLL_INTERVAL="0.05", SSE_METRICS="prometheus")
    plain = await request(hosted.port, STREAM)
    gzip = await request(hosted.port, STREAM, headers={"Accept-Encoding": "gzip"})
    assert gzip.headers["content-encoding"] == "gzip"
    sizes = [
        await _size_until(plain, b"event: metrics"),
        await _size_until(gzip, b"event: metrics", zlib.MAX_WBITS | 16),
    ]
    await hosted.send(1, size=5000)
    sizes.append(await _size_until(plain, b"xxx"))
    sizes.append(await _size_until(gzip, b"xxx", -zlib.MAX_WBITS))
    assert sizes[3] < 1000 < 5000 < sizes[2]
    assert (await scraped(hosted.port))["quartsse_delivered_bytes_total"] == sum(sizes)


async def _size_until(reply: Reply, text: bytes, gzip: int = 0) -> int:
    """Read until there is a text in the stream: bytes of the body until then. `gzip`: zlib's word for the coding."""
    size, seen, inflate = 0, b"", zlib.decompressobj(gzip) if gzip else None
    while text not in seen:
        data = await asyncio.wait_for(anext(aiter(reply.chunks())), 5)
        size += len(data)
        seen += inflate.decompress(data) if inflate else data
    return size


async def test_a_stream_that_is_over_says_why_how_long_and_how_much(host: Host) -> None:
    hosted = host(SSE_POLL_INTERVAL="0.05")
    reply = await request(hosted.port, STREAM)
    body = b""
    while b"event: metrics" not in body:
        body += await asyncio.wait_for(anext(aiter(reply.chunks())), 5)
    await hosted.send(5, size=500)
    while body.count(b"event: sentiment_update") < 5:
        body += await asyncio.wait_for(anext(aiter(reply.chunks())), 5)
    reply.close()
    assert await asyncio.to_thread(eventually, lambda: len(hosted.closings()) == 1, 5)
    [closing] = hosted.closings()
    assert (closing["reason"], closing["level"], closing["streams"]) == ("client", "INFO", 0)
    assert (closing["events"], closing["bytes"]) == (body.count(b"\nevent: "), len(body))
    assert 0 < closing["seconds"] < 60


async def test_every_end_refusal_and_resume_is_counted_by_its_kind(host: Host) -> None:
    hosted = host(SSE_POLL_INTERVAL="0.05", SSE_MAX_CONNECTIONS="2", SSE_MAX_STREAM_AGE="1", SSE_METRICS="prometheus")
    first = await request(hosted.port, STREAM)
    place = (await first.until("metrics"))[-1]["id"]
    second = await opened(hosted.port)
    assert (await request(hosted.port, STREAM)).status == 503
    assert (await request(hosted.port, STREAM + "&on_limit=retry")).status == 200
    assert (await request(hosted.port, "/api/v2/stream?tickers=")).status == 400
    await hosted.send(3)
    second.close()
    await first.until("stream_end")
    resumed = await opened(hosted.port, Last_Event_ID=place)
    resumed.close()
    assert await asyncio.to_thread(eventually, lambda: len(hosted.closings()) == 3, 5)
    found = await scraped(hosted.port)
    assert found["quartsse_connections_closed_total:client"] == 2
    assert found["quartsse_connections_closed_total:max_age"] == 1
    assert found["quartsse_refused_total:connection_limit"] == 2
    assert found["quartsse_refused_total:bad_request"] == 1
    assert found["quartsse_resumes_total:exact"] == 1
    assert found["quartsse_events_replayed_total"] == 3
    assert found["quartsse_stream_age_seconds_count"] == 3
    refusals = lines_of(hosted, "refused")
    assert [(line["status"], line["reason"], line["politely"]) for line in refusals] == [
        (503, "connection_limit", False),
        (503, "connection_limit", True),
        (400, "bad_request", False),
    ]


async def test_latency_is_that_of_the_read_and_of_the_item(serve: Serve, table: Tables) -> None:
    served = await asyncio.to_thread(serve, SSE_POLL_INTERVAL="0.2", SSE_METRICS="prometheus")
    reply = await opened(served.port)
    await table.put("tiingo:1", "AAPL", sentiment="positive", age=600)
    await reply.until("sentiment_update")
    found = await scraped(served.port)
    assert found["quartsse_delivery_latency_seconds_count"] == found["quartsse_source_latency_seconds_count"] == 1
    assert 0.0005 < found["quartsse_delivery_latency_seconds_sum"] < 5, "a read takes time: never zero by construction"
    assert 600 <= found["quartsse_source_latency_seconds_sum"] < 620
    assert found["quartsse_events_published_total:sentiment_update"] == 1
    assert found["quartsse_events_published_total:metrics"] >= 1
    assert found["quartsse_items"] == 1
    assert found["quartsse_feed_age_seconds"] < 5
    assert (found["quartsse_feed_stale"], found["quartsse_poll_errors_total"]) == (0, 0)
    status = await (await request(served.port, "/api/v2/stream/status")).json()
    assert status["feed"]["items"] == 1
    later = await scraped(served.port)
    assert later["quartsse_read_units_total"] >= 1.5 * found["quartsse_poll_duration_seconds_count"] > 0
    assert later["quartsse_memory_bytes"] > 1e6
    assert later["quartsse_open_files"] > 5


async def test_what_does_not_fit_and_what_cannot_be_read_is_counted_by_kind(serve: Serve, table: Tables) -> None:
    await table.put("tiingo:1", "AAPL", sentiment="positive", score=7.0)
    served = await asyncio.to_thread(serve, SSE_POLL_INTERVAL="0.2", SSE_METRICS="prometheus")
    reply = await opened(served.port)
    found = await scraped(served.port)
    assert (found["quartsse_items_skipped_total:score"] >= 1, found["quartsse_items"]) == (True, 0)
    astray = await asyncio.to_thread(serve, SENTIMENTS_TABLE="gone", SSE_POLL_INTERVAL="0.2", SSE_METRICS="prometheus")
    waiting = await request(astray.port, STREAM)
    await waiting.until("heartbeat")
    assert await asyncio.to_thread(eventually, lambda: any("cannot read gone" in line for line in astray.output()), 10)
    assert (await scraped(astray.port))["quartsse_poll_errors_total:failed"] >= 1
    status = await (await request(astray.port, "/api/v2/stream/status")).json()
    assert "gone" in status["feed"]["reason"]
    reply.close()
    waiting.close()


BOTH = pytest.mark.parametrize("way", ["prometheus", "emf"])


async def told(served: Served, way: str) -> dict[str, float]:
    """What a service tells, by either way: Prometheus while it runs, EMF with the document that SIGTERM brings."""
    if way == "prometheus":
        return await scraped(served.port)
    await asyncio.to_thread(served.terminate)
    document: dict[str, float]
    [document] = [json.loads(line) for line in served.output() if line.startswith('{"_aws"')]
    check_emf(document, time.time())
    return document


def bad_days() -> faults.Fault:
    """What the queries of one partition meet: a throttle that a retry gets over, a read that fails for throttles, and
    then nothing but refusals. Queries of the other partitions pass, so that what is counted does not depend on when
    this begins."""
    asked = 0

    async def fault(request: Request) -> bytes | None:
        nonlocal asked
        if {"S": "positive"} not in request.body.get("ExpressionAttributeValues", {}).values():
            return None
        asked += 1
        if asked == 2:
            return None
        return await (faults.throttling if asked < 5 else faults.access_denied)(request)

    return fault


async def test_throttles_failed_reads_and_a_stale_feed_are_told(serve: Serve, table: Tables) -> None:
    found, document = await asyncio.gather(*(after_bad_days(serve, table, way) for way in ("prometheus", "emf")))
    assert found["quartsse_feed_stale"] == document["FeedStale"] == 1
    assert min(found["quartsse_feed_age_seconds"], document["FeedAge"]) > 5
    assert found["quartsse_throttles_total"] == document["Throttles"] == 3
    assert found["quartsse_poll_errors_total:throttled"] == document["PollErrorsThrottled"] == 1
    assert found["quartsse_poll_errors_total:failed"] >= 1
    assert document["PollErrors"] == 1 + document["PollErrorsFailed"] >= 2


async def after_bad_days(serve: Serve, table: Tables, way: str) -> dict[str, float]:
    """What a service tells when its feed has grown stale."""
    async with fault_proxy(table.endpoint) as proxy:
        settings = {"SSE_POLL_INTERVAL": "0.2", "SSE_METRICS": way, "AWS_ENDPOINT_URL_DYNAMODB": proxy.endpoint}
        served = await asyncio.to_thread(serve, **settings)
        reply = await opened(served.port)
        proxy.fault = bad_days()
        assert await went_stale(served.port)
        found = await told(served, way)
        reply.close()
    return found


async def went_stale(port: int) -> bool:
    """Wait until the health of the feed says so."""
    for _ in range(200):
        answer = await request(port, "/health/feed")
        if answer.status == 503:
            return True
        answer.close()
        await asyncio.sleep(0.1)
    return False


@BOTH
async def test_a_lagged_reader_is_counted(host: Host, way: str) -> None:
    hosted = await asyncio.to_thread(host, SSE_BACKLOG_BYTES="65536", SSE_POLL_INTERVAL="0.05", SSE_METRICS=way)
    stopped = await asyncio.to_thread(stopped_reader, hosted)
    assert await asyncio.to_thread(eventually, lambda: len(hosted.opened()) == 1, 5)
    while (await hosted.held())["subscriptions"]:
        await hosted.send(100)
    await asyncio.to_thread(rest, stopped)
    stopped.close()
    assert await asyncio.to_thread(eventually, lambda: len(hosted.closings()) == 1, 8)
    found = await told(hosted, way)
    if way == "prometheus":
        assert found["quartsse_connections_closed_total:lagged"] == 1
    else:
        assert (found["ConnectionsClosedLagged"], found["ConnectionsClosed"]) == (1, 1)


@BOTH
async def test_lines_that_are_left_out_are_counted_and_what_they_stand_for_is_told(host: Host, way: str) -> None:
    hosted = await asyncio.to_thread(host, SSE_METRICS=way)
    for _ in range(130):
        answer = await request(hosted.port, "/api/v2/stream?tickers=")
        assert answer.status == 400
        answer.close()
    found = await told(hosted, way)
    assert found["quartsse_refused_total:bad_request" if way == "prometheus" else "RefusedBadRequest"] == 130
    if hosted.status is None:
        await asyncio.to_thread(hosted.terminate)
    lines = lines_of(hosted, "refused")
    assert len(lines) < 130
    assert sum(line.get("left_out", 1) for line in lines) == 130


async def test_with_the_tables_stream_the_source_latency_is_that_of_the_change(serve: Serve, table: Tables) -> None:
    settings = {"SSE_SOURCE": "streams", "SSE_POLL_INTERVAL": "0.2", "SSE_METRICS": "prometheus"}
    served = await asyncio.to_thread(serve, **settings)
    reply = await opened(served.port)
    await table.put("tiingo:1", "AAPL", sentiment="positive", age=600)
    await reply.until("sentiment_update")
    found = await scraped(served.port)
    assert found["quartsse_source_latency_seconds_count"] == 1
    assert 0 <= found["quartsse_source_latency_seconds_sum"] < 30, "and not the 600 s since it was published"


async def test_the_last_document_comes_with_sigterm_and_counts_the_streams_that_it_ended(host: Host) -> None:
    hosted = host(SSE_POLL_INTERVAL="0.05", SSE_METRICS="emf", AWS_REGION="eu-west-1")
    readers = [await opened(hosted.port) for _ in range(2)]
    await hosted.send(4)
    for reply in readers:
        await read(reply, 4)
    status, _ = await asyncio.to_thread(hosted.terminate)
    assert status == 0
    [document] = [json.loads(line) for line in hosted.output() if line.startswith('{"_aws"')]
    check_emf(document, time.time())
    assert (document["ConnectionsOpened"], document["ConnectionsClosedDraining"]) == (2, 2)
    assert document["EventsDelivered"] >= 2 * 4
    assert document["Transport"] == "ecs"


async def test_on_lambda_a_document_is_written_before_the_freeze(host: Host) -> None:
    hosted = host(SSE_POLL_INTERVAL="0.05", SSE_METRICS="emf", SSE_TRACING="off", **LAMBDA)
    reply = await opened(hosted.port)
    reply.close()
    found: list[dict[str, Any]] = []

    def written() -> bool:
        found[:] = [json.loads(line) for line in hosted.output() if line.startswith('{"_aws"')]
        return bool(found)

    assert await asyncio.to_thread(eventually, written, 5)
    check_emf(found[0], time.time())
    assert (found[0]["ConnectionsClosedClient"], found[0]["Transport"]) == (1, "lambda")


async def test_the_trace_is_in_the_head_and_in_every_line_of_the_stream(host: Host) -> None:
    hosted = host(SSE_POLL_INTERVAL="0.05", SSE_TRACING="xray", AWS_XRAY_DAEMON_ADDRESS="127.0.0.1:9")
    reply = await opened(hosted.port, X_Amzn_Trace_Id=f"Root={ROOT}")
    other = await opened(hosted.port)
    assert reply.headers["x-amzn-trace-id"] == f"Root={ROOT}"
    its_own = other.headers["x-amzn-trace-id"].removeprefix("Root=")
    assert re.fullmatch("1-[0-9a-f]{8}-[0-9a-f]{24}", its_own)
    reply.close()
    other.close()
    assert await asyncio.to_thread(eventually, lambda: len(hosted.closings()) == 2, 5)
    for lines in (hosted.opened(), hosted.closings()):
        assert {line["trace"] for line in lines} == {ROOT, its_own}


async def test_without_a_daemon_nothing_is_sent_and_nothing_is_said(host: Host) -> None:
    hosted = host(SSE_POLL_INTERVAL="0.05", AWS_XRAY_DAEMON_ADDRESS="127.0.0.1:9", **LAMBDA)
    reply = await opened(hosted.port, X_Amzn_Trace_Id=f"Root={ROOT};Parent=0123456789abcdef;Sampled=1")
    await hosted.send(3)
    await read(reply, 3)
    status, _ = await asyncio.to_thread(hosted.terminate)
    assert status == 0
    assert all(line.startswith(('{"time"', '{"_aws"')) for line in hosted.output())
    assert {line["level"] for line in map(json.loads, hosted.output()) if "level" in line} == {"INFO"}


async def test_on_lambda_the_daemon_gets_each_connect_below_the_functions_segment(host: Host) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(10)
        address = f"127.0.0.1:{daemon.getsockname()[1]}"
        hosted = host(SSE_POLL_INTERVAL="60", AWS_XRAY_DAEMON_ADDRESS=address, **LAMBDA)
        reply = await opened(hosted.port, X_Amzn_Trace_Id=f"Root={ROOT};Parent=0123456789abcdef;Sampled=1")
        datagram = await asyncio.to_thread(daemon.recv, 65_536)
        while b"quartsse connect" not in datagram:  # the first read may be sampled as well
            datagram = await asyncio.to_thread(daemon.recv, 65_536)
        segment = json.loads(datagram.partition(b"\n")[2])
        assert (segment["trace_id"], segment["parent_id"], segment["type"]) == (ROOT, "0123456789abcdef", "subsegment")
        assert segment["annotations"] == {"status": 200, "resumed": False}
        assert segment["end_time"] - segment["start_time"] < 5, "it is over while the stream goes on"
        reply.close()


async def test_off_means_off(host: Host) -> None:
    hosted = host(SSE_POLL_INTERVAL="0.05", SSE_METRICS="off", SSE_TRACING="xray", AWS_XRAY_SDK_ENABLED="false")
    reply = await opened(hosted.port, X_Amzn_Trace_Id=f"Root={ROOT}")
    assert "x-amzn-trace-id" not in reply.headers
    assert (await request(hosted.port, "/metrics")).status == 404
    await asyncio.to_thread(hosted.terminate)
    assert not [line for line in hosted.output() if "_aws" in line]
