"""One request, and its response as it comes: HTTP/1.1 over asyncio."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from quartsse import __version__
from quartsse.client.coding import UnknownCoding
from quartsse.client.errors import ConnectionFailed, ProtocolError
from quartsse.client.head import Head, is_field, parse_head

_READ_BYTES = 65536
HEAD_BYTES = 65536
_DETAIL_BYTES = 65536


class Response:
    """One answer: its head as it came, then its body as it comes. Made by `open_stream`, which also closes it."""

    def __init__(
        self, head: Head, method: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle: float | None
    ) -> None:
        self.status = head.status
        self.reason = head.reason
        self.headers = head.headers
        """Names and values as they were sent, in their order."""
        self.raw_head = head.raw
        self.arrived = time.monotonic()
        """When the bytes given last arrived, by the monotonic clock; at first the head's."""
        self._head = head
        self._framing = head.framing(method)
        self._decoder = head.decoder()
        self._reader = reader
        self._writer = writer
        self._idle = idle

    def header(self, name: str) -> str | None:
        """A header's value, several joined by commas; None if it was not sent."""
        return self._head.header(name)

    @property
    def is_stream(self) -> bool:
        """Whether this is an event stream, and in a coding that can be read; parameters of its type mean nothing."""
        essence = (self.header("Content-Type") or "").partition(";")[0].strip().lower()
        return self.status == 200 and essence == "text/event-stream" and not isinstance(self._decoder, UnknownCoding)

    @property
    def complete(self) -> bool:
        """Whether the body's end was seen, by its framing or, where it has none, by the connection's."""
        return self._framing.whole

    async def read(self) -> bytes:
        """The next bytes of the content, free of chunks and gzip; b"" when it has ended as it should.

        Cancelled, it loses nothing. Raises `ConnectionFailed` when cut, or silent for `idle_timeout`.
        """
        while not (content := self._decoder.take()):
            if self._framing.whole:
                return b""
            wire = await self._receive()
            if not wire:
                self._framing.end()
                return b""
            self._decoder.feed(self._framing.feed(wire))
        return content

    async def body(self) -> AsyncIterator[bytes]:
        """The content, as `read` gives it, to its end."""
        while content := await self.read():
            yield content

    async def wire(self) -> AsyncIterator[bytes]:
        """The bytes after the head as they came, chunk lines and all, until the connection ends.

        Instead of `read` and `body`, not beside them.
        """
        while wire := await self._receive():
            yield wire

    async def detail(self) -> str:
        """What the server says about a refusal: `detail` of a JSON body, else the status line's words."""
        content = b""
        with suppress(ConnectionFailed, ProtocolError):
            while len(content) < _DETAIL_BYTES and (piece := await self.read()):
                content += piece
        try:
            body = json.loads(content)
        except ValueError:
            body = None
        detail = body.get("detail") if isinstance(body, dict) else None
        return detail if isinstance(detail, str) else self.reason

    def abort(self) -> None:
        """Let go of the connection at once; a second time does nothing."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Let go of the connection, and wait until it is gone."""
        self.abort()
        with suppress(OSError):  # why it broke was told to whoever read
            await self._writer.wait_closed()

    async def _receive(self) -> bytes:
        try:
            async with asyncio.timeout(self._idle):
                wire = await self._reader.read(_READ_BYTES)
        except TimeoutError as error:
            raise ConnectionFailed(f"silent for {self._idle:g} s") from error
        except OSError as error:
            raise ConnectionFailed(f"cut: {error}") from error
        self.arrived = time.monotonic()
        return wire


@dataclass(frozen=True, slots=True)
class _Request:
    """One request as it goes out: to whom, and its bytes."""

    method: str
    host: str
    port: int
    secure: bool
    head: bytes


def request_for(method: str, url: str, headers: Mapping[str, str]) -> _Request:
    """Raises ValueError for what cannot be sent: another scheme, no host, a line break in a header."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError(f"not an http or https address without a user in it: {url!r}")
    secure = parts.scheme == "https"
    host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode("ascii")
    authority = f"[{host}]" if ":" in host else host
    if parts.port is not None:
        authority += f":{parts.port}"
    target = quote(parts.path or "/", safe="%/:=&?~#+!$,;'@()*[]")
    if parts.query:
        target += "?" + quote(parts.query, safe="%/:=&?~+!$,;'@()*[]")
    fields = {
        "host": authority,
        "accept": "text/event-stream",
        "cache-control": "no-store",
        "user-agent": f"quartsse/{__version__}",
    } | {name.lower(): value for name, value in headers.items()}
    lines = [f"{method} {target} HTTP/1.1".encode("ascii"), *(_field_line(*pair) for pair in fields.items())]
    return _Request(method, host, parts.port or (443 if secure else 80), secure, b"\r\n".join(lines) + b"\r\n\r\n")


def _field_line(name: str, value: str) -> bytes:
    if not is_field(name, value):
        raise ValueError(f"not a header: {name!r}")
    return f"{name}: {value}".encode()


def tls_context() -> ssl.SSLContext:
    """The system's certificates, for HTTP/1.1."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


async def open_response(
    request: _Request, connect_timeout: float, idle_timeout: float | None, tls: ssl.SSLContext | None
) -> Response:
    """Connect, ask, and read the head. Whatever goes wrong, the connection does not outlive the attempt."""
    context = (tls or tls_context()) if request.secure else None
    with ExitStack() as undo:
        try:
            async with asyncio.timeout(connect_timeout):
                reader, writer = await asyncio.open_connection(
                    request.host, request.port, ssl=context, limit=HEAD_BYTES
                )
                undo.callback(writer.transport.abort)
                writer.write(request.head)
                head = await _read_head(reader)
        except TimeoutError as error:
            raise ConnectionFailed(f"no answer within {connect_timeout:g} s") from error
        except OSError as error:
            raise ConnectionFailed(f"not reached: {error}") from error
        response = Response(head, request.method, reader, writer, idle_timeout)
        undo.pop_all()
    return response


async def _read_head(reader: asyncio.StreamReader) -> Head:
    """The final response's head; interim ones (1xx) are passed over."""
    while True:
        try:
            head = parse_head(await reader.readuntil(b"\r\n\r\n"))
        except asyncio.IncompleteReadError as error:
            raise ConnectionFailed("cut before the end of the head") from error
        except asyncio.LimitOverrunError as error:
            raise ProtocolError(f"a head of more than {HEAD_BYTES} bytes") from error
        if head.status == 101:
            raise ProtocolError("switched to another protocol, which nobody asked for")
        if head.status >= 200:
            return head


@asynccontextmanager
async def open_stream(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    connect_timeout: float = 10.0,
    idle_timeout: float | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Response]:
    """Make one request and give its answer, whatever its status: no reconnecting, no judging.

    Both timeouts are in seconds: `connect_timeout` covers all until the head is complete, `idle_timeout` each wait for
    more. `headers` replace this client's own of the same name. Raises ValueError for an address or header that cannot
    be sent, `ConnectionFailed`, `ProtocolError`.
    """
    response = await open_response(request_for(method, url, headers or {}), connect_timeout, idle_timeout, tls)
    try:
        yield response
    finally:
        await response.close()
