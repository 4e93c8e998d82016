"""The JavaScript client in Node, against the real service."""

import asyncio
import json
import shutil
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from quartsse.feed.configurations import Saved
from quartsse.web.auth import User
from tests.adversary import Adversary, Ending, Seen, Step, block, head, singly
from tests.web.serving import item, serving

READER = Path(__file__).with_name("reader.mjs")
SECRET = "thirty-two-bytes-and-a-few-more-for-tickets"
type Line = dict[str, Any]
type Until = Callable[[Callable[[Line], bool]], Any]

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")


@asynccontextmanager
async def reading(url: str, **options: object) -> AsyncIterator[Until]:
    """A reader in Node; gives what reads its lines up to one that fits."""
    process = await asyncio.create_subprocess_exec(
        "node", str(READER), json.dumps({"url": url, "minDelay": 50, **options}), stdout=PIPE
    )
    assert process.stdout is not None
    out = process.stdout

    async def until(fits: Callable[[Line], bool]) -> list[Line]:
        lines: list[Line] = []
        async with asyncio.timeout(20):
            while not lines or not fits(lines[-1]):
                lines.append(json.loads(await out.readline()))
        return lines

    try:
        yield until
    finally:
        process.kill()
        await process.communicate()


async def test_it_goes_on_where_it_stopped() -> None:
    short = serving(item("a:1", "AAPL", at=time.time()), SSE_MAX_STREAM_AGE="0.3", SSE_RETRY_MS="50")
    async with short as service, reading(f"http://127.0.0.1:{service.port}/api/v2/stream", tickers="*") as until:
        lines = await until(lambda line: line.get("event") == "resume")
    assert [line["data"]["ticker"] for line in lines if line.get("event") == "sentiment_update"] == ["AAPL"]
    assert lines[-1]["data"] == {"mode": "exact", "replayed": 0}
    assert {"ended", "live"} <= {line["state"] for line in lines if "state" in line}


async def test_a_ticket_that_does_not_hold_is_followed_by_a_fresh_one() -> None:
    saved = {("ann", "one"): Saved("one", "Mine", ("AAPL",))}
    async with serving(saved=saved, SSE_TICKET_SECRET=SECRET) as service:
        reply = await service.get("/api/v2/stream/tickets", method="POST", X_User_ID=User("ann").id)
        tickets = ["forged", (await reply.json())["ticket"]]
        url = f"http://127.0.0.1:{service.port}/api/v2/configurations/one/stream"
        async with reading(url, tickets=tickets) as until:
            lines = await until(lambda line: line.get("event") == "configuration")
    assert "Invalid ticket" in [line.get("reason") for line in lines]


async def test_while_the_server_is_full_it_polls_and_says_so() -> None:
    async with serving(item("a:1", "AAPL", at=time.time()), SSE_MAX_CONNECTIONS="1") as service:
        await service.get("/api/v2/stream")
        async with reading(f"http://127.0.0.1:{service.port}/api/v2/stream", tickers="*") as until:
            polled = await until(lambda line: line.get("event") == "sentiment_update")
    assert polled[-1]["polled"]
    told = {(line["state"], line["reason"], line["polling"]) for line in polled if "state" in line}
    assert ("full", "connection_limit", True) in told


async def test_a_repeat_is_dropped_and_an_id_of_another_server_is_none() -> None:
    def update(id_: str) -> bytes:
        return block("{}", event="sentiment_update", event_id=id_)

    sent = [update(id_) for id_ in ("evt_x-1.a", "evt_x-1.b", "evt_x-2.c", "evt_x-1.d", "17", "17")]
    script: list[Step] = [head(), b"".join(sent) + block("{}", event="end"), Ending.SILENCE]
    async with Adversary(script) as server, reading(server.url) as until:
        lines = await until(lambda line: line.get("event") == "end")
    ids = [line["id"] for line in lines if line.get("event") == "sentiment_update"]
    assert ids == ["evt_x-1.a", "evt_x-2.c", "evt_x-1.d", "17", "17"]
    assert [line["repeat"] for line in lines if "repeat" in line] == ["evt_x-1.b"]


def refused(**headers: str) -> bytes:
    body = b'{"detail":"Not now"}'
    return (
        head("503 Service Unavailable", content_type="application/json", Content_Length=str(len(body)), **headers)
        + body
    )


