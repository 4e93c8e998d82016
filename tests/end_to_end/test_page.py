"""The page in a real browser, over the real service and a real DynamoDB API."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Locator, Page, Route, async_playwright, expect

from tests.dynamodb import Tables
from tests.feed.fault_proxy import fault_proxy, hanging
from tests.processes import free_port
from tests.served import Served

type Serve = Callable[..., Served]

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
AXE = Path(__file__).parents[1] / "node_modules" / "axe-core" / "axe.min.js"
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PAGE = {"SSE_DASHBOARD": "1", "SSE_POLL_INTERVAL": "0.3"}

pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed: apt-get install chromium"),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """A headless Chromium; each test has a context of its own in it."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=QUIET, ignore_default_args=["--disable-back-forward-cache"]
        )
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """Tabs that know each other, and that must not have said anything in their consoles that they should not."""
    said: list[str] = []
    made = await browser.new_context()
    made.on("weberror", lambda error: said.append(str(error.error)))
    made.on("console", lambda message: said.append(message.text) if "Content Security" in message.text else None)
    yield made
    await made.close()
    assert not said


@pytest_asyncio.fixture(loop_scope="module")
async def page(context: BrowserContext) -> Page:
    """An empty tab."""
    return await context.new_page()


def pill(page: Page) -> Locator:
    return page.get_by_test_id("connection")


async def live(page: Page, url: str, **options: Any) -> None:
    """Open the page and wait until it is live and has drawn the totals."""
    await page.goto(url)
    await expect(pill(page)).to_have_attribute("data-state", "live", **options)
    await expect(page.get_by_test_id("total")).to_have_text(re.compile(r"\d"))


async def streams(page: Page, url: str) -> int:
    """How many streams the service has open."""
    status = await (await page.request.get(f"{url}/api/v2/stream/status")).json()
    return int(status["connections"])


async def test_numbers_change_without_a_reload(serve: Serve, table: Tables, page: Page) -> None:
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    served = await asyncio.to_thread(serve, **PAGE)
    await live(page, served.url)
    await expect(page.get_by_test_id("total")).to_have_text("1")
    key = await table.put("tiingo:2", "TSLA", sentiment="negative")
    await expect(page.get_by_test_id("total")).to_have_text("2")
    row = page.locator("tr[data-ticker=TSLA]")
    await expect(row.locator("[data-field=label]")).to_contain_text("negative")
    await table.analyse(key, "neutral", 0.6)
    await expect(row.locator("[data-field=label]")).to_contain_text("neutral")
    await expect(page.get_by_test_id("negative")).to_have_text("0")


async def test_the_page_survives_a_restart_of_the_service(serve: Serve, table: Tables, page: Page) -> None:
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    port = str(free_port())
    served = await asyncio.to_thread(serve, PORT=port, SSE_DRAIN_SECONDS="1", **PAGE)
    await live(page, served.url)
    await asyncio.to_thread(served.terminate)
    await expect(pill(page)).not_to_have_attribute("data-state", "live")
    await expect(pill(page)).to_contain_text(re.compile(r"in \d+ s.*heard", re.DOTALL))
    await expect(page.get_by_test_id("banner")).to_contain_text("as of")
    await expect(page.locator("body")).to_have_attribute("data-fresh", "no")
    await expect(page.get_by_test_id("history-readout")).to_contain_text("1 positive")
    await assert_accessible(page)
    await table.put("tiingo:2", "MSFT", sentiment="positive")
    await asyncio.to_thread(serve, PORT=port, **PAGE)
    await expect(pill(page)).to_have_attribute("data-state", "live", timeout=30_000)
    await expect(page.get_by_test_id("total")).to_have_text("2", timeout=10_000)
    await expect(page.locator("tr[data-ticker=MSFT]")).to_be_visible()
    await expect(page.get_by_test_id("banner")).to_be_hidden()
    await expect(page.get_by_test_id("log")).to_contain_text("AAPL")


