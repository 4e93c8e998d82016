"""The JavaScript client in Chromium, over its EventSource and over its fetch, against a server that misbehaves."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from tests.adversary import Adversary, Ending, Seen, Step, block, head
from tests.end_to_end.foreign import CHROMIUM

MODULE = Path(__file__).parents[2] / "quartsse" / "web" / "static" / "quartsse.js"
LISTEN = """async ([mode, options]) => {
  const { connect } = await import("/quartsse.js");
  globalThis.heard = [];
  const stream = connect("/stream", { mode, minDelay: 50, maxDelay: 200, ...options });
  stream.on("state", ({ name, reason, polling, retryAt }) => {
    heard.push({ state: name, reason, polling, wait: retryAt && retryAt - Date.now() });
  });
  stream.on("event", (data, { type, id, polled = false }) => heard.push({ event: type, id, data, polled }));
}"""
SNAPSHOT = {"id": "evt_s.9", "feed": "live", "metrics": {"total": 3}, "sentiment_updates": []}
type Streams = Callable[[int, Seen], Sequence[Step]]
"""What the n-th request of the stream gets."""
type Heard = list[dict[str, Any]]

pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed: apt-get install chromium"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("mode", ["eventsource", "fetch"]),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """A headless Chromium."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """An empty tab."""
    tab = await browser.new_page()
    yield tab
    await tab.close()


def plain(content: bytes, kind: str, seen: Seen, status: str = "200 OK", **headers: str) -> list[Step]:
    """An answer with a body; for HEAD, without."""
    top = head(status, content_type=kind, Content_Length=str(len(content)), Connection="close", **headers)
    return [top if seen.line.startswith("HEAD") else top + content]


def refused(seen: Seen, **headers: str) -> list[Step]:
    return plain(b'{"detail":"Not now"}', "application/json", seen, "503 Service Unavailable", **headers)


def alive(event_id: str) -> list[Step]:
    return [head(Connection="close"), block("{}", event="heartbeat", event_id=event_id), Ending.SILENCE]


def site(streams: Streams) -> Callable[[Seen], Sequence[Step]]:
    """A page, the client, a snapshot, and a stream."""
    asked = 0

    def script(seen: Seen) -> Sequence[Step]:
        nonlocal asked
        if seen.target == "/":
            return plain(b"<!doctype html>", "text/html", seen)
        if seen.target == "/quartsse.js":
            return plain(MODULE.read_bytes(), "text/javascript", seen)
        if seen.target.startswith("/stream/snapshot"):
            return plain(json.dumps(SNAPSHOT).encode(), "application/json", seen)
        if not seen.target.startswith("/stream"):
            return plain(b"", "text/plain", seen, "404 Not Found")
        asked += seen.line.startswith("GET")
        return streams(asked, seen)

    return script


async def listen(page: Page, server: Adversary, mode: str, **options: object) -> None:
    await page.goto(server.url.removesuffix("stream"))
    await page.evaluate(LISTEN, [mode, options])


async def heard_until(page: Page, fits: Callable[[Heard], bool]) -> Heard:
    async with asyncio.timeout(20):
        while not fits(heard := await page.evaluate("heard")):
            await asyncio.sleep(0.05)
    return list(heard)


def opened(server: Adversary) -> list[Seen]:
    """Every time that the stream was opened."""
    return [seen for seen in server.requests if seen.line.startswith("GET /stream?")]


async def test_a_stream_that_goes_silent_is_left_and_opened_where_it_was(page: Page, mode: str) -> None:
    async with Adversary(site(lambda n, _: alive(f"evt_h.{n}"))) as server:
        await listen(page, server, mode, silence=500)
        heard = await heard_until(page, lambda heard: [line.get("state") for line in heard].count("live") > 1)
        reasons = [line["reason"] for line in heard if line.get("state") == "reconnecting" and line["wait"]]
        assert reasons[0].startswith("Nothing heard")
        assert "last_event_id=evt_h.1" in opened(server)[1].target
        async with asyncio.timeout(5):
            await server.left.wait()


async def test_after_three_refusals_it_polls_says_so_and_comes_back_by_itself(page: Page, mode: str) -> None:
    async with Adversary(site(lambda n, seen: alive("evt_h.1") if n > 6 else refused(seen))) as server:
        await listen(page, server, mode, pollInterval=200)
        heard = await heard_until(page, lambda heard: heard[-1:] != [] and heard[-1].get("event") == "heartbeat")
        streams = opened(server)
    polled = next(line for line in heard if line.get("event") == "metrics")
    assert (polled["data"], polled["polled"]) == ({"total": 3}, True)
    states = [(line["state"], line["polling"]) for line in heard if "state" in line]
    assert ("reconnecting", True) in states
    assert states[-1] == ("live", False)
    assert {line["reason"] for line in heard if line.get("wait")} >= {reason_of(mode)}
    assert len(streams) == 7
    assert "last_event_id=evt_s.9" in streams[-1].target, "it goes on from the snapshot"


def reason_of(mode: str) -> str:
    """A HEAD, which asks for the reason where an EventSource tells none, has no body that says it."""
    return "Not now" if mode == "fetch" else "The server answered 503 Service Unavailable"


async def test_retry_after_is_obeyed(page: Page, mode: str) -> None:
    async with Adversary(site(lambda _, seen: refused(seen, Retry_After="7"))) as server:
        await listen(page, server, mode)
        heard = await heard_until(page, lambda heard: any(line.get("wait") for line in heard))
        assert len(opened(server)) == 1
    (wait,) = [line["wait"] for line in heard if line.get("wait")]
    assert 6000 < wait < 10_000


async def test_what_trying_again_does_not_change_ends_it_with_the_reason(page: Page, mode: str) -> None:
    unknown = b'{"detail":"Configuration not found"}'
    answer = site(lambda _, seen: plain(unknown, "application/json", seen, "404 Not Found"))
    async with Adversary(answer) as server:
        await listen(page, server, mode)
        heard = await heard_until(page, lambda heard: heard[-1:] != [] and heard[-1].get("state") == "closed")
        assert len(opened(server)) == 1
    words = {"fetch": "Configuration not found", "eventsource": "The server answered 404 Not Found"}
    assert heard[-1]["reason"] == words[mode]


async def test_line_endings_ids_alone_and_cuts_are_what_they_are_to_an_event_source(page: Page, mode: str) -> None:
    first = "\ufeffretry: 60\r\revent: metrics\rid: 1\r\ndata: [1,\ndata\ndata:2]\n\r"
    content = f"{first}: x\n\nevent: heartbeat\nid: 2\ndata: 3\r\n\r\n".encode()
    pieces: list[Step] = []
    for piece in re.findall(rb"[^\r]+|\r", content):
        pieces += [piece, 0.05]  # seconds in which it arrives on its own
    async with Adversary(site(lambda _, __: [head(Connection="close"), *pieces, Ending.SILENCE])) as server:
        await listen(page, server, mode)
        heard = await heard_until(page, lambda heard: any(line.get("event") == "heartbeat" for line in heard))
    told = [(line["event"], line["id"], line["data"]) for line in heard if "event" in line]
    assert told == [("metrics", "1", [1, 2]), ("heartbeat", "2", 3)]
