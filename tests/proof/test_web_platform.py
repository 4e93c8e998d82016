"""What the web platform's own tests ask of a browser's EventSource, asked of the service: in Chromium, over real HTTP.

Named after the cases in the EventSource directory of web-platform-tests that they follow.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from tests.end_to_end.hosted import Hosted
from tests.end_to_end.test_page import CHROMIUM, QUIET
from tests.processes import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed: apt-get install chromium"),
    pytest.mark.asyncio(loop_scope="module"),
]

STREAM = "/api/v2/stream?tickers=*"
LONG = "x" * 200
UNSAFE = "evt_<unsafe>"
SCRIPT = """
([url, options, wanted]) => new Promise((resolve) => {
  const source = new EventSource(url, options);
  const seen = { states: [source.readyState], events: [], errors: [] };
  const done = (why) => { clearTimeout(timer); source.close(); resolve({ ...seen, why, last: source.readyState }); };
  const timer = setTimeout(() => done("time"), 8000);
  source.onopen = () => seen.states.push(source.readyState);
  source.onmessage = (event) => seen.events.push({ type: "message", data: event.data });
  source.onerror = () => {
    seen.errors.push(source.readyState);
    if (source.readyState === 2) done("closed");
  };
  for (const type of ["heartbeat", "metrics", "sentiment_update", "resume", "stream_end"]) {
    source.addEventListener(type, (event) => {
      seen.events.push({ type, id: event.lastEventId, data: event.data, origin: event.origin });
      if (type === wanted) done("event");
    });
  }
})
"""


@dataclass
class Visit:
    """A page of an origin, in a browser, and what it asked the service for."""

    page: Page
    hosted: Hosted
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    answers: list[tuple[str, int, dict[str, str]]] = field(default_factory=list)

    async def listen(self, path: str = STREAM, wanted: str = "metrics", **options: object) -> Any:
        """What an EventSource sees until an event of that name, or until it gives up."""
        return await self.page.evaluate(SCRIPT, [self.hosted.url + path, options, wanted])

    async def fetch(self, path: str = STREAM, **options: object) -> Any:
        """The status of a fetch, or the name of the error."""
        program = "([url, options]) => fetch(url, options).then((it) => it.status, (error) => error.name)"
        return await self.page.evaluate(program, [self.hosted.url + path, options])


type Open = Callable[..., Any]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    """A headless Chromium for all of these."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(loop_scope="module")
async def visit(host: Callable[..., Hosted], browser: Browser) -> AsyncIterator[Open]:
    """Opens a page: of the service's own origin, or of another one (`elsewhere`), which it allows or not."""
    pages: list[Page] = []

    async def open_page(*, elsewhere: bool = False, allowed: bool = True, **settings: str) -> Visit:
        port = free_port()
        origin = f"http://localhost:{port}" if elsewhere else f"http://127.0.0.1:{port}"
        chosen = {"SSE_POLL_INTERVAL": "0.2", "SSE_HEARTBEAT_INTERVAL": "1", "SSE_RETRY_MS": "200"}
        if elsewhere and allowed:
            chosen["SSE_CORS_ORIGINS"] = origin
        hosted = await asyncio.to_thread(host, PORT=str(port), **chosen, **settings)
        if elsewhere:
            hosted.url = f"http://127.0.0.1:{port}"
        page = await browser.new_page()
        pages.append(page)
        visit = Visit(page, hosted)
        await page.goto(f"{origin}/health")
        page.on("request", lambda request: visit.asked.append((request.method, request.headers)))
        page.on("response", lambda answer: visit.answers.append((answer.request.method, answer.status, answer.headers)))
        return visit

    yield open_page
    for page in pages:
        await page.close()


async def test_request_accept(visit: Open) -> None:
    here = await visit()
    await here.listen()
    assert here.asked[0][1]["accept"] == "text/event-stream"
    assert await here.fetch(headers={"Accept": "text/plain"}) == 406
    assert await here.fetch("/api/v2/stream/status", headers={"Accept": "*/*"}) == 200


async def test_request_cache_control(visit: Open) -> None:
    here = await visit()
    await here.listen()
    method, status, headers = here.answers[0]
    assert (method, status) == ("GET", 200)
    assert {"no-cache", "no-transform"} <= set(headers["cache-control"].split(", "))


async def test_eventsource_onopen_and_ready_state(visit: Open) -> None:
    seen = await (await visit()).listen()
    assert seen["states"] == [0, 1]
    assert (seen["why"], seen["last"]) == ("event", 2)


async def test_eventsource_onmessage_nothing_comes_without_a_name(visit: Open) -> None:
    seen = await (await visit()).listen()
    assert "message" not in {event["type"] for event in seen["events"]}
    assert [event["type"] for event in seen["events"]][:1] == ["heartbeat"]
    assert all(json.loads(event["data"]) for event in seen["events"])


async def test_event_data_and_format_field_id(visit: Open) -> None:
    here = await visit()
    await here.hosted.send(3, size=64)
    seen = await here.listen()
    assert all(event["id"].startswith("evt_") and len(event["id"]) <= 128 for event in seen["events"])