async def test_a_full_server_is_shown_as_full_and_tried_again(serve: Serve, page: Page, browser: Browser) -> None:
    served = await asyncio.to_thread(serve, SSE_MAX_CONNECTIONS="1", **PAGE)
    first = await browser.new_page()
    await live(first, served.url)
    await page.goto(served.url)
    await expect(pill(page)).to_have_attribute("data-state", "full")
    await expect(pill(page)).to_contain_text(re.compile(r"trying again in \d+ s"))
    await expect(page.get_by_test_id("banner")).to_contain_text("polled")
    await expect(page.get_by_test_id("total")).to_have_text("0")
    await assert_accessible(page)
    await first.close()
    await page.get_by_test_id("retry-now").click()
    await expect(pill(page)).to_have_attribute("data-state", "live")


async def test_a_feed_that_hangs_is_stale_and_the_data_dimmed(serve: Serve, table: Tables, page: Page) -> None:
    async with fault_proxy(table.endpoint) as proxy:
        served = await asyncio.to_thread(serve, AWS_ENDPOINT_URL_DYNAMODB=proxy.endpoint, **PAGE)
        await live(page, f"{served.url}/?view=operator")
        proxy.fault = hanging
        await expect(pill(page)).to_have_attribute("data-state", "stale", timeout=20_000)
        await expect(pill(page)).to_contain_text(re.compile(r"last read [\d.]+ s ago"))
        await expect(page.get_by_test_id("banner")).to_contain_text("cannot be read")
        await expect(page.locator("body")).to_have_attribute("data-fresh", "no")
        await expect(page.get_by_test_id("operator-feed")).to_have_text("stale")
        await assert_accessible(page)
        proxy.fault = None
        await expect(pill(page)).to_have_attribute("data-state", "live", timeout=20_000)


async def test_a_stream_that_the_server_ends_says_why_and_when_it_is_tried_again(serve: Serve, page: Page) -> None:
    served = await asyncio.to_thread(serve, SSE_MAX_STREAM_AGE="2", SSE_RETRY_MS="30000", **PAGE)
    await live(page, served.url)
    await expect(pill(page)).to_have_attribute("data-state", "ended", timeout=10_000)
    await expect(pill(page)).to_contain_text(re.compile(r"Ended by server.*trying again in \d+ s", re.DOTALL))
    await expect(page.get_by_test_id("banner")).to_contain_text("reached its greatest age")
    await assert_accessible(page)
    await page.get_by_test_id("retry-now").click()
    await expect(pill(page)).to_have_attribute("data-state", "live")
    await page.route("**/api/v2/stream?*", lambda route: route.fulfill(status=404, body="{}"))
    await expect(pill(page)).to_have_attribute("data-state", "ended", timeout=10_000)
    await page.get_by_test_id("retry-now").click()
    await expect(pill(page)).to_have_attribute("data-state", "closed")
    await expect(page.get_by_test_id("banner")).to_contain_text("404")
    await assert_accessible(page)


async def test_two_tabs_share_one_connection_and_the_second_takes_over(
    serve: Serve, table: Tables, page: Page, context: BrowserContext
) -> None:
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    served = await asyncio.to_thread(serve, **PAGE)
    await live(page, f"{served.url}/?view=operator")
    second = await context.new_page()
    await live(second, f"{served.url}/?tickers=MSFT&view=operator")
    await expect(second.get_by_test_id("sharing")).to_have_text("held by another of 2 tabs")
    await expect(page.get_by_test_id("sharing")).to_have_text("held by this tab, for 2 tabs")
    assert await streams(page, served.url) == 1
    await table.put("tiingo:2", "MSFT", sentiment="negative")
    for tab in (page, second):
        await expect(tab.get_by_test_id("total")).to_have_text("2")
    await page.close()
    await table.put("tiingo:3", "MSFT", sentiment="neutral")
    await expect(second.get_by_test_id("total")).to_have_text("3")
    await expect(second.get_by_test_id("sharing")).to_have_text("held by this tab")
    await expect(second.get_by_test_id("resume-mode")).to_have_text(re.compile("exact"))
    await expect(second.get_by_test_id("reconnects")).to_have_text("0")
    assert await streams(second, served.url) == 1


