"""The code that the docs print is run, as it is printed but for the ports."""

import asyncio
import http.server
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from playwright.async_api import Browser, Route, async_playwright, expect

from quartsse.tools import emulator
from tests.docs.blocks import ROOT, RUNNABLE, Block, blocks, marked
from tests.dynamodb import Tables
from tests.end_to_end.foreign import CHROMIUM
from tests.processes import clean_environment, eventually, free_port
from tests.served import Served, is_healthy

type Serve = Callable[..., Served]

ELSEWHERE = {
    "nginx": "tests/end_to_end/targets.py",
    "haproxy": "tests/end_to_end/targets.py",
    "plan": "tests/infra/test_docs.py",
}
"""How a block is run that is run by other tests, and where they read it."""
HERE = {"reads", "page", "react", "newcomer table", "newcomer serve", "newcomer page", "newcomer item"}
SECONDS = 15.0

needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed: apt-get install chromium")


@pytest.mark.parametrize("block", [block for block in blocks() if block.language in RUNNABLE], ids=str)
def test_every_block_that_could_run_says_how_or_why_not(block: Block) -> None:
    kind, _, how = block.mark.partition(": ")
    assert kind in {"tested", "not run"}
    assert how
    if kind == "tested" and how not in HERE:
        assert f"tested: {how}" in (ROOT / ELSEWHERE[how]).read_text().replace("{language}", how)


@pytest.fixture
def own_environment(table: Tables) -> dict[str, str]:
    """The variables of someone who has the installed commands at hand."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**clean_environment(), **table.environment(), "PATH": path}


@contextmanager
def running(block: Block, text: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A block's own process, which is gone at the end."""
    command = {"sh": ["sh", "-c", text], "python": [sys.executable, "-c", text]}[block.language]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("block", marked("reads"), ids=str)
async def test_what_reads_reads(
    block: Block, serve: Serve, table: Tables, own_environment: dict[str, str], tmp_path: Path
) -> None:
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    await table.configure("alice", "chips", "AAPL")
    served = await asyncio.to_thread(serve, SSE_POLL_INTERVAL="0.3")
    assert "localhost:8080" in block.text
    text, log = block.text.replace("localhost:8080", f"localhost:{served.port}"), tmp_path / "output"
    with running(block, text, own_environment, log):
        assert await asyncio.to_thread(eventually, lambda: "AAPL" in log.read_text().replace(text, ""), SECONDS), (
            log.read_text()
        )


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A headless Chromium."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        await chromium.close()


@needs_chromium
@pytest.mark.parametrize("block", marked("page"), ids=str)
async def test_what_belongs_in_a_page_reads_there(block: Block, serve: Serve, table: Tables, browser: Browser) -> None:
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    served = await asyncio.to_thread(serve, SSE_POLL_INTERVAL="0.3")
    body = block.text if block.language == "html" else f"<script>{block.text}</script>"
    page = await browser.new_page()
    await page.route("**/snippet", lambda route: route.fulfill(body=body, content_type="text/html"))
    async with page.expect_console_message(lambda message: "AAPL" in message.text, timeout=SECONDS * 1000):
        await page.goto(f"{served.url}/snippet")


REACT = [ROOT / "tests" / "node_modules" / name / "umd" / f"{name}.development.js" for name in ("react", "react-dom")]
APP = """
<!doctype html>
<script type="importmap">{ "imports": { "react": "/react.js" } }</script>
<script src="/react-umd.js"></script>
<script src="/react-dom-umd.js"></script>
<div id="root"></div>
<script type="module">
  import { useSentiment } from "/hook.js";

  const { createElement, StrictMode, useState } = React;

  function Tickers({ tickers }) {
    const { state, updates } = useSentiment(tickers);
    return createElement("p", { id: "seen" }, `${state} ${Object.keys(updates).sort().join(" ")}`);
  }

  function App() {
    const [tickers, setTickers] = useState(["AAPL"]);
    window.show = setTickers;
    return tickers.length ? createElement(Tickers, { tickers }) : createElement("p", { id: "seen" }, "nothing");
  }

  ReactDOM.createRoot(document.querySelector("#root")).render(createElement(StrictMode, null, createElement(App)));
</script>
"""


