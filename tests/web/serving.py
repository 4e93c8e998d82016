"""The app on a real Hypercorn in this process, over a source in memory; and a client that sees every byte."""

import asyncio
import functools
import inspect
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from quartsse.errors import SourceError
from quartsse.feed.configurations import Configurations, Key, Saved, Store
from quartsse.feed.items import Item, key_of, moment
from quartsse.feed.source import Batch, MemorySource
from quartsse.hub.clock import iso
from quartsse.hub.events import Label
from quartsse.service import make_openings, make_parts, make_private
from quartsse.settings import settings_from
from quartsse.web.app import create_app
from quartsse.web.configurations import Private
from quartsse.web.handover import AsyncioWithDoors, UvloopWithDoors
from quartsse.web.parts import Parts
from quartsse.web.server import listening_socket, run_server

LOOPS = [UvloopWithDoors, AsyncioWithDoors]
QUICK = {"SENTIMENTS_TABLE": "news", "SSE_POLL_INTERVAL": "0.05", "SSE_AUTH": "header"}


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test once on each loop."""

    @functools.wraps(test)
    def run(loop: type[UvloopWithDoors], **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(test(**fixtures))

    signature = inspect.signature(test)
    loop = inspect.Parameter("loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), loop])  # type: ignore[attr-defined]
    del run.__wrapped__
    parametrized: Callable[..., None] = pytest.mark.parametrize("loop", LOOPS, ids=["uvloop", "asyncio"])(run)
    return parametrized


def item(source_id: str, *tickers: str, at: float, sentiment: Label = "positive", score: float = 0.8) -> Item:
    """An item as the feed sees it."""
    stamp = iso(at)
    signed = {"positive": score, "neutral": 0.0, "negative": -score}[sentiment]
    return Item(
        key_of(source_id, stamp), moment(stamp), sentiment, signed, score, tickers, source_id.split(":", maxsplit=1)[0]
    )


@dataclass
class MemoryStore:
    """Configurations in memory, that count how often they are read, and cannot be while `broken`."""

    saved: dict[Key, Saved] = field(default_factory=dict)
    reads: int = 0
    broken: bool = False

    async def get(self, key: Key) -> Saved | None:
        self.reads += 1
        if self.broken:
            raise SourceError("the store is broken")
        return self.saved.get(key)

    async def get_all(self, keys: Sequence[Key]) -> dict[Key, Saved]:
        self.reads += 1
        if self.broken:
            raise SourceError("the store is broken")
        return {key: self.saved[key] for key in keys if key in self.saved}


class HangingSource(MemorySource):
    """A source that never answers."""

    async def read(self, low: float, *, whole: bool) -> AsyncGenerator[Batch]:
        await asyncio.Event().wait()
        yield Batch()


@dataclass
class Service:
    """A running service: its address, its parts, and what it reads."""

    port: int
    parts: Parts
    source: MemorySource
    store: MemoryStore
    stop: asyncio.Event
    replies: list["Reply"] = field(default_factory=list)

    async def get(self, path: str, *, method: str = "GET", **headers: str) -> "Reply":
        """Send a request, and read the head of its answer. `X_User_ID="a"` becomes `X-User-ID: a`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.replies.append(await request(self.port, path, method=method, headers=named))
        return self.replies[-1]


@dataclass
class Reply:
    """An answer whose body is still being read."""

    status: int
    headers: dict[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    _rest: bytes = b""

    async def body(self) -> bytes:
        """The whole body."""
        if "content-length" in self.headers:
            return await asyncio.wait_for(self.reader.readexactly(int(self.headers["content-length"])), 5)
        async with asyncio.timeout(10):
            return b"".join([chunk async for chunk in self.chunks()])

    async def json(self) -> Any:
        """The whole body, read as JSON."""
        return json.loads(await self.body())

    async def chunks(self) -> AsyncIterator[bytes]:
        """The chunks of the body, until its proper end. Raises IncompleteReadError when it is cut off."""
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
            if size == 0:
                return
            yield data[:-2]

    async def events(self, count: int, seconds: float = 5) -> list[dict[str, str]]:
        """The next events, as their fields."""
        found: list[dict[str, str]] = []
        async with asyncio.timeout(seconds):
            while len(found) < count:
                found.append(await self._event())
        return found

    async def until(self, name: str, seconds: float = 5) -> list[dict[str, str]]:
        """The events up to the next one of a name."""
        found: list[dict[str, str]] = []
        async with asyncio.timeout(seconds):
            while not found or found[-1]["event"] != name:
                found.append(await self._event())
        return found

    async def _event(self) -> dict[str, str]:
        while True:
            block, separator, rest = self._rest.partition(b"\n\n")
            if not separator:
                size = int(await self.reader.readuntil(b"\r\n"), 16)
                if size == 0:
                    raise EOFError("the stream has ended")
                self._rest += (await self.reader.readexactly(size + 2))[:-2]
                continue
            self._rest = rest
            fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if ": " in line)
            if "event" in fields:
                return fields

    def close(self) -> None:
        """Leave."""
        self.writer.close()


_opened: list[Reply] = []


def leave_all() -> None:
    """Close every connection that `request` has opened."""
    while _opened:
        _opened.pop().close()


async def request(port: int, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> Reply:
    """Send one request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    lines = [f"{method} {path} HTTP/1.1", f"Host: localhost:{port}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode("latin-1").split("\r\n")
    fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
    reply = Reply(int(head[0].split(" ")[1]), fields, reader, writer)
    _opened.append(reply)
    return reply


@asynccontextmanager
async def serving(
    *items: Item,
    saved: Mapping[Key, Saved] | None = None,
    kept: Store | None = None,
    hanging: bool = False,
    **settings: str,
) -> AsyncIterator[Service]:
    """A service that is gone at the end, with every stream ended properly.

    `saved` are its configurations, or else they are `kept` elsewhere; `hanging`: its source never answers.
    """
    source, store, stop = (
        (HangingSource if hanging else MemorySource)(items),
        MemoryStore(dict(saved or {})),
        asyncio.Event(),
    )
    chosen = settings_from({**QUICK, **settings})
    parts = make_parts(chosen, lambda _: source)
    private = make_private(chosen, parts)
    if saved is not None or kept is not None:
        configurations = Configurations(kept or store, chosen.config_interval)
        private = Private(private.authenticator, private.tickets, configurations)
    sock = listening_socket("127.0.0.1", 0)
    port = sock.getsockname()[1]
    app = create_app(make_openings(chosen, parts), private)
    async with asyncio.TaskGroup() as group:
        work = [group.create_task(parts.poller.run()), group.create_task(parts.pulse.run())]
        if private.configurations is not None:
            work.append(group.create_task(private.configurations.run()))
        server = group.create_task(run_server(app, sock, stop.wait(), parts.streams.close))
        service = Service(port, parts, source, store, stop)
        try:
            yield service
        finally:
            stop.set()
            await server
            for reply in service.replies:
                reply.close()
            for task in work:
                task.cancel()