@pytest.mark.slow
async def test_tabs_that_share_come_back_together(
    serve: Serve, table: Tables, page: Page, context: BrowserContext
) -> None:
    port = str(free_port())
    served = await asyncio.to_thread(serve, PORT=port, SSE_DRAIN_SECONDS="1", **PAGE)
    second = await context.new_page()
    for tab in (page, second):
        await live(tab, served.url)
    await asyncio.to_thread(served.terminate)
    for tab in (page, second):
        await expect(pill(tab)).not_to_have_attribute("data-state", "live")
    await asyncio.to_thread(serve, PORT=port, **PAGE)
    for tab in (page, second):
        await expect(pill(tab)).to_have_attribute("data-state", "live", timeout=30_000)
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    for tab in (page, second):
        await expect(tab.get_by_test_id("total")).to_have_text("1")
    assert await streams(page, served.url) == 1


async def test_a_tab_that_is_steered_by_hand_has_a_connection_of_its_own(
    serve: Serve, table: Tables, page: Page, context: BrowserContext
) -> None:
    served = await asyncio.to_thread(serve, **PAGE)
    await live(page, served.url)
    second = await context.new_page()
    await live(second, f"{served.url}/?view=operator")
    place = await second.get_by_test_id("last-id").inner_text()
    for number in range(2):
        await table.put(f"tiingo:{number}", "AAPL", sentiment="positive")
    await expect(second.get_by_test_id("total")).to_have_text("2")
    await second.get_by_test_id("resume-id").fill(place)
    await second.get_by_test_id("resume").click()
    await expect(second.get_by_test_id("resume-mode")).to_have_text("exact, 2 replayed")
    await expect(second.get_by_test_id("repeats")).to_have_text("2")
    await expect(second.get_by_test_id("sharing")).to_have_text("this tab's own")
    assert await streams(page, served.url) == 2
    await second.get_by_test_id("drop").click()
    await expect(pill(second)).to_have_attribute("data-state", "reconnecting")
    await expect(pill(second)).to_have_attribute("data-state", "live")
    await second.get_by_test_id("share").click()
    await expect(second.get_by_test_id("sharing")).to_have_text("held by another of 2 tabs")
    assert await streams(page, served.url) == 1


async def test_a_slow_reader_can_be_simulated(serve: Serve, table: Tables, page: Page) -> None:
    served = await asyncio.to_thread(serve, **PAGE)
    await live(page, f"{served.url}/?view=operator")
    await page.get_by_test_id("slow").click()
    await expect(pill(page)).to_have_attribute("data-state", "live")
    await expect(page.get_by_test_id("sharing")).to_have_text("this tab's own")
    for number in range(5):
        await table.put(f"tiingo:{number}", "AAPL", sentiment="positive")
    await expect(page.get_by_test_id("total")).to_have_text("5", timeout=15_000)
    await expect(page.get_by_test_id("lag-most")).to_have_text(re.compile(r"\d{3} ms|\d s"))


async def test_the_way_back_shows_everything_at_once(serve: Serve, table: Tables, page: Page) -> None:
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    served = await asyncio.to_thread(serve, **PAGE)
    await live(page, served.url)
    await expect(page.get_by_test_id("log")).to_contain_text("AAPL")
    await page.evaluate("globalThis.kept = true")
    await page.goto(f"{served.url}/health")
    assert await streams(page, served.url) == 0
    await table.put("tiingo:2", "MSFT", sentiment="positive")
    await page.go_back(wait_until="commit", timeout=5000)
    assert await page.evaluate("globalThis.kept"), "it did not come from the back/forward cache"
    await expect(page.get_by_test_id("log")).to_contain_text("AAPL")
    await expect(page.get_by_test_id("total")).to_have_text("2")
    await expect(page.get_by_test_id("history-readout")).to_contain_text("2 positive")


async def test_what_is_chosen_is_in_the_address(serve: Serve, table: Tables, page: Page, browser: Browser) -> None:
    for number, ticker in enumerate(("AAPL", "MSFT")):
        await table.put(f"tiingo:{number}", ticker, sentiment="positive")
    served = await asyncio.to_thread(serve, **PAGE)
    await live(page, served.url)
    await page.get_by_test_id("filter").fill("aapl")
    await page.get_by_test_id("log-search").fill("tiingo")
    await page.get_by_label("Heartbeats").uncheck()
    await page.get_by_role("button", name="6 h").click()
    await page.locator("tr[data-ticker=AAPL] button").click()
    other = await browser.new_page()
    await live(other, page.url)
    await expect(other.get_by_test_id("filter")).to_have_value("AAPL")
    await expect(other.locator("tr[data-ticker=MSFT]")).to_be_hidden()
    await expect(other.get_by_test_id("log-search")).to_have_value("tiingo")
    await expect(other.get_by_label("Heartbeats")).not_to_be_checked()
    await expect(other.get_by_test_id("history-readout")).to_contain_text("Last 6 h")
    await expect(other.get_by_test_id("detail")).to_contain_text("AAPL")
    await other.close()


