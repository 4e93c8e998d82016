"""Subscriptions: one reader's place in what is published, and what waits for it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from quartsse.hub.channel import Channel, Write
from quartsse.hub.compression import Gzip
from quartsse.hub.events import EndReason
from quartsse.hub.ids import NOWHERE
from quartsse.hub.tick import Piece, Tick

if TYPE_CHECKING:
    from quartsse.hub.hub import Hub


def _nothing() -> int:
    return 0


class Subscription:
    """One reader's place in a channel: the ticks that it has not taken yet.

    A reader takes what waits, woken by `wake`; or it follows, and is written each tick at once, until it pauses.
    Bounded: a tick that comes while more than `backlog_bytes` of earlier ones are unsent ends it with `lagged`. Of
    several waiting totals only the last is kept. With `gzip` what it gets is compressed.
    """

    __slots__ = (
        "_had",
        "_hub",
        "_joined",
        "_metrics_at",
        "_place",
        "_waiting",
        "_waiting_bytes",
        "bytes",
        "channel",
        "ending",
        "events",
        "gzip",
        "owner",
        "rank",
        "unsent",
        "wake",
    )

    def __init__(self, hub: "Hub", gzip: Gzip | None = None) -> None:
        self._hub = hub
        self.gzip = gzip
        self.channel: Channel | None = None
        self.rank: int | None = None
        """Which of its channel's followers it is; None while it does not follow."""
        self.ending: bytes | None = None
        """The stream's last frame, once the server has ended it."""
        self.owner: object = None
        """Whoever reads, so that the one who is told of a subscription finds them."""
        self.wake: Callable[[], None] | None = None
        self.unsent: Callable[[], int] = _nothing
        """How many bytes the reader has taken, or been written, that have not left the process: they are backlog."""
        self.events = 0
        self.bytes = 0
        """What it was handed, as of when it left its channel: events, and their bytes as it takes them."""
        self._place = NOWHERE
        """Where the reader goes on from when it has taken what waits: as of then, watermark included."""
        self._had = 0
        """The serial of the last tick that it was handed, or that was published before it joined its channel.

        Both are as of when it last did not follow: while it does, the channel knows better.
        """
        self._joined = (0, 0)
        self._waiting: list[Piece] | None = None
        self._waiting_bytes = 0
        self._metrics_at: int | None = None

    @property
    def waiting_bytes(self) -> int:
        """Bytes of ticks that the reader has not taken."""
        return self._waiting_bytes

    def receive(self, tick: Tick) -> None:
        """Keep one tick until it is taken; unless the reader has had it, or has left."""
        if tick.serial > self._had and self.channel is not None:
            self._had = tick.serial
            self._keep(tick)

    def give(self, tick: Tick) -> None:
        """Hand the reader something that nobody else gets, behind all that was published before."""
        self.catch_up()
        self.pause()  # it may have gone on when it was woken
        if self.channel is not None:
            self._had = tick.serial
            self.events += tick.events
            self.bytes += tick.size(gzip=self.gzip is not None)
            self._keep(tick)

    def take(self) -> bytes:
        """Everything that waits, and what is queued for the channel, joined; empty if there is nothing."""
        for tick in self._queued():
            self._had, self._place = tick.serial, tick.place
            self._append(tick)
        waiting = self._waiting
        self._forget()
        if self.gzip is None:
            return b"".join([piece.coded for piece in waiting]) if waiting else b""
        return b"".join([self.gzip.account(piece.plain, piece.coded) for piece in waiting or ()])

    def finish(self) -> bytes:
        """The last bytes of a stream that the server has ended, to be sent once, behind what waited."""
        ending = self.ending or b""
        return ending if self.gzip is None else self.gzip.finish(ending)

    def follow(self, write: Write) -> None:
        """Be written each tick from here on at once, as a chunk. Right behind `take`: nothing may go past what waits.

        Raises RuntimeError when something does wait.
        """
        if self.channel is None or self.rank is not None:
            return
        if self._waiting or self._queued():
            raise RuntimeError("what waits has to be taken first")
        self.channel.follow(self, write)
        if self.gzip is not None:
            self.gzip.follow(self.channel.sum_at(self._had))

    def pause(self) -> None:
        """Follow no longer: what comes is kept until it is taken. Called within a write, that one has been had."""
        if self.channel is None or self.rank is None:
            return
        serial, place = self.channel.unfollow(self, self.rank)
        if serial > self._had:
            self._had, self._place = serial, place
        if self.gzip is not None:
            self.gzip.settle(self.channel.sum_at(self._had))

    def catch_up(self) -> None:
        """Have what is queued for the channel now, before its turn."""
        self.pause()
        for tick in self._queued():
            self.receive(tick)

    def join(self, channel: Channel, place: str, had: int) -> None:
        """Read a channel from here on, behind the tick with the serial `had`."""
        channel.join(self)
        self.channel, self._place, self._had = channel, place, had
        self._joined = channel.handed(had)

    def leave(self) -> None:
        """Read nothing any more; what waits is still to be taken."""
        if self.channel is not None:
            self.pause()
            self.channel.leave(self)
            events, size = self.channel.handed(self._had)
            self.events += events - self._joined[0]
            self.bytes += size - self._joined[1]
            self.channel = None

    def end(self, reason: EndReason, retry_ms: int) -> None:
        """Let this be the end: what waits is still for the reader, then `stream_end`. Later calls change nothing."""
        if self.ending is None:
            self._hub.leave(self)
            self.ending = self._hub.last_frame(reason, retry_ms, self._place)
            if self.wake is not None:
                self.wake()

    def close(self) -> None:
        """Leave the channel: the reader has gone. Later calls change nothing."""
        self.gzip = None  # no sum is wanted of what nobody reads
        self._hub.leave(self)
        self._forget()
        self.owner = self.wake = None  # no cycle: the collector would find it after hours
        self.unsent = _nothing

    def _queued(self) -> list[Tick]:
        """What is queued for the channel and has not been had; of those who follow, the channel takes care."""
        if self.channel is None or self.rank is not None:
            return []
        return self.channel.queued_after(self._had)

    def _keep(self, tick: Tick) -> None:
        if self._waiting_bytes + self.unsent() > self._hub.backlog_bytes:
            self._hub.lagged(self)
            return
        self._place = tick.place
        self._append(tick)
        if self.wake is not None:
            self.wake()

    def _append(self, tick: Tick) -> None:
        if self._waiting is None:
            self._waiting = []
        if tick.metrics:
            self._drop_metrics(self._waiting)
        for piece in tick.pieces(gzip=self.gzip is not None):
            if piece.plain:
                self._waiting.append(piece)
                self._waiting_bytes += len(piece.coded)
        if tick.metrics:
            self._metrics_at = len(self._waiting) - 1

    def _drop_metrics(self, waiting: list[Piece]) -> None:
        """Take waiting totals out: newer ones come."""
        if self._metrics_at is not None:
            self._waiting_bytes -= len(waiting.pop(self._metrics_at).coded)

    def _forget(self) -> None:
        self._waiting, self._waiting_bytes, self._metrics_at = None, 0, None
