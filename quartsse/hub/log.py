"""The log: the last updates that were published here, what a resume reads from."""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice


@dataclass(frozen=True, slots=True)
class Entry:
    """An update in the log: when it was published here (monotonic seconds), for whom it may be, and its frame."""

    arrived: float
    ticker: str | None
    frame: bytes


class Log:
    """At most `limit` updates, oldest first; beyond that the oldest is forgotten, and when it arrived remembered."""

    def __init__(self, limit: int) -> None:
        self.number = 0
        """The number of the last update: how many there have been."""
        self._limit = limit
        self._entries: deque[Entry] = deque()
        self._forgotten_at = float("-inf")

    def append(self, entry: Entry) -> None:
        """Add the update with the next number."""
        self.number += 1
        self._entries.append(entry)
        if len(self._entries) > self._limit:
            self._forgotten_at = self._entries.popleft().arrived

    def after(self, number: int) -> Iterator[Entry] | None:
        """All updates behind the one with this number; None if not all of them are here, or there was no such one."""
        start = number - (self.number - len(self._entries))
        return islice(self._entries, start, None) if 0 <= start <= len(self._entries) else None

    def since(self, moment: float) -> Iterator[Entry] | None:
        """All updates that arrived at a moment (monotonic seconds) or later; None if some of them are forgotten."""
        if moment <= self._forgotten_at:
            return None
        return islice(self._entries, bisect_left(self._entries, moment, key=lambda entry: entry.arrived), None)
