"""A client for event streams that keeps reading whatever happens to the connection; asyncio and nothing else.

    async with stream("https://example.org/api/v2/stream", tickers=["AAPL", "MSFT"]) as events:
        async for event in events:
            print(event.event, event.json())

`stream` is for those who want the events; `open_stream` for those who want one response, its exact bytes and their
times; `Parser` turns bytes into events and knows nothing of connections. What can go wrong, and who meets it:

StreamError
├── StreamRefused        the server said no for good: `stream` raises it
├── GaveUp               `max_attempts` attempts in a row brought nothing: `stream` raises it, with the last cause
├── EventTooLarge        an event exceeds `max_event_bytes`: `stream` raises it, as coming back would bring it again
├── StreamUnavailable    not now (429, 5xx): `stream` waits as long as `Retry-After` says and comes back
├── ConnectionFailed     not reached, cut or silent: `stream` backs off and comes back
└── ProtocolError        the peer does not speak HTTP/1.1: `stream` backs off and comes back
"""

import asyncio
import json
import random
import re
import ssl
import time
import zlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Literal, Protocol, Self
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from . import __version__
from .errors import QuartsseError

__all__ = [
    "ConnectionFailed",
    "EventTooLarge",
    "GaveUp",
    "Pace",
    "Parser",
    "ProtocolError",
    "Response",
    "ServerEvent",
    "State",
    "Stream",
    "StreamError",
    "StreamOptions",
    "StreamRefused",
    "StreamUnavailable",
    "open_stream",
    "stream",
]

MAX_EVENT_BYTES = 16 * 2**20
SHORTEST_WAIT = 0.05
"""Seconds between two connections at the least, so that a server that says `retry: 0` is not hammered."""
LONGEST_WAIT = 3600.0
"""What a server says about when to come back is obeyed up to an hour."""

_READ_BYTES = 65536
_HEAD_BYTES = 65536
_DETAIL_BYTES = 65536
_CHUNK_LINE_BYTES = 8192
_TRAILER_LINES = 100
_INFLATED_BYTES = 262144


class StreamError(QuartsseError):
    """Anything that goes wrong between this client and a stream."""


class StreamRefused(StreamError):
    """The server said no, and asking again would not change that.

    `status` is the answer's; 200 where the answer is no event stream. `detail` is the server's own word for it.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"refused with {status}: {detail}")
        self.status = status
        self.detail = detail


class StreamUnavailable(StreamError):
    """The server cannot serve now and may soon: `retry_after` is in seconds, None if it did not say when."""

    def __init__(self, status: int, detail: str, retry_after: float | None) -> None:
        super().__init__(f"unavailable with {status}: {detail}")
        self.status = status
        self.detail = detail
        self.retry_after = retry_after


class ConnectionFailed(StreamError):
    """The server was not reached, did not answer in time, cut the connection or fell silent."""


class ProtocolError(StreamError):
    """What came is not HTTP/1.1, or not in the coding that it claims."""


class EventTooLarge(StreamError):
    """One event, or one line, is larger than this client was told to hold."""


class GaveUp(StreamError):
    """As many attempts in a row as were allowed brought no event; the last one's error is the cause."""