async def test_the_log_pauses_searches_and_shows_frames(serve: Serve, table: Tables, page: Page) -> None:
    served = await asyncio.to_thread(serve, **PAGE)
    await live(page, served.url)
    log = page.get_by_test_id("log")
    await page.get_by_test_id("log-pause").click()
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    await expect(page.locator("#log-count")).to_contain_text("waiting")
    await expect(page.get_by_test_id("total")).to_have_text("1")
    await expect(log).not_to_contain_text("AAPL")
    await page.get_by_test_id("log-pause").click()
    await page.get_by_test_id("log-search").fill("aapl")
    await page.get_by_label("Raw frames").check()
    await page.get_by_label("Metrics").uncheck()
    await expect(log.locator("li")).to_have_count(1)
    await expect(log.locator("pre")).to_contain_text(re.compile(r"event: sentiment_update\nid: evt_\S+\ndata: \{"))


async def test_a_hostile_source_is_text(serve: Serve, table: Tables, page: Page) -> None:
    hostile = "<img src=x onerror=document.title=1>"
    served = await asyncio.to_thread(serve, **PAGE)
    await live(page, f"{served.url}/?tickers={hostile}&ticker={hostile}&view={hostile}&span={hostile}")
    await page.get_by_test_id("filter").fill("")
    await table.put("tiingo:1", "AAPL", sentiment="positive", sources=[hostile])
    await expect(page.get_by_test_id("log")).to_contain_text("<img src=x")
    assert await page.locator("img").count() == 0


async def test_a_user_of_the_demo_sees_only_their_tickers(serve: Serve, table: Tables, page: Page) -> None:
    await table.configure("alice", "chips", "NVDA", name="<b>Chips</b>")
    served = await asyncio.to_thread(serve, SSE_TICKET_SECRET="s" * 32, SSE_DASHBOARD_USERS="alice/chips", **PAGE)
    await page.goto(served.url)
    await page.locator("#view-as-select").select_option(index=1)
    await table.put("tiingo:1", "NVDA", sentiment="positive")
    await expect(page.get_by_test_id("log")).to_contain_text("as alice")
    await expect(page.get_by_test_id("log")).to_contain_text("<b>Chips</b>")


async def test_a_ticket_that_does_not_hold_is_followed_by_a_fresh_one(serve: Serve, table: Tables, page: Page) -> None:
    await table.configure("alice", "chips", "NVDA")
    settings = {"SSE_TICKET_SECRET": "s" * 32, "SSE_DASHBOARD_USERS": "alice/chips"}
    served = await asyncio.to_thread(serve, **settings, **PAGE)
    asked = 0

    async def first_a_spent_one(route: Route) -> None:
        nonlocal asked
        asked += 1
        answer = await route.fetch()
        if asked > 1:
            return await route.fulfill(response=answer)
        ticket = (await answer.json())["ticket"]
        stream = f"{served.url}/api/v2/configurations/chips/stream?on_limit=retry&ticket={ticket}"
        spent = await page.evaluate("async (url) => (await fetch(url)).status", stream)
        assert spent == 200
        return await route.fulfill(response=answer)

    await page.route("**/api/v2/stream/tickets", first_a_spent_one)
    await page.goto(served.url)
    await page.locator("#view-as-select").select_option(index=1)
    await expect(page.get_by_test_id("view-as-state")).to_have_text("reconnecting")
    await expect(page.get_by_test_id("view-as-state")).to_have_text("live", timeout=10_000)
    assert asked == 2


