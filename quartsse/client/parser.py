"""Bytes in, events out: section 9.2.6 of the HTML standard."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from quartsse.client.errors import EventTooLarge

MAX_EVENT_BYTES = 16 * 2**20


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
