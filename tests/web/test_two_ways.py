"""The hand-over and the ordinary way out give clients the same: one random play through both, bodies compared."""

import asyncio
import contextlib
import random
import re
import socket
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from quartsse.feed.source import Batch, MemorySource
from quartsse.hub.clock import Clock
from quartsse.hub.events import Event
from quartsse.hub.filters import Filter
from quartsse.service import make_parts, make_private
from quartsse.settings import settings_from
from quartsse.web.app import create_app
from quartsse.web.handover import AsyncioWithDoors, UvloopWithDoors
from quartsse.web.openings import Openings
from quartsse.web.server import listening_socket, run_server
from quartsse.web.stream import Stream, View
from tests.web.serving import QUICK, item

START = 1_764_671_400.0
STEPS = 40
FLOOD = 120
TICKERS = ("AAPL", "MSFT", "TSLA")
QUERIES = ("tickers=*", "tickers=AAPL", "tickers=AAPL,MSFT", "")
SETTINGS = {
    **QUICK,
    "SSE_BACKLOG_BYTES": "20000",
    "SSE_HEARTBEAT_INTERVAL": "80000",
    "SSE_KEEPALIVE_INTERVAL": "80000",
    "SSE_METRICS_INTERVAL": "80000",
    "SSE_MAX_CONNECTIONS": "500",
}


class Hands:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = START

    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: self.now)


