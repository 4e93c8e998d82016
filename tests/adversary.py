"""An event-stream server that misbehaves to order: each connection gets, byte for byte, what a script says."""

import asyncio
import gzip
import socket
import ssl
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Self


class Ending(Enum):
    """How a script leaves its client; without one the connection is closed."""

    RESET = auto()
    """The connection breaks: what the client has not read yet may be lost."""
    SILENCE = auto()
    """The connection stays, and nothing comes any more."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived."""

    line: str
    headers: dict[str, str]
    """Names in lower case."""

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]

    @property
    def last_event_id(self) -> str:
        return self.headers.get("last-event-id", "")


type Step = bytes | asyncio.Event | float | Ending
"""Send these bytes on their own; wait for this; wait so many seconds; leave like this."""
type Script = Sequence[Step] | Callable[[Seen], Sequence[Step]]


class Adversary:
    """Plays its scripts to one connection each, and the last one to all that follow."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Seen] = []
        self.left = asyncio.Event()
        """Set when a client has gone away from a silence."""
        self._scripts = list(scripts)
        self._tls = tls
        self._url = ""

    @property
    def url(self) -> str:
        return self._url

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._play, "127.0.0.1", 0, ssl=self._tls, backlog=1024)
        port = self._server.sockets[0].getsockname()[1]
        self._url = f"https://localhost:{port}/stream" if self._tls else f"http://127.0.0.1:{port}/stream"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._server.abort_clients()
        await self._server.wait_closed()

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            seen = _read_request(await reader.readuntil(b"\r\n\r\n"))
            self.requests.append(seen)
            script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
            for step in script if isinstance(script, Sequence) else script(seen):
                await _take_step(step, reader, writer)
                if step is Ending.SILENCE:
                    self.left.set()
        writer.close()


async def _take_step(step: Step, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    match step:
        case bytes():
            writer.write(step)
            await writer.drain()
            # Twice round the loop, for the client to read these bytes before the next ones are sent.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        case asyncio.Event():
            await step.wait()
        case float():
            await asyncio.sleep(step)
        case Ending.SILENCE:
            await reader.read()
        case Ending.RESET:
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


def _read_request(raw: bytes) -> Seen:
    line, *fields = raw.decode("utf-8").removesuffix("\r\n\r\n").split("\r\n")
    pairs = (field.split(": ", 1) for field in fields)
    return Seen(line, {name.lower(): value for name, value in pairs})


def head(status: str = "200 OK", **headers: str) -> bytes:
    """A response's head: an event stream's, unless `content_type` says otherwise."""
    fields = {"content_type": "text/event-stream"} | headers
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def chunked(contents: Iterable[bytes]) -> bytes:
    """A whole body, a chunk for each of these."""
    return b"".join(chunk(content) for content in contents) + b"0\r\n\r\n"


def gzipped(contents: Iterable[bytes]) -> list[bytes]:
    """Each of these in a gzip member of its own, so that it can be read as soon as it is there."""
    return [gzip.compress(content, mtime=0) for content in contents]


def block(data: str, *, event: str = "", event_id: str = "") -> bytes:
    """One event on the wire."""
    named = f"event: {event}\n" if event else ""
    numbered = f"id: {event_id}\n" if event_id else ""
    return f"{named}{numbered}data: {data}\n\n".encode()


def singly(content: bytes) -> list[bytes]:
    """One byte at a time."""
    return [content[at : at + 1] for at in range(len(content))]
