"""A server that finds out what a client can do: it answers by a plan, and notes what it is asked."""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

from tests.end_to_end.foreign import Client, reading

RETRY = 1.0
RETRY_AFTER = 1
PATIENCE = 5.0
"""Seconds after which a client that has not come back will not."""
START_SECONDS = 30.0
REFUSING = 1.0
"""Seconds in which nobody listens."""
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
EVENT = b"retry: %d\n\nid: evt_1\nevent: heartbeat\ndata: {}\n\n" % (RETRY * 1000)
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: %d\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    % RETRY_AFTER
)
LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Marks:
    """What a client can do by itself, without a loop around it."""

    headers: bool
    """It sends a header of one's own."""
    asks_for_gzip: bool
    """It asks for gzip, which is then what it gets."""
    reads_at_once: bool = False
    """It gives an event as it arrives, while the stream is open."""
    comes_back: bool = False
    """It comes back when a stream has ended."""
    last_event_id: bool = False
    """It says then where it was."""
    waits: float = 0.0
    """How long it waits, as a multiple of `retry`."""
    survives_refusal: bool = False
    """It goes on trying while nobody listens."""
    obeys_503: bool = False
    """It comes back after a 503, and not before `Retry-After`."""


@dataclass(slots=True)
class Asked:
    """A request, and how to answer it."""

    at: float
    headers: dict[str, str]
    writer: asyncio.StreamWriter

    async def say(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))
        await self.writer.drain()


class Examiner:
    """Takes requests one by one, as the examination asks for them."""

    def __init__(self) -> None:
        self._requests: asyncio.Queue[Asked] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def listen(self) -> None:
        """Take connections, on the same port as before."""
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Take none."""
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """Take none any more, and leave no connection behind."""
        self.refuse()
        for writer in self._writers:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def request(self) -> Asked | None:
        """The next request for the stream; None if there is none."""
        try:
            return await asyncio.wait_for(self._requests.get(), PATIENCE)
        except TimeoutError:
            return None

    async def first_request(self) -> Asked:
        """The first one: a browser takes its time to start on a busy machine."""
        return await asyncio.wait_for(self._requests.get(), START_SECONDS)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        asked = Asked(time.monotonic(), dict(_field(line) for line in head[1:] if line), writer)
        if head[0].startswith("GET /stream "):
            self._requests.put_nowait(asked)
        else:  # the page that a browser stands on
            await asked.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()


@asynccontextmanager
async def examiner() -> AsyncIterator[Examiner]:
    """One that listens."""
    made = Examiner()
    await made.listen()
    try:
        yield made
    finally:
        await made.close()


async def examine(client: Client) -> Marks:
    """Find out what a client can do."""
    async with examiner() as stream, examiner() as full:
        obeys, marks = await asyncio.gather(_full(client, full), _stream(client, stream))
        return replace(marks, obeys_503=obeys)


async def _full(client: Client, server: Examiner) -> bool:
    """Say that there is no room; whether the client comes back, and not too soon."""
    async with reading(client, f"http://127.0.0.1:{server.port}/stream", "once"):
        first = await server.first_request()
        await first.say(FULL)
        first.writer.close()
        second = await server.request()
        if second is None:
            return False
        second.writer.close()
        return second.at - first.at >= RETRY_AFTER


async def _stream(client: Client, server: Examiner) -> Marks:
    """Three streams with an event each; before the third nobody listens for a while."""
    async with reading(client, f"http://127.0.0.1:{server.port}/stream", "once", user="examined") as reader:
        first = await server.first_request()
        marks = Marks(
            headers=first.headers.get("x-user-id") == "examined",
            asks_for_gzip="gzip" in first.headers.get("accept-encoding", ""),
        )
        squeeze = zlib.compressobj(wbits=31) if marks.asks_for_gzip else Plain()
        await first.say(STREAM, b"Content-Encoding: gzip\r\n\r\n" if marks.asks_for_gzip else b"\r\n")
        await first.say(_chunk(squeeze.compress(EVENT) + squeeze.flush(zlib.Z_SYNC_FLUSH)))
        marks = replace(marks, reads_at_once=await reader.until(lambda: bool(reader.events), PATIENCE))
        await first.say(_chunk(squeeze.flush()), LAST_CHUNK)
        first.writer.close()
        ended = time.monotonic()

        second = await server.request()
        if second is None:
            return marks
        server.refuse()
        await second.say(STREAM, b"\r\n", _chunk(EVENT), LAST_CHUNK)
        second.writer.close()
        await asyncio.sleep(RETRY * 2 + REFUSING)
        await server.listen()
        return replace(
            marks,
            comes_back=True,
            last_event_id=second.headers.get("last-event-id") == "evt_1",
            waits=(second.at - ended) / RETRY,
            survives_refusal=await server.request() is not None,
        )


class Plain:
    """A compressor that does not."""

    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self, mode: int = zlib.Z_FINISH) -> bytes:
        return b""


def _chunk(data: bytes) -> bytes:
    if not data:
        return b""  # an empty chunk would be the last
    return b"%x\r\n%s\r\n" % (len(data), data)


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.lower(), value.strip()