class TurnedSource(MemorySource):
    """A source that is read once for every turn."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self._turn = asyncio.Semaphore(1)
        self._waiting = asyncio.Event()

    async def read(self, low: float, *, whole: bool) -> AsyncIterator[Batch]:
        self._waiting.set()
        await self._turn.acquire()
        self._waiting.clear()
        async for batch in super().read(low, whole=whole):
            yield batch

    async def turn(self) -> None:
        """Let it be read once, and wait until that is over."""
        await self._waiting.wait()
        self._waiting.clear()
        self._turn.release()
        await self._waiting.wait()


class Body:
    """The body of a response as its bytes come; zlib checks the trailer of a gzip one."""

    def __init__(self) -> None:
        self.read = b""
        """What can be read of it so far."""
        self.whole = False
        """Whether it has ended as it should."""
        self._raw = b""
        self._decoder: Any = None
        self._in_head = True

    def feed(self, data: bytes) -> None:
        self._raw += data
        if self._in_head and b"\r\n\r\n" in self._raw:
            head, _, self._raw = self._raw.partition(b"\r\n\r\n")
            assert b"chunked" in head.lower()
            self._in_head = False
            if b"content-encoding: gzip" in head.lower():
                self._decoder = zlib.decompressobj(31)
        while not self._in_head and (chunk := self._chunk()) is not None:
            self.read += chunk if self._decoder is None else self._decoder.decompress(chunk)
            self.whole = not chunk
            assert not self.whole or self._decoder is None or self._decoder.eof

    def _chunk(self) -> bytes | None:
        size, found, rest = self._raw.partition(b"\r\n")
        if not found or len(rest) < int(size, 16) + 2:
            return None
        self._raw = rest[int(size, 16) + 2 :]
        return rest[: int(size, 16)]


@dataclass
class Viewer:
    """Someone who watches, comes back, and may stop reading for a while."""

    query: str
    gzip: bool
    bodies: list[bytes] = field(default_factory=list)
    stream: Stream | None = None
    slow: bool = False
    shown: bool = False
    """Whether its filter is another one than it asked for."""
    sock: socket.socket | None = None
    received: Body = field(default_factory=Body)
    reading: asyncio.Task[None] | None = None
    may_read: asyncio.Event = field(default_factory=asyncio.Event)

    async def come(self, port: int) -> None:
        """Open a stream, from the last id if there is one, and read its opening."""
        last = re.findall(rb"(?m)^id: (\S+)$", b"".join(self.bodies))
        self.sock, self.received, self.shown = socket.socket(), Body(), False
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(self.sock, ("127.0.0.1", port))
        ask = f"GET /api/v2/stream?{self.query} HTTP/1.1\r\nHost: localhost\r\n"
        ask += f"Last-Event-ID: {last[-1].decode()}\r\n" if last else ""
        ask += "Accept-Encoding: gzip\r\n" if self.gzip else ""
        await asyncio.get_running_loop().sock_sendall(self.sock, ask.encode() + b"\r\n")
        self.may_read.set()
        self.reading = asyncio.create_task(self._read(self.sock))
        await self.has(b"event: metrics\n")

    async def has(self, wanted: bytes) -> None:
        async with asyncio.timeout(5):
            while wanted not in self.received.read:
                await asyncio.sleep(0)

    async def end(self) -> None:
        """Read to the end of the stream."""
        assert self.reading is not None
        self.may_read.set()
        await asyncio.wait_for(self.reading, 5)
        self._keep()

    async def leave(self) -> None:
        """Close the connection."""
        assert self.reading is not None
        self.reading.cancel()
        await asyncio.gather(self.reading, return_exceptions=True)
        self._keep()

    def _keep(self) -> None:
        assert self.sock is not None
        self.sock.close()
        self.bodies.append(self.received.read if self.received.whole else self.received.read + b"<cut>")
        self.stream = self.sock = None

    async def _read(self, sock: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await self.may_read.wait()
                data = await asyncio.get_running_loop().sock_recv(sock, 1 << 16)
                if not data:
                    return
                self.received.feed(data)


class Play:
    """One random play."""

    def __init__(self, seed: int, port: int, parts: Any, source: TurnedSource, hands: Hands) -> None:
        self.chance = random.Random(seed)
        self.viewers: list[Viewer] = []
        self._port = port
        self._parts = parts
        self._source = source
        self._hands = hands
        self._items = 0
        self._floods = 0

    @property
    def here(self) -> list[Viewer]:
        return [viewer for viewer in self.viewers if viewer.stream is not None]

    async def run(self) -> None:
        acts = [self.join, self.join, self.return_, self.tick, self.tick, self.leave, self.end, self.show, self.stall]
        for _ in range(3):
            await self.join()
        for _ in range(STEPS):
            self._hands.now += self.chance.choice((0.001, 0.1, 1.0))
            await self._source.turn()
            await self.chance.choice(acts)()
            await self.settle()

    async def settle(self) -> None:
        """Wait until everyone who reads has all that was sent."""
        beat = self._parts.pulse.heartbeat()
        self._parts.hub.broadcast(beat)
        for viewer in self.here:
            if viewer.may_read.is_set():
                await viewer.has(b"id: evt_%b." % beat.identity.encode())

    async def join(self) -> None:
        self.viewers.append(Viewer(self.chance.choice(QUERIES), gzip=self.chance.random() < 0.5))
        await self._come(self.viewers[-1])

    async def return_(self) -> None:
        away = [viewer for viewer in self.viewers if viewer.stream is None]
        if away:
            await self._come(self.chance.choice(away))

    async def _come(self, viewer: Viewer) -> None:
        before = set(self._parts.streams.open)
        await viewer.come(self._port)
        (viewer.stream,) = self._parts.streams.open - before

    async def tick(self) -> None:
        for _ in range(self.chance.randint(1, 3)):
            self._items += self.chance.choice((0, 1))
            tickers = self.chance.sample(TICKERS, self.chance.randint(1, 3))
            score = self.chance.random()
            self._source.put(item(f"a:{self._items}", *tickers, at=START - self._items, score=score))
        await self._source.turn()

    async def leave(self) -> None:
        if self.here:
            viewer = self.chance.choice(self.here)
            stream = viewer.stream
            await viewer.leave()
            await self._gone(stream)

    async def end(self) -> None:
        if self.here:
            viewer = self.chance.choice(self.here)
            stream = viewer.stream
            assert stream is not None
            stream.end("max_age", self._parts.streams.one_retry())
            await viewer.end()
            await self._gone(stream)

    async def show(self) -> None:
        if self.here:
            viewer = self.chance.choice(self.here)
            assert viewer.stream is not None
            wanted = frozenset(self.chance.sample(TICKERS, self.chance.randint(0, 3)))
            viewer.shown = True
            viewer.stream.show(View(Filter(wanted), self._parts.poller.totals))

    async def stall(self) -> None:
        """One of them stops reading while much is sent, is ended for it, and comes back."""
        everything = [viewer for viewer in self.here if viewer.query == "tickers=*" and not viewer.shown]
        if not everything or self._floods == 2:
            return
        self._floods += 1
        viewer = self.chance.choice(everything)
        stream = viewer.stream
        viewer.slow = True
        viewer.may_read.clear()
        for number in range(FLOOD):
            identity = f"f{self._floods}x{number}"
            self._parts.hub.publish(
                [Event("sentiment_update", identity, self.chance.randbytes(4_000).hex().encode(), "FLOOD")]
            )
            await self.settle()
        await viewer.end()
        await self._gone(stream)
        await self._come(viewer)

    async def _gone(self, stream: Stream | None) -> None:
        async with asyncio.timeout(5):
            while stream in self._parts.streams.open:
                await asyncio.sleep(0)


async def played(seed: int, handover: str, monkeypatch: pytest.MonkeyPatch) -> list[Viewer]:
    """A play from its first viewer to the end of the service."""
    hands = Hands()
    monkeypatch.setattr("quartsse.service.Clock", hands.clock)
    monkeypatch.setattr("quartsse.hub.hub.new_instance", lambda: "instance")
    source, stop = TurnedSource(hands.clock()), asyncio.Event()
    settings = settings_from({**SETTINGS, "SSE_HANDOVER": handover})
    parts = make_parts(settings, lambda _: source)
    parts.streams._chance = random.Random(seed)
    app = create_app(Openings(parts), make_private(settings, parts))
    sock = listening_socket("127.0.0.1", 0)
    play = Play(seed, sock.getsockname()[1], parts, source, hands)
    async with asyncio.TaskGroup() as group:
        work = [group.create_task(parts.poller.run())]
        server = group.create_task(run_server(app, sock, stop.wait(), parts.streams.close))
        try:
            await play.run()
            handed_over = sum(stream.handed_over for stream in parts.streams.open)
            assert handed_over == (len(parts.streams.open) if handover == "1" else 0)
        finally:
            stop.set()
            for viewer in play.here:
                await viewer.end()
            await server
            for task in work:
                task.cancel()
    return play.viewers


def normal(body: bytes) -> bytes:
    """Without what the time of a slow reader's end decides: running numbers, and how many are connected.

    Which of those who end together has which retry is chance; that they have some is not.
    """
    body = re.sub(rb"id: evt_[a-z]\d+\.", b"id: evt_.", body)
    body = re.sub(rb'"connections":\d+', b'"connections":n', body)
    return re.sub(rb'(retry: |"retry_ms":)\d+', rb"\1n", body)


def updates(bodies: list[bytes]) -> list[bytes]:
    """The identities of all updates, in order."""
    return re.findall(rb"id: evt_([^.\s]+)\.\S+\nevent: sentiment_update\n", b"".join(bodies))


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@pytest.mark.parametrize("loop", [UvloopWithDoors, AsyncioWithDoors], ids=["uvloop", "asyncio"])
def test_clients_receive_the_same_both_ways(
    loop: type[UvloopWithDoors], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plays = []
    for handover in ("1", "0"):
        with asyncio.Runner(loop_factory=loop) as runner:
            plays.append(runner.run(played(seed, handover, monkeypatch)))
    fast, ordinary = plays
    assert len(fast) == len(ordinary) > 5
    for one, other in zip(fast, ordinary, strict=True):
        assert updates(one.bodies) == updates(other.bodies)
        if not one.slow:
            assert [normal(body) for body in one.bodies] == [normal(body) for body in other.bodies]
    assert any(b"event: resume" in body for viewer in fast for body in viewer.bodies)
    assert any(b'"reason":"draining"' in body for viewer in fast for body in viewer.bodies)