async def test_without_a_status_the_page_goes_on(serve: Serve, table: Tables, page: Page) -> None:
    served = await asyncio.to_thread(serve, **PAGE)
    await page.route("**/api/v2/stream/status", lambda route: route.fulfill(status=404, body="{}"))
    await live(page, f"{served.url}/?view=operator")
    await expect(page.get_by_test_id("server-note")).to_contain_text("cannot be read")
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    await expect(page.get_by_test_id("total")).to_have_text("1")


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed: npm ci --prefix tests")
@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        ("light", 320),
        ("dark", 1280),
        pytest.param("light", 1280, marks=pytest.mark.slow),
        pytest.param("dark", 320, marks=pytest.mark.slow),
    ],
)
async def test_axe_finds_nothing_in_any_view_or_state(
    serve: Serve, table: Tables, browser: Browser, scheme: Any, width: int
) -> None:
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    await table.put("tiingo:2", "MSFT", sentiment="negative")
    served = await asyncio.to_thread(serve, SSE_DASHBOARD_USERS="alice/chips", **PAGE)
    page = await browser.new_page(
        color_scheme=scheme, viewport={"width": width, "height": 900}, reduced_motion="reduce"
    )
    await live(page, f"{served.url}/?ticker=AAPL&raw=1")
    await page.evaluate(AXE.read_text(encoding="utf-8"))
    for name in ("history", "detail"):
        await page.locator(f"#{name}-table-toggle").click()
    found = {"dashboard": await violations(page)}
    await page.get_by_test_id("tab-operator").click()
    found["operator"] = await violations(page)
    await page.get_by_test_id("drop").click()
    found["reconnecting"] = await violations(page)
    await page.get_by_test_id("offline").click()
    await page.locator("#tab-live").click()
    found["offline"] = await violations(page)
    assert not {state: said for state, said in found.items() if said}
    await page.close()


async def assert_accessible(page: Page) -> None:
    """What axe finds in the state that a page is in: nothing, in either colours."""
    if not AXE.exists():
        return
    await page.evaluate(AXE.read_text(encoding="utf-8"))
    schemes: tuple[Literal["dark", "light"], ...] = ("dark", "light")
    for scheme in schemes:
        await page.emulate_media(reduced_motion="reduce", color_scheme=scheme)
        assert not await violations(page)


async def violations(page: Page) -> list[str]:
    """What axe says about the page as it is, and whether it scrolls sideways."""
    said: list[str] = await page.evaluate(
        "axe.run().then(({violations}) => violations.map(({id, nodes}) => `${id}: ${nodes.map(n => n.target)}`))"
    )
    wide = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
    return [*said, "scrolls sideways"] if wide else said


MARK = """[...document.querySelectorAll("a, button, input, select, summary, [tabindex='0']")]
  .filter((element) => element.checkVisibility() && !element.disabled && element.tabIndex >= 0)
  .forEach((element) => element.setAttribute("unreached", ""))"""
REACHED = """(() => {
  const reached = document.activeElement;
  if (reached === document.body) return ""; // past the end, before the beginning
  reached.removeAttribute("unreached");
  const shown = reached.matches(".chip input") ? reached.nextElementSibling : reached;
  return getComputedStyle(shown).outlineStyle === "none" ? reached.outerHTML : "";
})()"""


async def test_the_keyboard_reaches_everything_and_shows_where_it_is(serve: Serve, table: Tables, page: Page) -> None:
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    served = await asyncio.to_thread(serve, **PAGE)
    await live(page, served.url)
    await expect(page.locator("tr[data-ticker=AAPL]")).to_be_visible()
    await page.get_by_test_id("log-pause").focus()
    await page.keyboard.press("Space")
    await page.evaluate(MARK)
    for _ in range(await page.locator("[unreached]").count() + 2):
        await page.keyboard.press("Tab")
        assert not await page.evaluate(REACHED)
    await expect(page.locator("[unreached]")).to_have_count(0)
    await page.locator("#tab-live").focus()
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_test_id("drop")).to_be_visible()
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("/")
    await expect(page.get_by_test_id("filter")).to_be_focused()


