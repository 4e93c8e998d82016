"""What others make of the compressed streams: byte for byte what a reader without compression gets."""

import asyncio
import gzip
import random
import select
import shutil
import socket
import time
import zlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass, field

import aiohttp
import httpx
import pytest
from playwright.async_api import Page, async_playwright

from quartsse.hub.events import Event, SentimentUpdate, event
from quartsse.hub.hub import Hub
from quartsse.hub.ids import digest
from quartsse.web.handover import UvloopWithDoors
from tests.dynamodb import Tables
from tests.end_to_end.test_page import CHROMIUM, QUIET
from tests.served import Served
from tests.web.serving import Service, item, request, serving

EVENTS = 10_000
SETTINGS = {
    "SSE_HEARTBEAT_INTERVAL": "80000",
    "SSE_KEEPALIVE_INTERVAL": "80000",
    "SSE_MAX_CONNECTIONS": "500",
    "SSE_BACKLOG_BYTES": "100000000",
}
NODE = """
const answer = await fetch(process.argv[1], { headers: { accept: "text/event-stream" } });
if (answer.headers.get("content-encoding") !== "gzip") throw new Error("not compressed");
for await (const chunk of answer.body) process.stdout.write(chunk);
"""
IN_CHROMIUM = """
url => {
  window.frames_ = [];
  const source = new EventSource(url);
  for (const name of ["heartbeat", "metrics", "sentiment_update", "stream_end"])
    source.addEventListener(name, (e) => {
      window.frames_.push(`id: ${e.lastEventId}\\nevent: ${name}\\ndata: ${e.data}\\n\\n`);
      if (name === "stream_end") source.close();
    });
}
"""


@dataclass(eq=False)
class Reader:
    """Somebody who reads, as what they have read so far."""

    kind: str
    read: bytearray = field(default_factory=bytearray)
    task: asyncio.Task[None] | None = None
    left: bool = False

    @property
    def live(self) -> bytes:
        """What came behind the opening, which ends with the first totals, and before the end."""
        _, _, rest = bytes(self.read).partition(b"event: metrics\n")
        behind = rest.partition(b"\n\n")[2]
        end = behind.rfind(b"event: stream_end\n")
        return behind if end < 0 else behind[: behind.rfind(b"\n\n", 0, end) + 2] if b"\n\n" in behind[:end] else b""


async def plainly(reader: Reader, port: int) -> None:
    reply = await request(port, "/api/v2/stream?tickers=*")
    assert "content-encoding" not in reply.headers
    with closing(reply):
        async for chunk in reply.chunks():
            reader.read += chunk


async def by_python(reader: Reader, port: int) -> None:
    """gzip.decompress checks the CRC and the length at the end."""
    reply = await request(port, "/api/v2/stream?tickers=*", headers={"Accept-Encoding": "gzip"})
    body = b""
    with closing(reply):
        async for chunk in reply.chunks():
            body += chunk
    reader.read += gzip.decompress(body)


async def by_httpx(reader: Reader, port: int) -> None:
    async with (
        httpx.AsyncClient(timeout=None) as client,
        client.stream("GET", f"http://127.0.0.1:{port}/api/v2/stream?tickers=*") as answer,
    ):
        assert answer.headers["content-encoding"] == "gzip"
        async for data in answer.aiter_bytes():
            reader.read += data


async def by_aiohttp(reader: Reader, port: int) -> None:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
        session.get(f"http://127.0.0.1:{port}/api/v2/stream?tickers=*") as answer,
    ):
        assert answer.headers["content-encoding"] == "gzip"
        async for data in answer.content.iter_any():
            reader.read += data


