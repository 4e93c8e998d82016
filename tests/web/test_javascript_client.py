"""The JavaScript client in Node, against the real service."""

import asyncio
import json
import shutil
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from quartsse.feed.configurations import Saved
from quartsse.web.auth import User
from tests.adversary import Adversary, Ending, Step, block, head
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
    assert {"state": "full", "reason": "connection_limit", "polling": True} in polled


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
