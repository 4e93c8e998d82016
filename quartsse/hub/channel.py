"""Channels: what one filter lets through in one coding, and the readers who get it."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quartsse.hub.compression import NOTHING, Sum
from quartsse.hub.filters import Filter
from quartsse.hub.tick import Tick

if TYPE_CHECKING:
    from quartsse.hub.subscription import Subscription

MOST_JOINED = 65_536
"""Bytes of a queued tick from which on the next one is not joined to it."""

type Write = Callable[[bytes], object]
"""Takes one chunk of HTTP/1.1's chunked coding, whole and at once."""


@dataclass(slots=True, eq=False)
class Queued:
    """A tick that is still to be handed on."""

    tick: Tick
    followers: int
    """So many of the channel's followers, from the first on, get it: those who were there when it was published."""
    before: Sum
    """The sum of all ticks before it."""


class Channel:
    """One filter's view of what is published, in one coding, and the ticks still to be handed to its readers.

    Most readers follow: they are written every tick at once, so that all of them are at the same point, and the channel
    alone knows where that is. A delivery to them touches nothing of theirs but the transport: at one event a second
    what a reader owns has left the processor's caches before it is needed again, and fetching it costs more than the
    work. Those whose transport takes no more, and those who read by an iterator, have each their own backlog.
    """

    __slots__ = (
        "_before",
        "_behind",
        "_bytes",
        "_events",
        "_followers",
        "_gaps",
        "_keepers",
        "_last",
        "_reached",
        "_sealed",
        "_tell",
        "_writes",
        "filter",
        "gzip",
        "queue",
        "written_at",
    )

    def __init__(self, wanted: Filter, now: float, tell: Callable[[Tick, int, int], None], *, gzip: bool) -> None:
        self.filter = wanted
        self.gzip = gzip
        self.queue: deque[Queued] = deque()
        self.written_at = now
        """When its readers last got bytes, on the monotonic clock."""
        self._sealed = False
        """Whether the last queued tick has to stay as it is: somebody has had it, or has come after it."""
        self._tell = tell
        self._events = self._bytes = 0
        """What has been delivered to each reader since it was made: counted by the tick, never by the reader."""
        self._before = NOTHING
        """The sum of all that was published, where it is gzip."""
        self._last = (0, "")
        """The serial of the tick that everyone has had last, and the place that it leads to."""
        self._keepers: dict[Subscription, None] = {}
        self._behind: list[Subscription] | None = None
        """Of those who do not follow, who has not had the first tick; None while it is written to those who do."""
        self._followers: list[Subscription | None] = []
        self._writes: list[Write] = []
        """How each follower is written to, in the order in which they came."""
        self._gaps = 0
        """How many of them have gone since."""
        self._reached = 0
        """How many of them have had the first tick."""

    @property
    def empty(self) -> bool:
        """Whether nobody reads."""
        return not self._keepers and self._gaps == len(self._writes)

    def readers(self) -> "Iterator[Subscription]":
        """Everyone who reads."""
        yield from (follower for follower in self._followers if follower is not None)
        yield from self._keepers

    def join(self, reader: "Subscription") -> None:
        """Let someone read what is published from here on."""
        self._keepers[reader] = None
        self._sealed = True

    def leave(self, reader: "Subscription") -> None:
        """Let someone who does not follow read no longer."""
        del self._keepers[reader]

    def follow(self, reader: "Subscription", write: Write) -> None:
        """Let someone be written every tick that is published from here on."""
        del self._keepers[reader]
        reader.rank = len(self._writes)
        self._followers.append(reader)
        self._writes.append(write)

    def unfollow(self, reader: "Subscription", rank: int) -> tuple[int, str]:
        """Let a follower have a backlog; the serial of the last tick that it was written, and where that leads to."""
        self._followers[rank], self._writes[rank], reader.rank = None, _written_to_nobody, None
        self._gaps += 1
        self._keepers[reader] = None
        if rank >= self._reached:
            return self._last
        first = self.queue[0].tick
        return first.serial, first.place

    def add(self, tick: Tick, now: float) -> None:
        """Queue a tick for everyone who reads now; joined to the last one, if that still waits for all of them.

        So a channel that is published to faster than its readers can be written gets fewer and larger writes.
        """
        self.written_at = now
        last = self.queue[-1] if self.queue else None
        if last is not None and self._may_grow(last):
            last.tick = last.tick.joined(tick)
        else:
            last = Queued(tick, len(self._writes), self._before)
            self.queue.append(last)
            self._sealed = False
        if self.gzip:
            self._before = last.before.plus(last.tick.data)

    def queued_after(self, serial: int) -> list[Tick]:
        """The queued ticks behind one, for somebody who has them now."""
        ticks = [queued.tick for queued in self.queue if queued.tick.serial > serial]
        self._sealed = self._sealed or bool(ticks)
        return ticks

    def sum_at(self, serial: int) -> Sum:
        """The sum of all ticks up to one; only differences between two points mean anything."""
        return next((queued.before for queued in self.queue if queued.tick.serial > serial), self._before)

    def handed(self, serial: int) -> tuple[int, int]:
        """Events and bytes of all ticks up to one; only differences between two points mean anything."""
        events, size = self._events, self._bytes
        for queued in self.queue:
            if queued.tick.serial <= serial:
                events, size = events + queued.tick.events, size + queued.tick.size(gzip=self.gzip)
        return events, size

    def deliver(self, limit: int) -> int:
        """Hand waiting ticks to at most `limit` readers, in order; how many were reached.

        If one of them raises, the next call goes on behind it.
        """
        done = 0
        while self.queue and done < limit:
            first = self.queue[0]
            done += self._write(first, limit - done)
            if self._reached >= first.followers:
                done += self._keep(first.tick, limit - done)
        return done

    def _may_grow(self, last: Queued) -> bool:
        begun = len(self.queue) == 1 and (self._reached > 0 or self._behind is not None)
        return not (self._sealed or begun) and last.tick.size(gzip=False) < MOST_JOINED

    def _write(self, first: Queued, limit: int) -> int:
        """Write the first tick to at most `limit` of those who follow; how many."""
        begin, end = self._reached, first.followers
        if end - begin > limit:
            end = begin + limit
        writes, data = self._writes, first.tick.gzip_chunk if self.gzip else first.tick.chunk
        for rank in range(begin, end):
            self._reached = rank + 1  # whoever pauses within has had it
            writes[rank](data)
        return end - begin

    def _keep(self, tick: Tick, limit: int) -> int:
        """Hand the first tick to at most `limit` of the others, after those who follow; how many."""
        if self._behind is None:
            self._behind = list(self._keepers)[::-1]
        done = 0
        while self._behind and done < limit:
            done += 1
            self._behind.pop().receive(tick)
        if not self._behind:
            self._delivered()
        return done

    def _delivered(self) -> None:
        """Everyone has the first tick: written to their transport or, where that takes no more, in their backlog."""
        tick = self.queue.popleft().tick
        self._last = (tick.serial, tick.place)
        self._reached, self._behind = 0, None
        size = tick.size(gzip=self.gzip)
        self._events += tick.events
        self._bytes += size
        readers = len(self._writes) - self._gaps + len(self._keepers)
        self._tell(tick, readers, readers * size)
        if self._gaps * 2 > len(self._writes) and not self.queue:
            self._close_gaps()

    def _close_gaps(self) -> None:
        """Let those who follow move up; only while no queued tick counts them."""
        staying = [(one, write) for one, write in zip(self._followers, self._writes, strict=True) if one is not None]
        for rank, (follower, _) in enumerate(staying):
            follower.rank = rank
        self._followers, self._writes, self._gaps = [one for one, _ in staying], [write for _, write in staying], 0


def _written_to_nobody(data: bytes) -> None:
    """In the place of a follower who has gone."""