def in_seconds(seconds: float) -> str:
    """A moment from now, as a header says it."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("said", ["seconds", "a date", "a date by a clock of its own", "nonsense"])
async def test_retry_after_is_obeyed_as_seconds_and_as_a_date(said: str) -> None:
    answers = {
        "seconds": {"Retry_After": "7"},
        "a date": {"Retry_After": in_seconds(8)},
        "a date by a clock of its own": {"Date": in_seconds(-3600), "Retry_After": in_seconds(-3592)},
    }
    answer = refused(**answers.get(said, {"Retry_After": "soon"}))
    async with Adversary([answer]) as server, reading(server.url) as until:
        lines = await until(lambda line: line.get("reason") == "Not now")
    wait = lines[-1]["wait"] / 1000
    assert (0 < wait < 0.1) if said == "nonsense" else (6 < wait < 10)


def ended(retry_ms: str) -> list[Step]:
    return [head(), block(f'{{"reason": "Not now", "retry_ms": {retry_ms}}}', event="stream_end")]


HOUR = 3600_000
WAITS: dict[str, tuple[list[Step], int]] = {
    "a Retry-After of three thousand years": ([refused(Retry_After="99999999999")], HOUR),
    "a date at the end of time": ([refused(Retry_After="Fri, 31 Dec 9999 23:59:59 GMT")], HOUR),
    "endless digits": ([refused(Retry_After="9" * 400)], HOUR),
    "a retry_ms that no timer takes": (ended("1e12"), HOUR),
    "a retry_ms of nothing": (ended("0"), 50),
    "a negative one": (ended("-1"), 50),
    "one that is no number": (ended('"soon"'), 50),
    "a retry of nothing": ([head(), b"retry: 0\n\n", *ended("null")[1:]], 50),
}


@pytest.mark.parametrize(("script", "wait"), WAITS.values(), ids=WAITS)
async def test_it_waits_an_hour_at_most_and_never_hammers(script: list[Step], wait: int) -> None:
    async with Adversary(script) as server, reading(server.url) as until:
        lines = await until(lambda line: line.get("reason") == "Not now")
    assert wait - 10 <= lines[-1]["wait"] <= wait


async def test_a_block_without_data_says_where_one_is() -> None:
    first = [head(), block("{}", event="heartbeat", event_id="evt_a.1") + b"id: evt_b.2\n\n"]
    async with Adversary(first, [head(), Ending.SILENCE]) as server, reading(server.url) as until:
        await until(lambda line: line.get("reason") == "Connection lost")
        async with asyncio.timeout(5):
            while len(server.requests) < 2:
                await asyncio.sleep(0.01)
    assert "last_event_id=evt_b.2" in server.requests[1].target


async def test_a_retry_of_nothing_still_doubles_while_the_server_refuses() -> None:
    first: list[Step] = [head(), b"retry: 0\n\n" + block("{}", event="heartbeat")]
    async with Adversary(first, [refused()]) as server, reading(server.url, pollAfter=0) as until:
        lines = await until(lambda line: (line.get("wait") or 0) > 190)
    assert len([line for line in lines if line.get("reason") == "Not now"]) <= 8


async def test_a_ticket_that_never_comes_and_one_that_fails_are_followed_by_a_fresh_one() -> None:
    alive: list[Step] = [head(), block("{}", event="heartbeat"), Ending.SILENCE]
    async with Adversary(alive) as server:
        async with reading(server.url, tickets=["never", "broken", "good"], silence=300) as until:
            lines = await until(lambda line: line.get("state") == "live")
        assert [seen.target.partition("ticket=")[2] for seen in server.requests] == ["good"]
    reasons = [line["reason"] for line in lines if line.get("state") == "reconnecting" and line["wait"]]
    assert reasons == ["Nothing heard for 0 s", "No ticket today"]


async def test_every_request_has_headers_of_its_own_and_a_poll_says_what_it_has() -> None:
    snapshot = b'{"id": "evt_s.9", "metrics": {"total": 3}, "sentiment_updates": []}'

    def script(seen: Seen) -> list[Step]:
        if "/snapshot" not in seen.target:
            return [refused()]
        if seen.headers.get("if-none-match") == '"one"':
            return [head("304 Not Modified")]
        return [head(content_type="application/json", ETag='"one"', Content_Length=str(len(snapshot))) + snapshot]

    async with Adversary(script) as server:
        async with reading(server.url, user="ann", pollAfter=1, pollInterval=100, maxDelay=100) as until:
            lines = await until(lambda _: sum("/snapshot" in seen.target for seen in server.requests) > 3)
        polls = [seen for seen in server.requests if "/snapshot" in seen.target]
    assert {seen.headers["x-user-id"] for seen in server.requests} == {"ann"}
    asked = [int(seen.headers["x-asked"]) for seen in server.requests]
    assert sorted(asked) == list(range(1, len(asked) + 1)), "once for each request"
    assert {seen.headers.get("if-none-match") for seen in polls[1:]} == {'"one"'}
    told = [line["data"] for line in lines if line.get("event") == "metrics"]
    assert told == [{"total": 3}], "what is not new is not told"


async def test_a_private_stream_is_polled_with_the_headers_of_its_user() -> None:
    saved = {("ann", "one"): Saved("one", "Mine", ("AAPL",))}
    news = item("a:1", "AAPL", at=time.time())
    async with serving(news, saved=saved, SSE_MAX_CONNECTIONS="1") as service:
        await service.get("/api/v2/stream")
        url = f"http://127.0.0.1:{service.port}/api/v2/configurations/one/stream"
        async with reading(url, user="ann") as until:
            polled = await until(lambda line: line.get("event") == "sentiment_update")
    told = [(line["event"], line["polled"]) for line in polled if "event" in line and line["event"] != "stream_end"]
    assert told == [("configuration", True), ("metrics", True), ("sentiment_update", True)]


async def test_a_snapshot_that_is_refused_for_good_is_asked_for_once() -> None:
    saved = {("ann", "one"): Saved("one", "Mine", ("AAPL",))}
    async with serving(saved=saved, SSE_TICKET_SECRET=SECRET) as service:
        reply = await service.get("/api/v2/configurations/one/snapshot?ticket=any")
        assert reply.status == 401, "a ticket is good for streams alone"
    unauthorized = head("401 Unauthorized", content_type="application/json", Content_Length="2") + b"{}"

    def script(seen: Seen) -> list[Step]:
        return [unauthorized if "/snapshot" in seen.target else refused()]

    tickets = [f"t{number}" for number in range(100)]
    options = {"tickets": tickets, "pollAfter": 1, "pollInterval": 50, "maxDelay": 100}
    async with Adversary(script) as server, reading(server.url, **options) as until:
        lines = await until(lambda _: len(server.requests) > 9)
        streams = [seen.target for seen in server.requests if "/snapshot" not in seen.target]
        assert len(server.requests) == len(streams) + 1
    assert [target.partition("ticket=")[2] for target in streams] == tickets[: len(streams)], "each has a fresh ticket"
    assert not any(line["polling"] for line in lines)


async def test_a_stream_that_goes_silent_is_left_and_opened_again() -> None:
    mute: list[Step] = [head(), block("{}", event="heartbeat"), Ending.SILENCE]
    async with Adversary(mute) as server, reading(server.url, silence=400) as until:
        await until(lambda line: line.get("state") == "live")
        lines = await until(lambda line: line.get("reason", "").startswith("Nothing heard"))
        await until(lambda line: line.get("state") == "live")
    assert lines[-1]["state"] == "reconnecting"
    assert len(server.requests) >= 2


async def test_an_event_without_an_end_is_given_up_before_it_fills_the_memory() -> None:
    endless: list[Step] = [head(), block("{}", event="heartbeat"), b"data: ", *[b"x" * (1 << 20)] * 17, Ending.SILENCE]
    async with Adversary(endless) as server, reading(server.url) as until:
        lines = await until(lambda line: line.get("reason") == "An event is too large")
    assert [line["event"] for line in lines if "event" in line] == ["heartbeat"]


async def test_after_three_failures_it_polls_and_comes_back_to_the_stream_by_itself() -> None:
    snapshot = json.dumps({"id": "evt_s.9", "feed": "live", "metrics": {"total": 3}, "sentiment_updates": []}).encode()

    def script(seen: Seen) -> list[Step]:
        if "/snapshot" in seen.target:
            return [head(content_type="application/json", Content_Length=str(len(snapshot))) + snapshot]
        tried = sum("/snapshot" not in other.target for other in server.requests)
        return (
            [head(), block("{}", event="heartbeat", event_id="evt_h.1"), Ending.SILENCE] if tried > 6 else [refused()]
        )

    async with Adversary(script) as server, reading(server.url, maxDelay=200) as until:
        polled = await until(lambda line: line.get("event") == "metrics")
        assert (polled[-1]["polled"], polled[-1]["data"]) == (True, {"total": 3})
        assert [line["polling"] for line in polled if "state" in line][-1]
        back = await until(lambda line: line.get("state") == "live")
        assert not back[-1]["polling"]
    streams = [seen for seen in server.requests if "/snapshot" not in seen.target]
    assert "last_event_id=evt_s.9" in streams[-1].target, "it goes on from the snapshot"
    assert len(streams) == 7


async def test_what_is_no_event_stream_ends_it_for_good() -> None:
    async with Adversary([head(content_type="text/html", Content_Length="2") + b"hi"]) as server:
        async with reading(server.url) as until:
            lines = await until(lambda line: line.get("state") == "closed")
        assert lines[-1]["reason"] == "Not an event stream: text/html"
        assert len(server.requests) == 1


async def test_every_byte_in_a_packet_of_its_own_is_the_same_stream() -> None:
    content = block('"é✓😀"', event="metrics", event_id="1") + b"event: heartbeat\r\nid: 2\r\ndata: 1\r\r\n"
    async with Adversary([head(), *singly(content), Ending.SILENCE]) as server, reading(server.url) as until:
        lines = await until(lambda line: line.get("event") == "heartbeat")
    assert [(line["event"], line["id"], line["data"]) for line in lines if "event" in line] == [
        ("metrics", "1", "é✓😀"),
        ("heartbeat", "2", 1),
    ]