# --- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event as the server meant it.

    `id` is the last event id as of this event, which an earlier event may have set; "" for none. `retry` is the
    reconnection time in ms, if this very block set it.
    """

    event: str
    data: str
    id: str = ""
    retry: int | None = None

    def json(self) -> Any:
        """The data, read as JSON. Raises `json.JSONDecodeError`, a ValueError, if it is something else."""
        return json.loads(self.data)


_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class Parser:
    """Bytes in, events out: section 9.2.6 of the HTML standard to the letter, whatever the pieces.

    A new connection takes a new parser. The standard lets each begin without an id, and so a keep-alive comment would
    wipe out where the last connection stopped; like the browsers, this one begins with `last_event_id`.
    A block that its stream ends in the middle of is dropped, as the standard has it, by never being asked for.
    """

    def __init__(self, *, last_event_id: str = "", max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.last_event_id = last_event_id
        """What to come back with: set by blocks that are complete, with data or without."""
        self.retry: int | None = None
        """The last reconnection time that the server named, in ms; in force as soon as its line is complete."""
        self._max_event_bytes = max_event_bytes
        self._line = bytearray()
        self._first = True
        self._after_cr = False
        self._id = last_event_id
        self._event = ""
        self._data: list[str] = []
        self._data_bytes = 0
        self._block_retry: int | None = None

    def feed(self, data: bytes) -> Iterator[ServerEvent]:
        """Give the events that these bytes complete. Lazy: what is not iterated to its end is not parsed.

        Raises `EventTooLarge`, after the events before it; the parser is of no use then.
        """
        if not data:
            return
        start = 1 if self._after_cr and data.startswith(b"\n") else 0
        self._after_cr = data.endswith(b"\r")
        for end in _LINE_END.finditer(data, start):
            event = self._end_line(data[start : end.start()])
            start = end.end()
            if event is not None:
                yield event
        self._line += data[start:]
        self._measure(len(self._line))

    def _end_line(self, tail: bytes) -> ServerEvent | None:
        line = bytes(self._line + tail) if self._line else tail
        self._line.clear()
        self._measure(len(line))
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        self._take_field(name, value.removeprefix(b" "))
        return None

    def _measure(self, line_bytes: int) -> None:
        if line_bytes + self._data_bytes > self._max_event_bytes:
            raise EventTooLarge(f"an event of more than {self._max_event_bytes} bytes")

    def _take_field(self, name: bytes, value: bytes) -> None:
        """An empty name is a comment's; an unknown one means nothing."""
        # CR and LF are never part of a longer UTF-8 sequence, so decoding line by line replaces exactly
        # what decoding the whole stream would.
        if name == b"data":
            self._data.append(value.decode("utf-8", "replace"))
            self._data_bytes += len(value) + 1
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            # Eighteen digits are for ever already, and Python refuses to read more than 4,300 of them.
            self.retry = self._block_retry = int(value.lstrip(b"0")[:18] or b"0")

    def _dispatch(self) -> ServerEvent | None:
        self.last_event_id = self._id
        event, data, retry = self._event, self._data, self._block_retry
        self._event, self._data, self._data_bytes, self._block_retry = "", [], 0, None
        if not data:
            return None
        return ServerEvent(event or "message", "\n".join(data), self._id, retry)


class _Repeats:
    """What each item last said to whom, of at most `size` items: the longest unheard is forgotten first.

    The part of an id before the first `.` is the event's identity: what it is about, `-`, what it says of that.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._last: OrderedDict[str, str] = OrderedDict()

    def is_repeat(self, event: ServerEvent) -> bool:
        """Whether its item said the same the last time; if not, this is from now on what it said last."""
        if event.event != "sentiment_update":
            return False
        subject, dash, says = event.id.partition(".")[0].partition("-")
        if not dash:
            return False
        if self._last.get(subject) == says:
            self._last.move_to_end(subject)
            return True
        self._last[subject] = says
        self._last.move_to_end(subject)
        if len(self._last) > self._size:
            self._last.popitem(last=False)
        return False


# --- HTTP/1.1 -------------------------------------------------------------------------------------------------------


class _Framing(Protocol):
    """How a body's end is known (RFC 9112, section 6.3). `whole` is whether the end was seen."""

    whole: bool

    def feed(self, wire: bytes) -> bytes: ...

    def end(self) -> None:
        """The connection has ended: raise `ConnectionFailed` if the body had not."""
        ...


class _Chunked:
    """A chunked body (RFC 9112, section 7.1): a chunk's bytes are passed on as they come. Extensions are ignored."""

    def __init__(self) -> None:
        self.whole = False
        self._left = 0
        self._line = bytearray()
        self._on_line: Callable[[bytes], None] = self._take_size
        self._trailers = 0

    def feed(self, wire: bytes) -> bytes:
        content, at = [], 0
        while at < len(wire) and not self.whole:
            if self._left:
                piece = wire[at : at + self._left]
                content.append(piece)
                self._left -= len(piece)
            else:
                piece = wire[at : wire.find(b"\n", at) + 1 or len(wire)]
                self._take_line(piece)
            at += len(piece)
        return b"".join(content)

    def end(self) -> None:
        if not self.whole:
            raise ConnectionFailed("cut before the last chunk")

    def _take_line(self, piece: bytes) -> None:
        self._line += piece
        if len(self._line) > _CHUNK_LINE_BYTES:
            raise ProtocolError("a chunk's line has no end")
        if self._on_line == self._take_chunk_end and not b"\r\n".startswith(self._line):
            raise ProtocolError("a chunk is longer than it said")
        if not piece.endswith(b"\n"):
            return
        if not self._line.endswith(b"\r\n"):
            raise ProtocolError("a chunk's line ends without CR")
        line = bytes(self._line[:-2])
        self._line.clear()
        self._on_line(line)

    def _take_size(self, line: bytes) -> None:
        size = line.partition(b";")[0].rstrip(b" \t")
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", size):
            raise ProtocolError(f"no chunk size: {size[:20]!r}")
        self._left = int(size, 16)
        self._on_line = self._take_chunk_end if self._left else self._take_trailer

    def _take_chunk_end(self, line: bytes) -> None:  # noqa: ARG002 - it is empty: anything else was refused above
        self._on_line = self._take_size

    def _take_trailer(self, line: bytes) -> None:
        self.whole = not line
        self._trailers += 1
        if self._trailers > _TRAILER_LINES:
            raise ProtocolError("trailers without end")


