"""The page in a real browser, over the real service and a real DynamoDB API."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.dynamodb import Tables
from tests.processes import free_port
from tests.served import Served

type Serve = Callable[..., Served]

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PAGE = {"SSE_DASHBOARD": "1", "SSE_POLL_INTERVAL": "0.3"}

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed: apt-get install chromium")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A headless Chromium."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        await chromium.close()


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """An empty page, which must not have said anything in its console that it should not."""
    said: list[str] = []
    opened = await browser.new_page()
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("console", lambda message: said.append(message.text) if "Content Security" in message.text else None)
    yield opened
    assert not said
    await opened.close()


async def test_numbers_change_without_a_reload(serve: Serve, table: Tables, page: Page) -> None:
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    served = await asyncio.to_thread(serve, **PAGE)
    await page.goto(served.url)
    await expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live")
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
    await page.goto(served.url)
    await expect(page.get_by_test_id("total")).to_have_text("1")
    await asyncio.to_thread(served.terminate)
    await expect(page.get_by_test_id("connection")).not_to_have_attribute("data-state", "live")
    await table.put("tiingo:2", "MSFT", sentiment="positive")
    await asyncio.to_thread(serve, PORT=port, **PAGE)
    await expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live", timeout=30_000)
    await expect(page.get_by_test_id("total")).to_have_text("2", timeout=10_000)
    await expect(page.locator("tr[data-ticker=MSFT]")).to_be_visible()


async def test_a_full_server_is_shown_as_full_and_tried_again(serve: Serve, page: Page, browser: Browser) -> None:
    served = await asyncio.to_thread(serve, SSE_MAX_CONNECTIONS="1", **PAGE)
    first = await browser.new_page()
    await first.goto(served.url)
    await expect(first.get_by_test_id("connection")).to_have_attribute("data-state", "live")
    await page.goto(served.url)
    await expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "full")
    await first.close()


async def test_a_hostile_source_is_text(serve: Serve, table: Tables, page: Page) -> None:
    served = await asyncio.to_thread(serve, **PAGE)
    await page.goto(served.url)
    await expect(page.get_by_test_id("connection")).to_have_attribute("data-state", "live")
    await table.put("tiingo:1", "AAPL", sentiment="positive", sources=["<img src=x onerror=document.title=1>"])
    await expect(page.get_by_test_id("log")).to_contain_text("<img src=x")
    assert await page.locator("img").count() == 0


async def test_a_user_of_the_demo_sees_only_their_tickers(serve: Serve, table: Tables, page: Page) -> None:
    await table.configure("alice", "chips", "NVDA", name="Chips")
    served = await asyncio.to_thread(serve, SSE_TICKET_SECRET="s" * 32, SSE_DASHBOARD_USERS="alice/chips", **PAGE)
    await page.goto(served.url)
    await page.locator("#view-as-select").select_option(index=1)
    await table.put("tiingo:1", "NVDA", sentiment="positive")
    await expect(page.get_by_test_id("log")).to_contain_text("as alice")
