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


@pytest.mark.parametrize("said", ["seconds", "a date", "nonsense"])
async def test_retry_after_is_obeyed_as_seconds_and_as_a_date(said: str) -> None:
    words = {"seconds": "7", "a date": format_datetime(datetime.now(UTC) + timedelta(seconds=8), usegmt=True)}
    async with Adversary([refused(Retry_After=words.get(said, "soon"))]) as server, reading(server.url) as until:
        lines = await until(lambda line: line.get("reason") == "Not now")
    wait = lines[-1]["wait"] / 1000
    assert (0 < wait < 0.1) if said == "nonsense" else (6 < wait < 10)


async def test_a_block_without_data_says_where_one_is() -> None:
    first = [head(), block("{}", event="heartbeat", event_id="evt_a.1") + b"id: evt_b.2\n\n"]
    async with Adversary(first, [head(), Ending.SILENCE]) as server, reading(server.url) as until:
        await until(lambda line: line.get("reason") == "Connection lost")
        async with asyncio.timeout(5):
            while len(server.requests) < 2:
                await asyncio.sleep(0.01)
    assert "last_event_id=evt_b.2" in server.requests[1].target


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