class _Counted:
    """A body of as many bytes as `Content-Length` says."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.whole = not length

    def feed(self, wire: bytes) -> bytes:
        content = wire[: self._left]
        self._left -= len(content)
        self.whole = not self._left
        return content

    def end(self) -> None:
        if self._left:
            raise ConnectionFailed(f"cut {self._left} bytes before the end")


class _UntilClose:
    """A body that ends with its connection: whether it was cut cannot be told."""

    whole = False

    def feed(self, wire: bytes) -> bytes:
        return wire

    def end(self) -> None:
        self.whole = True


class _Decoder(Protocol):
    """A content coding undone: bytes in, and out in pieces of bounded size."""

    def feed(self, content: bytes) -> None: ...

    def take(self) -> bytes:
        """The next piece; b"" when there is no more for now."""
        ...


class _Unknown:
    """A body in a coding that nobody asked for: it can be seen on the wire, not read."""

    def __init__(self, coding: str) -> None:
        self._coding = coding

    def feed(self, content: bytes) -> None:
        if content:
            raise ProtocolError(f"content coding {self._coding!r}, which was not asked for")

    def take(self) -> bytes:
        return b""


class _Identity:
    """A body in no coding."""

    def __init__(self) -> None:
        self._content = b""

    def feed(self, content: bytes) -> None:
        self._content = content

    def take(self) -> bytes:
        content, self._content = self._content, b""
        return content


class _Gzip:
    """A gzip body, given out in pieces of bounded size however much a few bytes unfold to."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._rest = b""
        self._more = False

    def feed(self, content: bytes) -> None:
        self._rest += content

    def take(self) -> bytes:
        while self._rest or self._more:
            try:
                piece = self._inflate.decompress(self._rest, _INFLATED_BYTES)
            except zlib.error as error:
                raise ProtocolError(f"not gzip: {error}") from error
            self._rest, self._more = self._inflate.unconsumed_tail, len(piece) == _INFLATED_BYTES
            if self._inflate.eof:  # another member may follow (RFC 1952, section 2.2)
                self._rest, self._more = self._inflate.unused_data, False
                self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
            if piece:
                return piece
        return b""