@needs_chromium
@pytest.mark.skipif(not all(path.exists() for path in REACT), reason="React is not installed: npm ci --prefix tests")
@pytest.mark.parametrize("block", marked("react"), ids=str)
async def test_the_hook_opens_one_stream_and_closes_it(
    block: Block, serve: Serve, table: Tables, browser: Browser
) -> None:
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    await table.put("tiingo:2", "MSFT", sentiment="negative")
    served = await asyncio.to_thread(serve, SSE_POLL_INTERVAL="0.3")
    files = {
        "app": (APP, "text/html"),
        "hook.js": (block.text, "text/javascript"),
        "react.js": ("export const { useEffect, useState } = window.React;", "text/javascript"),
        "react-umd.js": (REACT[0].read_text(), "text/javascript"),
        "react-dom-umd.js": (REACT[1].read_text(), "text/javascript"),
    }
    page = await browser.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    for name, (body, kind) in files.items():
        await page.route(f"**/{name}", partial(_fulfill, body=body, kind=kind))

    async def streams() -> int:
        answer = await page.request.get(f"{served.url}/api/v2/stream/status")
        return int((await answer.json())["connections"])

    await page.goto(f"{served.url}/app")
    seen = page.locator("#seen")
    await expect(seen).to_have_text("live AAPL")
    assert await streams() == 1, "what StrictMode mounted first has been closed"
    await page.evaluate("show(['AAPL', 'MSFT'])")
    await expect(seen).to_have_text("live AAPL MSFT")
    await page.evaluate("show([])")
    await expect(seen).to_have_text("nothing")
    async with asyncio.timeout(5):
        while await streams():
            await asyncio.sleep(0.05)
    assert errors == []


async def _fulfill(route: Route, *, body: str, kind: str) -> None:
    await route.fulfill(body=body, content_type=kind)


@contextmanager
def page_server(text: str, folder: Path, port: int) -> Iterator[None]:
    """What `python -m http.server` is: a folder with the page, on a port."""
    folder.mkdir()
    (folder / "index.html").write_text(text)
    handler = partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves without a word."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass


@needs_chromium
async def test_a_newcomer_gets_a_table_of_their_own_live_on_their_own_page(
    dynamodb: str, browser: Browser, tmp_path: Path
) -> None:
    steps = {name: marked(f"newcomer {name}") for name in ("table", "serve", "page", "item")}
    assert {name: len(found) for name, found in steps.items()} == dict.fromkeys(steps, 1)
    table, serve, page_block, item = (found[0] for found in steps.values())
    port, page_port = free_port(), free_port()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    account = {**clean_environment(), **emulator.environment(dynamodb), "PATH": path, "PORT": str(port)}
    del account["AWS_REGION"], account["AWS_DEFAULT_REGION"]  # the blocks name it

    def ported(text: str) -> str:
        return text.replace("localhost:8080", f"localhost:{port}").replace("localhost:5500", f"localhost:{page_port}")

    def run(block: Block, name: str) -> None:
        log = tmp_path / name
        with running(block, block.text, account, log) as process:
            assert process.wait(SECONDS) == 0, log.read_text()

    began = time.monotonic()
    await asyncio.to_thread(run, table, "table")
    log = tmp_path / "served"
    with (
        running(serve, ported(serve.text), account, log),
        page_server(ported(page_block.text), tmp_path / "page", page_port),
    ):
        assert await asyncio.to_thread(eventually, lambda: is_healthy(port), 20), log.read_text()
        page = await browser.new_page()
        await page.goto(f"http://localhost:{page_port}/")
        await expect(page.locator("p")).to_have_text(re.compile("^live *, the table is live$"), timeout=10_000)
        await asyncio.to_thread(run, item, "item")
        await expect(page.locator("#tickers")).to_have_text("AAPL: positive, 0.9", timeout=10_000)
    assert time.monotonic() - began < 60
