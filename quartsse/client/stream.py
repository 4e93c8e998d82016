"""The stream: events over as many connections as it takes."""

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Literal, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from quartsse.client.errors import (
    ConnectionFailed,
    EventTooLarge,
    GaveUp,
    ProtocolError,
    StreamError,
    StreamRefused,
    StreamUnavailable,
)
from quartsse.client.http import Response, open_response, request_for, tls_context
from quartsse.client.options import State, StreamOptions
from quartsse.client.parser import Parser, ServerEvent
from quartsse.client.repeats import Repeats

SHORTEST_WAIT = 0.05
"""Seconds between two connections at the least, so that a server that says `retry: 0` is not hammered."""
LONGEST_WAIT = 3600.0
"""What a server says about when to come back is obeyed up to an hour."""


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
        request_for(
            "GET", url, {**(headers if isinstance(headers, Mapping) else {}), "last-event-id": last_event_id or ""}
        )
        self._on_state = on_state or (lambda _: None)
        self._options = options
        self._pace = options.pace
        self._parser = Parser(last_event_id=last_event_id or "", max_event_bytes=options.max_event_bytes)
        self._handed_out = self._parser.last_event_id
        self._repeats = Repeats(options.remember)
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
        request = request_for("GET", self._url, await self._fields())
        if request.secure and self._tls is None:
            self._tls = tls_context()
        response = await open_response(request, options.connect_timeout, options.idle_timeout, self._tls)
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