@dataclass(frozen=True, slots=True)
class _Head:
    """A response's head: what it says, and its bytes."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    raw: bytes

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None

    def framing(self, method: str) -> _Framing:
        """How the body ends; several lengths that agree are one (RFC 9112, section 6.3)."""
        if method == "HEAD" or self.status in (204, 304):
            return _Counted(0)
        coding, length = self.header("Transfer-Encoding"), self.header("Content-Length")
        if coding is not None:
            if coding.lower() != "chunked":
                raise ProtocolError(f"transfer coding {coding!r}")
            return _Chunked()
        if length is None:
            return _UntilClose()
        lengths = {part.strip() for part in length.split(",")}
        if len(lengths) > 1 or not re.fullmatch(r"[0-9]{1,18}", one := lengths.pop()):
            raise ProtocolError(f"content length {length!r}")
        return _Counted(int(one))

    def decoder(self) -> _Decoder:
        coding = (self.header("Content-Encoding") or "identity").lower()
        if coding in ("gzip", "x-gzip"):
            return _Gzip()
        return _Identity() if coding == "identity" else _Unknown(coding)


_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: ([^\r\n]*))?")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)


def _parse_head(raw: bytes) -> _Head:
    first, *lines = raw.removesuffix(b"\r\n\r\n").split(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(first)
    if status_line is None:
        raise ProtocolError(f"no HTTP/1.1 status line: {first[:60]!r}")
    return _Head(
        int(status_line[1]),
        (status_line[2] or b"").decode("latin-1"),
        tuple(_parse_field(line.decode("latin-1")) for line in lines),
        raw,
    )


def _parse_field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not _is_field(name, value):
        raise ProtocolError(f"no header line: {line[:60]!r}")
    return name, value.strip(" \t")


def _is_field(name: str, value: str) -> bool:
    """RFC 9110, section 5: a token, and a value that cannot pass for another line."""
    return _NAME.fullmatch(name) is not None and not any(sign in value for sign in "\r\n\0")


class Response:
    """One answer: its head as it came, then its body as it comes. Made by `open_stream`, which also closes it."""

    def __init__(
        self, head: _Head, method: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle: float | None
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
        return self.status == 200 and essence == "text/event-stream" and not isinstance(self._decoder, _Unknown)

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


def _request(method: str, url: str, headers: Mapping[str, str]) -> _Request:
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
    if not _is_field(name, value):
        raise ValueError(f"not a header: {name!r}")
    return f"{name}: {value}".encode()


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


async def _open(
    request: _Request, connect_timeout: float, idle_timeout: float | None, tls: ssl.SSLContext | None
) -> Response:
    """Connect, ask, and read the head. Whatever goes wrong, the connection does not outlive the attempt."""
    context = (tls or _tls()) if request.secure else None
    with ExitStack() as undo:
        try:
            async with asyncio.timeout(connect_timeout):
                reader, writer = await asyncio.open_connection(
                    request.host, request.port, ssl=context, limit=_HEAD_BYTES
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


async def _read_head(reader: asyncio.StreamReader) -> _Head:
    """The final response's head; interim ones (1xx) are passed over."""
    while True:
        try:
            head = _parse_head(await reader.readuntil(b"\r\n\r\n"))
        except asyncio.IncompleteReadError as error:
            raise ConnectionFailed("cut before the end of the head") from error
        except asyncio.LimitOverrunError as error:
            raise ProtocolError(f"a head of more than {_HEAD_BYTES} bytes") from error
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
    response = await _open(_request(method, url, headers or {}), connect_timeout, idle_timeout, tls)
    try:
        yield response
    finally:
        await response.close()


# --- the stream -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pace:
    """Time and chance as a stream sees them. Tests hand in their own, and do not wait."""

    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    random: Callable[[], float] = random.random
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How patient a stream is, and how much it holds. Times are in seconds."""

    connect_timeout: float = 10.0
    """Until the answer's head is there."""
    idle_timeout: float = 45.0
    """Silence after which a connection counts as dead; the service sends something every 15 s."""
    first_backoff: float = 3.0
    """Of the first wait, until the server names a `retry:` of its own."""
    max_backoff: float = 30.0
    """What the doubling backoff stops at; a longer `retry:` or `Retry-After` is still obeyed."""
    max_attempts: int | None = None
    """Attempts in a row without an event before `GaveUp`; None for ever more."""
    max_event_bytes: int = MAX_EVENT_BYTES
    remember: int = 50_000
    """Items whose last update is kept to recognise repeats; the longest unheard is forgotten, and may repeat."""
    compression: bool = False
    """Ask for gzip: fewer bytes, for some CPU and up to 40 KB a stream (zlib's window)."""
    tls: ssl.SSLContext | None = None
    """None for the system's certificates. Many streams had better share one context."""
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True, slots=True)
class State:
    """Where a stream stands. `attempt` counts from 1, from anew after each connection that brought an event.

    `seconds` is how long a `waiting` one waits; `reason` is why it was `closed` or `refused`, or what it waits for.
    """

    name: Literal["connecting", "open", "closed", "waiting", "refused"]
    attempt: int
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _End:
    """What a `stream_end` says: why, and after how many seconds its reader may come back."""

    reason: str
    seconds: float | None


Headers = Mapping[str, str] | Callable[[], Awaitable[Mapping[str, str]]]
"""What to send with each request, or who to ask for it anew each time: for tokens that expire."""