async def test_a_screen_reader_is_told_at_most_once_in_five_seconds(serve: Serve, page: Page) -> None:
    served = await asyncio.to_thread(serve, **PAGE)
    await page.clock.install()
    await live(page, f"{served.url}/?view=operator")
    await page.clock.fast_forward(6000)
    await page.evaluate("""() => {
      globalThis.told = [];
      const announcer = document.getElementById("announcer");
      const tell = () => told.push([Date.now(), announcer.textContent]);
      new MutationObserver(tell).observe(announcer, { childList: true });
    }""")
    for _ in range(3):
        await page.get_by_test_id("drop").click()
        await expect(pill(page)).to_have_attribute("data-state", "reconnecting")
        await page.get_by_test_id("retry-now").click()
        await expect(pill(page)).to_have_attribute("data-state", "live")
    await page.clock.fast_forward(6000)
    times, texts = zip(*await page.evaluate("told"), strict=True)
    assert texts[-1] == "Live. "
    assert all(later - earlier >= 5000 for earlier, later in pairwise(times))


async def test_with_reduced_motion_nothing_moves(serve: Serve, table: Tables, browser: Browser) -> None:
    served = await asyncio.to_thread(serve, **PAGE)
    page = await browser.new_page(reduced_motion="reduce")
    await live(page, served.url)
    await page.evaluate("""() => {
      globalThis.moved = 0;
      const look = () => {
        moved += document.getAnimations().length;
        requestAnimationFrame(look);
      };
      look();
    }""")
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    await expect(page.get_by_test_id("total")).to_have_text("1")
    await page.get_by_test_id("tab-operator").click()
    await page.get_by_test_id("drop").click()
    await expect(pill(page)).to_have_attribute("data-state", "reconnecting")
    assert await page.evaluate("moved") == 0
    await page.close()


FEED_THE_PAGE = """class extends EventTarget {
  CLOSED = 2;
  constructor() {
    super();
    globalThis.source = this;
  }
  close() {}
  tell(type, id, data) {
    this.dispatchEvent(new MessageEvent(type, { data: JSON.stringify(data), lastEventId: id }));
  }
}"""
TELL = """async ([from, to]) => {
  const timestamp = () => new Date().toISOString();
  for (let n = from; n < to; n += 1) {
    const [ticker, label] = [`T${n % (n < 3000 ? 1500 : 300)}`, ["positive", "neutral", "negative"][n % 3]];
    const update = { ticker, score: 0.5, label, confidence: 0.5, source: `s${n}`, timestamp: timestamp() };
    source.tell("sentiment_update", `evt_u${n}-s.i.${n}.1`, { ...update, count: n, mean_score: 0.1 });
    if (n % 10) continue;
    const by_tag = Object.fromEntries(Array.from({ length: 200 }, (_, tag) => [`T${tag}`, n + tag]));
    const counts = { total: n, positive: n, neutral: 0, negative: 0, rate_last_hour: n, rate_last_24h: n };
    source.tell("metrics", `evt_m${n}.i.${n}.1`, { ...counts, by_tag, timestamp: timestamp() });
    source.tell("heartbeat", `evt_h${n}.i.${n}.1`, { timestamp: timestamp(), connections: 1, feed: "live" });
    if (n % 500 === 0) await new Promise(requestAnimationFrame);
  }
}"""


@pytest.mark.slow
async def test_eight_hours_of_events_do_not_grow_the_page(serve: Serve, page: Page) -> None:
    """The events of such a day at once, over an EventSource that is told them: what counts is what the page keeps."""
    served = await asyncio.to_thread(serve, **PAGE)
    await page.add_init_script(f"globalThis.EventSource = {FEED_THE_PAGE};")
    await page.goto(served.url)
    await page.wait_for_function("globalThis.source")
    inside = await page.context.new_cdp_session(page)

    async def kept(start: int, end: int) -> tuple[float, float]:
        await page.evaluate(TELL, [start, end])
        await inside.send("HeapProfiler.collectGarbage")
        measured = await inside.send("Performance.getMetrics")
        figures = {metric["name"]: metric["value"] for metric in measured["metrics"]}
        return figures["JSHeapUsedSize"] / 2**20, figures["Nodes"]

    await inside.send("Performance.enable")
    heap, nodes = await kept(0, 25_000)
    heap_later, nodes_later = await kept(25_000, 50_000)
    assert heap_later < heap + 2
    assert nodes_later < nodes * 1.05
    assert await page.locator("#log-entries > li").count() <= 150
    assert await page.locator("#tickers > tr").count() <= 1000