async def by_program(reader: Reader, *command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        while data := await process.stdout.read(65_536):
            reader.read += data
        assert await process.wait() == 0
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def by_curl(reader: Reader, port: int) -> None:
    await by_program(reader, "curl", "-sSN", "--compressed", f"http://127.0.0.1:{port}/api/v2/stream?tickers=*")


async def by_node(reader: Reader, port: int) -> None:
    url = f"http://127.0.0.1:{port}/api/v2/stream?tickers=*"
    await by_program(reader, "node", "--input-type=module", "-e", NODE, url)


KINDS: dict[str, Callable[[Reader, int], Awaitable[None]]] = {
    "python": by_python,
    "httpx": by_httpx,
    "aiohttp": by_aiohttp,
    "curl": by_curl,
    "node": by_node,
}


def join(kind: str, port: int) -> Reader:
    reader = Reader(kind)

    async def work() -> None:
        await KINDS.get(kind, plainly)(reader, port)

    reader.task = asyncio.create_task(work())
    return reader


def ticks(chance: random.Random) -> list[list[Event]]:
    """Ten thousand updates of the real shape, in ticks of one to sixty."""
    found: list[list[Event]] = []
    left = EVENTS
    while left:
        count = min(left, chance.choice((1, 2, 5, 20, 60)))
        left -= count
        found.append([update(chance, left + number) for number in range(count)])
    return found


def update(chance: random.Random, number: int) -> Event:
    ticker, score = f"T{chance.randrange(60)}", round(chance.random(), 2)
    payload = SentimentUpdate(
        ticker=ticker,
        score=score,
        label="positive",
        confidence=score,
        source=chance.choice(("tiingo", "finnhub", "é✓\U0001f600")),
        timestamp="2026-11-25T10:30:00.000Z",
        count=chance.randrange(500),
        mean_score=round(chance.random(), 6),
    )
    return event("sentiment_update", f"{digest(str(number), 8)}-{digest(str(score), 5)}", payload, ticker)


async def publish(hub: Hub, tick: list[Event]) -> None:
    hub.publish(tick)
    await asyncio.sleep(0.002)


async def in_chromium(page: Page, port: int) -> None:
    await page.goto(f"http://127.0.0.1:{port}/health")
    await page.evaluate(IN_CHROMIUM, f"http://127.0.0.1:{port}/api/v2/stream?tickers=*")


async def everybody_reads(service: Service, page: Page) -> tuple[bytes, list[Reader]]:
    """Publish everything while readers come and go; what the plain one got, and the others."""
    chance = random.Random(11)
    plain = join("plain", service.port)
    await in_chromium(page, service.port)
    readers = [join(kind, service.port) for kind in KINDS]
    await until(lambda: all(b"event: metrics" in one.read for one in [plain, *readers] if one.kind != "python"))
    for number, tick in enumerate(ticks(chance)):
        await publish(service.parts.hub, tick)
        if number % 20 == 7:
            readers.append(join(chance.choice(list(KINDS)), service.port))
        if number % 30 == 19:
            leave(chance.choice(readers[len(KINDS) :]))  # those of the beginning stay
    last = tick[-1].identity.encode()
    await until(lambda: last in plain.read)
    here = 2 + sum(not one.left for one in readers)  # with the plain one and the browser
    await until(lambda: len(service.parts.streams.open) == here)  # a program takes its time to start
    service.parts.streams.end_all("draining")
    together = [one.task for one in (plain, *readers) if one.task is not None]
    async with asyncio.timeout(20):
        await asyncio.gather(*together, return_exceptions=True)
    assert not [one.task.exception() for one in readers if one.task and not one.left and one.task.exception()]
    shown = await page.evaluate("() => window.frames_.join('')")
    readers.append(Reader("chromium", bytearray(shown.encode())))
    return plain.live, readers


def leave(reader: Reader) -> None:
    if reader.task is not None:
        reader.left = True
        reader.task.cancel()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.02)