class Stream:
    """A stream's events, over as many connections as it takes: an async iterator and its context manager.

    Reading drives it: nothing happens, and no task runs, between two reads. A read that is cancelled (by
    `asyncio.timeout`, say) loses nothing; the next one goes on. After an error it has ended.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Headers | None,
        last_event_id: str | None,
        on_state: Callable[[State], None] | None,
        options: StreamOptions,
    ) -> None:
        self._url = url
        self._headers: Headers = headers or {}
        # What cannot be sent is said now, to whoever wrote it.
        _request(
            "GET", url, {**(headers if isinstance(headers, Mapping) else {}), "last-event-id": last_event_id or ""}
        )
        self._on_state = on_state or (lambda _: None)
        self._options = options
        self._pace = options.pace
        self._parser = Parser(last_event_id=last_event_id or "", max_event_bytes=options.max_event_bytes)
        self._handed_out = self._parser.last_event_id
        self._repeats = _Repeats(options.remember)
        self._ready: deque[ServerEvent] = deque()
        self._response: Response | None = None
        self._tls = options.tls
        self._base = options.first_backoff
        self._failures = 0
        self._alive = False
        self._end: _End | None = None
        self._due: float | None = None
        self._fatal: StreamError | None = None
        self._ended = False
        self.repeats = 0
        """Updates that were dropped because their item had said the same the last time."""

    @property
    def last_event_id(self) -> str:
        """What to resume from later: as of the last event given out, so nothing unread is passed over."""
        return self._handed_out if self._ready else self._parser.last_event_id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServerEvent:
        while not self._ready:
            if self._fatal is not None:
                error, self._fatal = self._fatal, None
                raise error
            if self._ended:
                raise StopAsyncIteration
            await self._advance()
        event = self._ready.popleft()
        self._handed_out = event.id
        return event

    async def aclose(self) -> None:
        """End the stream, as leaving its `async with` does."""
        self._ended, self._fatal = True, None
        self._ready.clear()
        response = self._response
        self._hang_up("closed by the reader")
        if response is not None:
            await response.close()

    async def _advance(self) -> None:
        """One step: wait and connect, or read what the connection brings next."""
        try:
            if self._response is None:
                await self._wait()
                await self._connect()
            else:
                await self._read(self._response)
        except (StreamUnavailable, ConnectionFailed, ProtocolError) as error:
            self._come_back(str(error), error)
        except (StreamRefused, EventTooLarge) as error:
            self._hang_up(str(error))
            self._fail(error)
        if self._ended:  # closed meanwhile, by another task
            self._hang_up("closed by the reader")

    def _fail(self, error: StreamError) -> None:
        """End for good. The error is raised after the events that came before it."""
        self._fatal, self._ended = error, True
        self._say("refused", str(error))

    async def _wait(self) -> None:
        if self._due is not None:
            await self._pace.sleep(max(0.0, self._due - self._pace.monotonic()))
            self._due = None

    async def _connect(self) -> None:
        self._say("connecting")
        options = self._options
        request = _request("GET", self._url, await self._fields())
        if request.secure and self._tls is None:
            self._tls = _tls()
        response = await _open(request, options.connect_timeout, options.idle_timeout, self._tls)
        if not response.is_stream:
            try:
                raise await self._refusal(response)
            finally:
                response.abort()
        self._response = response
        self._alive, self._end = False, None
        self._parser = Parser(last_event_id=self._parser.last_event_id, max_event_bytes=options.max_event_bytes)
        self._say("open")

    async def _fields(self) -> dict[str, str]:
        own = {"accept-encoding": "gzip"} if self._options.compression else {}
        if self._parser.last_event_id:
            own["last-event-id"] = self._parser.last_event_id
        theirs = self._headers if isinstance(self._headers, Mapping) else await self._headers()
        return own | {name.lower(): value for name, value in theirs.items()}

    async def _refusal(self, response: Response) -> StreamError:
        """What an answer that is no stream means: 408, 425, 429 and 5xx pass, 501 and all others do not."""
        status = response.status
        if status == 200:
            kind, coding = response.header("Content-Type"), response.header("Content-Encoding")
            return StreamRefused(status, f"not an event stream: {kind}" + (f" in {coding}" if coding else ""))
        try:
            async with asyncio.timeout(self._options.connect_timeout):
                detail = await response.detail()
        except TimeoutError:
            detail = response.reason
        if status in (408, 425, 429) or (status >= 500 and status != 501):
            when = _retry_after(response.header("Retry-After"), self._pace.wall())
            return StreamUnavailable(status, detail, when)
        return StreamRefused(status, detail)

    async def _read(self, response: Response) -> None:
        content = await response.read()
        if not content:
            self._come_back("ended by the server", None)
            return
        for event in self._parser.feed(content):
            self._take(event)
        if self._parser.retry is not None:
            self._base = self._parser.retry / 1000
        if self._end is not None:
            self._come_back(f"ended by the server: {self._end.reason}", None)

    def _take(self, event: ServerEvent) -> None:
        if event.event == "stream_end":
            self._end = _read_end(event)
        else:
            self._alive, self._failures = True, 0
        if self._repeats.is_repeat(event):
            self.repeats += 1
        else:
            self._ready.append(event)

    def _come_back(self, reason: str, error: StreamError | None) -> None:
        """Note when to connect again, or give up. Waits for nothing, so nothing can be cancelled half-way."""
        self._hang_up(reason)
        if self._ended:
            return
        if not self._alive:
            self._failures += 1
        most = self._options.max_attempts
        if most is not None and self._failures >= most:
            gave_up = GaveUp(f"gave up after {self._failures} attempts: {reason}")
            gave_up.__cause__ = error
            self._fail(gave_up)
            return
        seconds = self._delay(error)
        self._alive, self._end = False, None
        self._due = self._pace.monotonic() + seconds
        self._say("waiting", reason, seconds)

    def _delay(self, error: StreamError | None) -> float:
        """What the server said, else full jitter: anything up to a bound that doubles with each failure.

        `Retry-After` is stretched by up to a quarter, as all who were refused were told the same; `retry_ms` of a
        `stream_end` is this stream's alone.
        """
        chance = self._pace.random()
        if isinstance(error, StreamUnavailable) and error.retry_after is not None:
            seconds = error.retry_after * (1 + chance / 4)
        elif self._end is not None and self._end.seconds is not None:
            seconds = self._end.seconds
        else:
            doublings = min(max(0, self._failures - 1), 30)
            base = max(self._base, SHORTEST_WAIT)
            seconds = chance * max(base, min(self._options.max_backoff, base * 2**doublings))
        return min(max(seconds, SHORTEST_WAIT), LONGEST_WAIT)

    def _hang_up(self, reason: str) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.abort()
            self._say("closed", reason)

    def _say(
        self,
        name: Literal["connecting", "open", "closed", "waiting", "refused"],
        reason: str = "",
        seconds: float = 0.0,
    ) -> None:
        self._on_state(State(name, self._failures + 1, reason, seconds))


def _read_end(event: ServerEvent) -> _End:
    try:
        body = event.json()
    except ValueError:
        body = None
    told = body if isinstance(body, dict) else {}
    retry_ms = told.get("retry_ms", event.retry)
    seconds = retry_ms / 1000 if isinstance(retry_ms, int | float) and retry_ms >= 0 else None
    return _End(str(told.get("reason", "no reason given")), seconds)


def _retry_after(value: str | None, now: float) -> float | None:
    """Seconds until the moment that `Retry-After` names, in either of its forms (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def stream(
    url: str,
    *,
    headers: Headers | None = None,
    last_event_id: str | None = None,
    tickers: Iterable[str] | None = None,
    on_state: Callable[[State], None] | None = None,
    options: StreamOptions | None = None,
) -> Stream:
    """Give a stream's events for ever: an async iterator, best held by an `async with`.

    It comes back by itself, from where it stopped, after whatever ended a connection; what a server repeats on that
    occasion is dropped. `tickers` are those to hear about, "*" for all. `on_state` hears of every change, and must not
    wait. `headers` may be a function that is asked before each connection; what it raises reaches the reader.
    Raises ValueError for what cannot be sent; reading raises `StreamRefused`, `EventTooLarge` and, with
    `max_attempts`, `GaveUp`.
    """
    if tickers is not None:
        url = _with_tickers(url, [tickers] if isinstance(tickers, str) else tickers)
    return Stream(
        url, headers=headers, last_event_id=last_event_id, on_state=on_state, options=options or StreamOptions()
    )


def _with_tickers(url: str, tickers: Iterable[str]) -> str:
    parts = urlsplit(url)
    pairs = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != "tickers"]
    query = urlencode([*pairs, ("tickers", ",".join(tickers))], safe=",*")
    return urlunsplit(parts._replace(query=query))
