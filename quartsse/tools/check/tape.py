"""A tape: what one connection to an event stream brought, and when."""

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from quartsse.client import ConnectionFailed, EventTooLarge, Parser, ProtocolError, Response, ServerEvent, open_stream

MOST_EVENTS = 20_000
"""Events that are kept to be judged; a stream that sends more is read on, and those are only counted."""

MOST_EVENT_BYTES = 1 << 20
"""An event larger than this is the last that is read."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event, and when it came: by the monotonic clock and by the wall's."""

    event: ServerEvent
    at: float
    wall: float

    @property
    def data(self) -> dict[str, Any]:
        """Its data, where that is a JSON object; else nothing."""
        try:
            found = self.event.json()
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(slots=True)
class Tape:
    """One connection. `asked` and `headed`: when the request was sent and its head had come (monotonic)."""

    response: Response
    asked: float
    headed: float
    last_event_id: str = ""
    arrivals: list[Arrival] = field(default_factory=list)
    events: int = 0
    comments: int = 0
    size: int = 0
    first_byte: float | None = None
    last_byte: float = 0.0
    longest_silence: float = 0.0
    retry: int | None = None
    ended: str = ""
    """Why it is over, if it is: `ended`, or what cut it."""
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _line: bytes = b""

    async def read(self) -> None:
        """Read until it ends; what ends it is noted and not raised."""
        parser = Parser(last_event_id=self.last_event_id, max_event_bytes=MOST_EVENT_BYTES)
        self.last_byte = self.headed
        try:
            while content := await self.response.read():
                self._take(parser, content)
            self.ended = "ended"
        except (ConnectionFailed, ProtocolError, EventTooLarge) as error:
            self.ended = str(error)

    def _take(self, parser: Parser, content: bytes) -> None:
        now, wall = time.monotonic(), time.time()
        self.first_byte = self.first_byte or now
        self.longest_silence, self.last_byte = max(self.longest_silence, now - self.last_byte), now
        self.size += len(content)
        self._count_comments(content)
        for event in parser.feed(content):
            self.events += 1
            self.last_event_id = event.id
            if len(self.arrivals) < MOST_EVENTS:
                self.arrivals.append(Arrival(event, now, wall))
        self.retry = parser.retry

    def _count_comments(self, content: bytes) -> None:
        *lines, rest = (self._line + content.replace(b"\r", b"\n")).split(b"\n")
        self._line = rest[:1]
        self.comments += sum(line.startswith(b":") for line in lines)

    def silence(self) -> float:
        """The longest time without a byte, the one that lasts until now included."""
        return max(self.longest_silence, time.monotonic() - self.last_byte) if not self.ended else self.longest_silence

    def named(self, name: str) -> list[Arrival]:
        """The events of a name."""
        return [arrival for arrival in self.arrivals if arrival.event.event == name]

    async def close(self) -> None:
        """Let go of the connection."""
        await self._stack.aclose()


async def open_tape(
    url: str, headers: Mapping[str, str], *, patience: float, last_event_id: str = "", method: str = "GET"
) -> Tape:
    """Connect and give the tape, not yet read. Raises ValueError, ConnectionFailed, ProtocolError."""
    resuming = {"last-event-id": last_event_id} if last_event_id else {}
    stack, asked = AsyncExitStack(), time.monotonic()
    response = await stack.enter_async_context(
        open_stream(url, headers={**headers, **resuming}, method=method, connect_timeout=patience)
    )
    tape = Tape(response, asked, time.monotonic(), last_event_id)
    tape._stack = stack
    return tape


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is no stream: its status, headers and as much of its body as was asked for."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    seconds: float

    def header(self, name: str) -> str | None:
        """A header's value, several joined by commas."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(found) if found else None

    @property
    def json(self) -> dict[str, Any]:
        """The body, where it is a JSON object; else nothing."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


async def fetch(
    url: str, headers: Mapping[str, str], *, method: str = "GET", patience: float = 5.0, most: int = 65_536
) -> Answer | str:
    """One request, and its answer; or why there is none. The body is read to `most` bytes, or until it is a stream."""
    asked = time.monotonic()
    try:
        async with (
            asyncio.timeout(2 * patience),
            open_stream(url, headers=headers, method=method, connect_timeout=patience, idle_timeout=patience) as answer,
        ):
            seconds, body = time.monotonic() - asked, b""
            if not answer.is_stream:
                while len(body) < most and (piece := await answer.read()):
                    body += piece
            return Answer(answer.status, answer.headers, body, seconds)
    except TimeoutError:
        return f"no whole answer within {2 * patience:g} s"
    except (ConnectionFailed, ProtocolError, ValueError) as error:
        return str(error)