async def test_eventsource_close_frees_the_slot(visit: Open) -> None:
    here = await visit()
    for _ in range(3):
        await here.listen()
    async with asyncio.timeout(3):
        while (await here.hosted.held())["slots"]:
            await asyncio.sleep(0.05)


async def test_eventsource_request_cancellation_frees_the_slot_of_a_page_that_goes(visit: Open) -> None:
    here = await visit()
    await here.page.evaluate("(url) => { window.source = new EventSource(url); }", here.hosted.url + STREAM)
    async with asyncio.timeout(5):
        while not (await here.hosted.held())["slots"]:
            await asyncio.sleep(0.02)
    await here.page.goto("about:blank")
    async with asyncio.timeout(5):
        while (await here.hosted.held())["slots"]:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v2/stream?tickers=,", 400),
        ("/nowhere", 404),
        ("/api//v2/stream", 404),  # no redirect
        ("/api/v2/configurations/a/stream", 401),
        ("/api/v2/stream/status", 200),
    ],
)
async def test_request_status_error_and_format_mime_bogus_end_an_event_source_for_good(
    visit: Open, path: str, status: int
) -> None:
    here = await visit(SSE_AUTH="header")
    seen = await here.listen(path)
    assert (seen["why"], seen["errors"]) == ("closed", [2])
    assert [answer[1] for answer in here.answers] == [status]


async def test_request_status_error_a_full_server_is_503_and_with_on_limit_obeyed(visit: Open) -> None:
    here = await visit(SSE_MAX_CONNECTIONS="1")
    await here.page.evaluate(
        "(url) => new Promise((done) => { window.first = new EventSource(url); window.first.onopen = done; })",
        here.hosted.url + STREAM,
    )
    assert (await here.listen())["why"] == "closed"
    seen = await here.listen(f"{STREAM}&on_limit=retry", wanted="stream_end")
    assert seen["why"] == "event"
    assert json.loads(seen["events"][-1]["data"])["reason"] == "connection_limit"


async def test_eventsource_reconnect_with_the_last_id_and_at_the_retry_that_was_sent(visit: Open) -> None:
    here = await visit(SSE_MAX_STREAM_AGE="1")
    seen = await here.listen(wanted="resume")
    assert seen["why"] == "event"
    assert 0 in seen["errors"], "it reconnects by itself"
    assert len(here.asked) >= 2
    assert json.loads(seen["events"][-1]["data"])["mode"] == "exact"


async def test_eventsource_cross_origin_with_an_allowed_origin(visit: Open) -> None:
    here = await visit(elsewhere=True)
    seen = await here.listen()
    assert seen["why"] == "event"
    assert seen["events"][0]["origin"] == here.hosted.url
    headers = here.answers[0][2]
    assert headers["access-control-allow-origin"] == here.page.url.removesuffix("/health")
    assert "origin" in headers["vary"].lower()


async def test_request_credentials_are_allowed_to_that_origin_and_never_to_any(visit: Open) -> None:
    here = await visit(elsewhere=True)
    assert (await here.listen(withCredentials=True))["why"] == "event"
    headers = here.answers[0][2]
    assert headers["access-control-allow-credentials"] == "true"
    assert headers["access-control-allow-origin"] != "*"


async def test_eventsource_cross_origin_without_leave_fails_for_good(visit: Open) -> None:
    here = await visit(elsewhere=True, allowed=False)
    for options in ({}, {"withCredentials": True}):
        seen = await here.listen(**options)
        assert (seen["why"], seen["events"]) == ("closed", [])


async def test_eventsource_cross_origin_errors_can_be_read_too(visit: Open) -> None:
    here = await visit(elsewhere=True)
    assert await here.fetch("/api/v2/stream?tickers=,") == 400
    assert await here.fetch("/nowhere") == 404


async def test_eventsource_cross_origin_preflight_none_for_an_id_of_ours(visit: Open) -> None:
    here = await visit(elsewhere=True, SSE_MAX_STREAM_AGE="1")
    assert (await here.listen(wanted="resume"))["why"] == "event"
    assert {method for method, _ in here.asked} == {"GET"}


@pytest.mark.parametrize("unusual", [LONG, UNSAFE], ids=["too long", "unsafe characters"])
async def test_eventsource_cross_origin_preflight_lets_an_unusual_id_through(visit: Open, unusual: str) -> None:
    here = await visit(elsewhere=True)
    assert await here.fetch("/api/v2/stream", method="HEAD", headers={"Last-Event-ID": unusual}) == 200


async def test_eventsource_cross_origin_preflight_is_refused_to_other_pages(visit: Open) -> None:
    here = await visit(elsewhere=True, allowed=False)
    assert await here.fetch("/api/v2/stream", method="HEAD", headers={"Last-Event-ID": LONG}) == "TypeError"


async def test_format_utf_8_bom_null_and_newlines_in_names_are_data_and_nothing_else(visit: Open) -> None:
    here = await visit()
    hostile = "\ufeff\u2028\u2029\x00é✓\r\n\r\nevent: admin\ndata: x\n\n"
    await here.hosted.say(hostile)
    seen = await here.listen(wanted="metrics")
    told = [json.loads(event["data"]) for event in seen["events"] if event["type"] == "sentiment_update"]
    assert [update["source"] for update in told] == [hostile]