@pytest.mark.skipif(
    not (CHROMIUM.exists() and shutil.which("curl") and shutil.which("node")), reason="needs Chromium, curl and node"
)
def test_every_decoder_reads_what_a_plain_reader_got_whenever_it_joined() -> None:
    async def run() -> tuple[bytes, list[Reader]]:
        async with AsyncExitStack() as stack:
            playwright = await stack.enter_async_context(async_playwright())
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
            stack.push_async_callback(browser.close)
            news = item("tiingo:1", "T1", at=time.time() - 60)
            service = await stack.enter_async_context(serving(news, **SETTINGS))  # type: ignore[arg-type]
            return await everybody_reads(service, await browser.new_page())

    with asyncio.Runner(loop_factory=UvloopWithDoors) as runner:
        expected, readers = runner.run(run())
    assert expected.count(b"event: sentiment_update") == EVENTS
    stayed = [reader for reader in readers if not reader.left]
    for reader in stayed:
        assert expected.endswith(reader.live), reader.kind
    for reader in readers:
        assert reader.live in expected, reader.kind
    assert {reader.kind for reader in stayed} == {*KINDS, "chromium"}
    all_of_it = {reader.kind for reader in stayed if reader.live.count(b"event: sentiment_update") == EVENTS}
    assert all_of_it >= {*KINDS, "chromium"} - {"python"}


MANY = 10_000
OPENING_AT_ONCE = 100
ASKS = b"GET /api/v2/stream?tickers=* HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n"


class Crowd:
    """Many sockets that read, each as much as comes."""

    def __init__(self, port: int) -> None:
        self.received: dict[int, bytearray] = {}
        self._port = port
        self._sockets: dict[int, socket.socket] = {}
        self._numbers: dict[int, int] = {}
        self._epoll = select.epoll()

    @property
    def open(self) -> int:
        """How many have not been ended."""
        return len(self._sockets)

    def join(self, count: int) -> None:
        """So many more ask for a stream; returns when each has its head."""
        before = len(self.received)
        for number in range(before, before + count):
            sock = socket.create_connection(("127.0.0.1", self._port), source_address=(f"127.0.0.{2 + number % 4}", 0))
            sock.sendall(ASKS)
            sock.setblocking(False)
            self._sockets[sock.fileno()] = sock
            self.received[number] = bytearray()
            self._numbers[sock.fileno()] = number
            self._epoll.register(sock, select.EPOLLIN)
        self.read(lambda: all(b"\r\n\r\n" in self.received[number] for number in range(before, before + count)))

    def read(self, enough: Callable[[], bool]) -> None:
        """Read until something is true, half a minute at most."""
        until = time.monotonic() + 30
        while not enough():
            assert time.monotonic() < until
            for fd, _ in self._epoll.poll(0.1):
                if data := self._sockets[fd].recv(1 << 18):
                    self.received[self._numbers[fd]] += data
                else:
                    self._epoll.unregister(fd)
                    self._sockets.pop(fd).close()


def body_of(answer: bytes) -> bytes:
    """What a chunked answer holds, without its last chunk if that has come."""
    _, _, rest = answer.partition(b"\r\n\r\n")
    body = b""
    while (size := int(rest.partition(b"\r\n")[0] or b"0", 16)) > 0:
        start = rest.index(b"\r\n") + 2
        body += rest[start : start + size]
        rest = rest[start + size + 2 :]
    return body


@pytest.mark.slow
def test_ten_thousand_that_are_ended_at_once_each_get_a_true_trailer_in_time(
    serve: Callable[..., Served], table: Tables
) -> None:
    asyncio.run(table.put("tiingo:1", "AAPL", sentiment="positive"))
    served = serve(SSE_MAX_CONNECTIONS=str(MANY + 10), SSE_POLL_INTERVAL="1")
    crowd = Crowd(served.port)
    while len(crowd.received) < MANY:
        crowd.join(OPENING_AT_ONCE)
    asyncio.run(table.put("tiingo:2", "AAPL", sentiment="negative"))
    time.sleep(3)  # the news is on its way, or told
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(served.terminate)
        crowd.read(lambda: not crowd.open)
        status, seconds = ending.result()
    true = 0
    for answer in crowd.received.values():
        decoder = zlib.decompressobj(31)
        decoder.decompress(body_of(bytes(answer)))  # raises an error for a sum that is wrong
        true += decoder.eof
    assert (status, true) == (0, MANY), seconds
    assert seconds < 1, seconds
