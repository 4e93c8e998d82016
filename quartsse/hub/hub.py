"""The hub: a bounded log of updates, one channel for each distinct filter, one subscription for each reader."""

import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import length_hint

from quartsse.hub.clock import Clock
from quartsse.hub.compression import NOTHING, Gzip, Sum
from quartsse.hub.events import EndReason, Event, Payload, ResumeMode, StreamEnd, event, retry_field
from quartsse.hub.filters import Filter
from quartsse.hub.ids import NOWHERE, Place, new_instance
from quartsse.hub.log import Entry, Log
from quartsse.hub.tick import Origin, Piece, Tick

SLICE = 500
"""Readers that one step of a fan-out writes to: 18,000 take half a second, and nothing else should wait for that."""


def _nothing() -> int:
    return 0


class Subscription:
    """One reader's place in a channel: the ticks that it has not taken yet.

    Bounded: a tick that comes while more than `backlog_bytes` of earlier ones are unsent ends it with `lagged`. Of
    several waiting totals only the last is kept. A reader either takes what waits, woken by `wake`, or sets `write`
    and gets each tick handed at once for as long as that answers True. With `gzip` what it takes is compressed.
    """

    __slots__ = (
        "_hub",
        "_joined",
        "_metrics_at",
        "_waiting",
        "_waiting_bytes",
        "bytes",
        "channel",
        "ending",
        "events",
        "gzip",
        "had",
        "owner",
        "place",
        "unsent",
        "wake",
        "write",
    )

    def __init__(self, hub: "Hub", gzip: Gzip | None = None) -> None:
        self._hub = hub
        self.gzip = gzip
        self.channel: Channel | None = None
        self.place = NOWHERE
        """Where the reader goes on from when it has taken what waits: as of then, watermark included."""
        self.had = 0
        """The serial of the last tick that it was handed, or that was published before it joined its channel."""
        self.ending: bytes | None = None
        """The stream's last frame, once the server has ended it."""
        self.owner: object = None
        """Whoever reads, so that the one who is told of a subscription finds them."""
        self.wake: Callable[[], None] | None = None
        self.write: Callable[[Tick], bool] | None = None
        self.unsent: Callable[[], int] = _nothing
        """How many bytes the reader has taken, or been written, that have not left the process: they are backlog."""
        self.events = 0
        self.bytes = 0
        """What it was handed, as of when it left its channel: events, and their bytes as it takes them."""
        self._joined = (0, 0)
        self._waiting: list[Piece] | None = None
        self._waiting_bytes = 0
        self._metrics_at: int | None = None

    @property
    def waiting_bytes(self) -> int:
        """Bytes of ticks that the reader has not taken."""
        return self._waiting_bytes

    def receive(self, tick: Tick) -> None:
        """Hand one tick to the reader, or keep it until it is taken; unless the reader has had it, or has left."""
        if tick.serial <= self.had or self.channel is None:
            return
        before, self.had = self.had, tick.serial
        if self._waiting is None and self.write is not None:
            if self.write(tick):
                self.place = tick.place
                return
            self._unfollow(before)
        self._keep(tick)

    def give(self, tick: Tick) -> None:
        """Hand the reader something that nobody else gets."""
        if self.channel is None:
            return
        self._unfollow(self.had)
        self.had = tick.serial
        self.events += tick.events
        self.bytes += tick.size(gzip=self.gzip is not None)
        self._keep(tick)

    def take(self) -> bytes:
        """Everything that waits, joined; empty if nothing does."""
        waiting = self._waiting
        self._forget()
        if self.gzip is None:
            return b"".join([piece.coded for piece in waiting]) if waiting else b""
        data = b"".join([self.gzip.account(piece.plain, piece.coded) for piece in waiting or ()])
        self._follow()
        return data

    def finish(self) -> bytes:
        """The last bytes of a stream that the server has ended, to be sent once, behind what waited."""
        ending = self.ending or b""
        return ending if self.gzip is None else self.gzip.finish(ending)

    def join(self, channel: "Channel", place: str, had: int) -> None:
        """Read a channel from here on, behind the tick with the serial `had`."""
        channel.add_reader(self, gzip=self.gzip is not None)
        channel.summed = channel.summed or self.gzip is not None
        self.channel, self.place, self.had = channel, place, had
        self._joined = channel.handed(had, gzip=self.gzip is not None)
        self._follow()

    def leave(self) -> None:
        """Read nothing any more; what waits is still to be taken."""
        if self.channel is not None:
            self._unfollow(self.had)
            gzip = self.channel.remove_reader(self)
            handed = self.channel.handed(self.had, gzip=gzip)
            self.events += handed[0] - self._joined[0]
            self.bytes += handed[1] - self._joined[1]
            self.channel = None

    def end(self, reason: EndReason, retry_ms: int) -> None:
        """Let this be the end: what waits is still for the reader, then `stream_end`. Later calls change nothing."""
        if self.ending is None:
            self._hub.leave(self)
            self.ending = self._hub.last_frame(reason, retry_ms, self.place)
            if self.wake is not None:
                self.wake()

    def close(self) -> None:
        """Leave the channel: the reader has gone. Later calls change nothing."""
        self.gzip = None  # no sum is wanted of what nobody reads
        self._hub.leave(self)
        self._forget()
        self.owner = self.wake = self.write = None  # no cycle: the collector would find it after hours
        self.unsent = _nothing

    def _keep(self, tick: Tick) -> None:
        if self._waiting_bytes + self.unsent() > self._hub.backlog_bytes:
            self._hub.lagged(self)
            return
        self.place = tick.place
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

    def _follow(self) -> None:
        """From here on the reader is written what its channel gets, and nothing else: the channel sums it up."""
        if self.gzip is not None and self.channel is not None and self._waiting is None and self.write is not None:
            self.gzip.follow(self.channel.sum_at(self.had))

    def _unfollow(self, had: int) -> None:
        """That is over; the last tick it was written is the one with this serial."""
        if self.gzip is not None and self.channel is not None:
            self.gzip.settle(self.channel.sum_at(had))

    def _forget(self) -> None:
        self._waiting, self._waiting_bytes, self._metrics_at = None, 0, None


class Channel:
    """One filter's view of what is published, the readers who share it, and the ticks still to be handed to them."""

    __slots__ = (
        "_events",
        "_gzip_bytes",
        "_gzips",
        "_plain_bytes",
        "_rest",
        "_sum",
        "_sums",
        "_tell",
        "filter",
        "queue",
        "subscriptions",
        "summed",
        "written_at",
    )

    def __init__(self, wanted: Filter, now: float, tell: Callable[[Tick, int, int], None]) -> None:
        self.filter = wanted
        self.subscriptions: dict[Subscription, bool] = {}
        """Its readers, and whether they take gzip."""
        self.queue: deque[Tick] = deque()
        self.written_at = now
        """When its readers last got bytes, on the monotonic clock."""
        self.summed = False
        """Whether what it gets is summed up: as soon as a reader who takes gzip has joined."""
        self._sum = NOTHING
        self._sums: deque[Sum] = deque()
        """For each tick in the queue, the sum of those before it."""
        self._tell = tell
        self._gzips = 0
        self._events = self._plain_bytes = self._gzip_bytes = 0
        """What has been delivered to each reader since it was made: counted by the tick, never by the reader."""
        self._rest: Iterator[Subscription] | None = None
        """Who has not had the first tick, where a slice ended in the middle of it."""

    def add(self, tick: Tick, now: float) -> None:
        """Queue a tick for everyone who reads now."""
        self.written_at = now
        self.queue.append(tick)
        self._sums.append(self._sum)
        if self.summed:
            self._sum = self._sum.plus(tick.data)

    def sum_at(self, serial: int) -> Sum:
        """The sum of all ticks up to one; only differences between two points mean anything."""
        later = (before for tick, before in zip(self.queue, self._sums, strict=True) if tick.serial > serial)
        return next(later, self._sum)

    def add_reader(self, reader: Subscription, *, gzip: bool) -> None:
        """Let someone read."""
        self.subscriptions[reader] = gzip
        self._gzips += gzip

    def remove_reader(self, reader: Subscription) -> bool:
        """Let someone read no longer; whether they took gzip."""
        gzip = self.subscriptions.pop(reader)
        self._gzips -= gzip
        return gzip

    def handed(self, serial: int, *, gzip: bool) -> tuple[int, int]:
        """Events and bytes of all ticks up to one; only differences between two points mean anything."""
        events, size = self._events, self._gzip_bytes if gzip else self._plain_bytes
        for tick in self.queue:
            if tick.serial <= serial:
                events, size = events + tick.events, size + tick.size(gzip=gzip)
        return events, size

    def deliver(self, limit: int) -> int:
        """Hand waiting ticks to at most `limit` readers, in order; how many were reached."""
        done = 0
        while self.queue and done < limit:
            if self._rest is None and len(self.subscriptions) <= limit - done:
                done += self._deliver_to_all()
            else:
                done += self._deliver_to_some(limit - done)
        return done

    def _deliver_to_all(self) -> int:
        """Hand the first tick to everyone. If one of them raises, it is tried again; who has had it passes it over."""
        tick, readers = self.queue[0], list(self.subscriptions)
        for reader in readers:
            reader.receive(tick)
        self._delivered()
        return len(readers)

    def _deliver_to_some(self, limit: int) -> int:
        """Begin or go on with the first tick; who has joined since it passes it over."""
        if self._rest is None:
            self._rest = iter(list(self.subscriptions))
        tick, before = self.queue[0], length_hint(self._rest)
        for reader in islice(self._rest, limit):
            reader.receive(tick)
        left = length_hint(self._rest)
        if not left:
            self._delivered()
            self._rest = None
        return before - left

    def _delivered(self) -> None:
        """Everyone has the first tick: written to their transport or, where that takes no more, in their backlog."""
        tick = self.queue.popleft()
        self._sums.popleft()
        plain, coded = tick.size(gzip=False), tick.size(gzip=True) if self._gzips else 0
        self._events += tick.events
        self._plain_bytes += plain
        self._gzip_bytes += coded
        readers = len(self.subscriptions)
        self._tell(tick, readers, (readers - self._gzips) * plain + self._gzips * coded)


@dataclass(frozen=True, slots=True)
class Replay:
    """How a reader goes on: the mode, and the frames that it missed."""

    mode: ResumeMode
    frames: list[bytes]


class Hub:
    """Where events are published and readers subscribe.

    `log_events` bounds what a resume can be read from; `resume_margin` (seconds) is how far before another
    instance's watermark a replay starts, for the index's lag and clocks that differ; `backlog_bytes` bounds what may
    wait for one reader; one that lags comes back after `retry_ms` at most, and half of it at least. `schedule` calls a
    function soon, after other work of the process has had its turn; without it, what is published is delivered at
    once.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        instance: str | None = None,
        log_events: int = 10_000,
        resume_margin: float = 5.0,
        backlog_bytes: int = 262_144,
        retry_ms: int = 3000,
        schedule: Callable[[Callable[[], None]], object] | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self.instance = instance or new_instance()
        self.backlog_bytes = backlog_bytes
        self.on_lagged: Callable[[Subscription], None] | None = None
        self.on_delivered: Callable[[int, int, Iterable[Origin]], None] | None = None
        """Told after each slice: how many events its readers were handed, their bytes, and where updates came from."""
        self._clock = clock or Clock()
        self._log = Log(log_events)
        self._margin = resume_margin
        self._retry_ms = retry_ms
        self._chance = chance or random.Random()  # noqa: S311 - jitter
        self._events = 0
        self._ticks = 0
        self._watermark = 0.0
        self._complete_since: float | None = None
        self._channels: dict[Filter, Channel] = {}
        self._by_ticker: dict[str, dict[Channel, None]] = {}
        self._unfiltered: dict[Channel, None] = {}
        self._ready: deque[Channel] = deque()
        self._handed_events = self._handed_bytes = 0
        self._origins: dict[Origin, None] = {}
        self._schedule = schedule
        self._pumping = False

    @property
    def place(self) -> Place:
        """The current place: a reader who has everything up to here goes on from it."""
        return Place(self.instance, self._log.number, self._watermark)

    @property
    def subscriptions(self) -> list[Subscription]:
        """Everyone who reads, as a copy that may be walked while readers come and go."""
        return [subscription for channel in self._channels.values() for subscription in channel.subscriptions]

    def event(self, name: str, payload: Payload) -> Event:
        """An event that is not about an item, with an identity that no other event of this instance has."""
        self._events += 1
        return event(name, f"{name[0]}{self._events}", payload)

    def publish(self, updates: Sequence[Event], metrics: Event | None = None, origin: Origin | None = None) -> None:
        """Append one tick's updates to the log, and queue them, with the totals after them, for the readers they match.

        Never waits: a reader that cannot keep up falls behind in its channel and is ended there.
        """
        frames: defaultdict[Channel, list[bytes]] = defaultdict(list)
        for update in updates:
            frame = self._append(update)
            for channel in self._channels_of(update.ticker):
                frames[channel].append(frame)
        totals = metrics.frame(str(self.place)) if metrics is not None else b""
        self._enqueue_each(frames, totals, origin if updates else None)
        self._pump_soon()

    def advance(self, watermark: float) -> None:
        """Say that all that was visible at `watermark` (Unix seconds) has been published.

        The first call tells that the window is complete, and so from when on the log can stand for another's. A lower
        one than before is believed: the wall clock was ahead and has been set right.
        """
        self._watermark = watermark
        if self._complete_since is None:
            self._complete_since = self._clock.monotonic()

    def broadcast(self, one: Event) -> None:
        """Send an event that is not logged to every reader, with the current place: a heartbeat."""
        self._enqueue_all(self._channels.values(), self._tick(one.frame(str(self.place))))

    def keep_alive(self, comment: bytes, quiet_for: float) -> None:
        """Send a comment to the channels that had nothing for so many seconds."""
        before = self._clock.monotonic() - quiet_for
        quiet = [channel for channel in self._channels.values() if channel.written_at <= before]
        if quiet:
            self._enqueue_all(quiet, self._tick(comment))

    def subscribe(
        self, wanted: Filter, after: Place | None = None, gzip: Gzip | None = None
    ) -> tuple[Subscription, Replay]:
        """Join the channel of a filter at the end of what has been published, with what was missed since `after`.

        Read the current state in the same step of the loop: then nothing falls between it and the first tick.
        """
        subscription = Subscription(self, gzip)
        subscription.join(self._channel(wanted), str(self.place), had=self._ticks)
        return subscription, self.replay(wanted, after)

    def refilter(self, subscription: Subscription, wanted: Filter) -> None:
        """Move a reader to another filter: what was published before passes the old one, all later the new one.

        Until it is sent something, its place leads to a new opening: it does not know what the new filter lets through.
        """
        if subscription.channel is None or subscription.channel.filter == wanted:
            return
        self._catch_up(subscription)
        if subscription.channel is not None:  # catching up may have ended it
            self.leave(subscription)
            subscription.join(self._channel(wanted), NOWHERE, had=self._ticks)

    def send(self, subscription: Subscription, data: bytes) -> None:
        """Give one reader something of its own, behind everything that was published before."""
        self._catch_up(subscription)
        subscription.give(self._tick(data))

    def leave(self, subscription: Subscription) -> None:
        """Take a reader out of its channel; an empty channel is gone with it."""
        channel = subscription.channel
        subscription.leave()
        if channel is not None and not channel.subscriptions:
            self._remove(channel)

    def lagged(self, subscription: Subscription) -> None:
        """End a reader that has more waiting than it may; it comes back and resumes from the log."""
        subscription.end("lagged", int(self._retry_ms * self._chance.uniform(0.5, 1.0)))
        if self.on_lagged is not None:
            self.on_lagged(subscription)

    def last_frame(self, reason: EndReason, retry_ms: int, place: str) -> bytes:
        """The `stream_end` of a reader who goes on from `place`."""
        ending = self.event("stream_end", StreamEnd(reason=reason, retry_ms=retry_ms))
        return retry_field(retry_ms) + ending.frame(place)

    def replay(self, wanted: Filter, after: Place | None) -> Replay:
        """What a reader who comes back from `after` missed, as well as this instance can tell."""
        mode: ResumeMode = "exact" if after is not None and after.instance == self.instance else "overlap"
        missed = self._missed_since(after) if after is not None else None
        if missed is None:
            return Replay("snapshot", [])
        return Replay(mode, [entry.frame for entry in missed if wanted.matches(entry.ticker)])

    def _missed_since(self, after: Place) -> Iterator[Entry] | None:
        """What was published since a place, or more; None if not all of it can be told."""
        if after.instance == self.instance:
            return self._log.after(after.number)
        # What had been visible there at the watermark can have been published here earlier by the index's lag, but
        # not before. The age is taken on the wall clock, which the instances share, and counted back on the other.
        age = self._clock.wall() - (after.watermark - self._margin)
        since = self._clock.monotonic() - age
        if age < 0 or self._complete_since is None or since < self._complete_since:
            return None
        return self._log.since(since)

    def _append(self, update: Event) -> bytes:
        frame = update.frame(str(Place(self.instance, self._log.number + 1, self._watermark)))
        self._log.append(Entry(self._clock.monotonic(), update.ticker, frame))
        return frame

    def _channels_of(self, ticker: str | None) -> Iterable[Channel]:
        if ticker is None:
            return self._channels.values()
        return (*self._by_ticker.get(ticker, ()), *self._unfiltered)

    def _channel(self, wanted: Filter) -> Channel:
        channel = self._channels.get(wanted)
        if channel is None:
            channel = self._channels[wanted] = Channel(wanted, self._clock.monotonic(), self._delivered)
            if wanted.tickers is None:
                self._unfiltered[channel] = None
            for ticker in wanted.tickers or ():
                self._by_ticker.setdefault(ticker, {})[channel] = None
        return channel

    def _remove(self, channel: Channel) -> None:
        del self._channels[channel.filter]
        self._unfiltered.pop(channel, None)
        for ticker in channel.filter.tickers or ():
            sharing = self._by_ticker[ticker]
            del sharing[channel]
            if not sharing:
                del self._by_ticker[ticker]

    def _tick(self, data: bytes) -> Tick:
        self._ticks += 1
        return Tick(data, b"", str(self.place), self._ticks, data.count(b"\nevent: "))

    def _enqueue_each(self, frames: dict[Channel, list[bytes]], totals: bytes, origin: Origin | None) -> None:
        """Queue for each channel its own frames, and the totals; channels that get the same share one tick."""
        now, place = self._clock.monotonic(), str(self.place)
        self._ticks += 1
        ticks: dict[tuple[bytes, ...], Tick] = {}
        for channel in self._channels.values() if totals else frames:
            metrics, own = totals if channel.filter.metrics else b"", frames.get(channel, ())
            if not own and not metrics:
                continue
            parts = (metrics, *own)
            tick = ticks.get(parts)
            if tick is None:
                tick = ticks[parts] = Tick(
                    b"".join(own), metrics, place, self._ticks, len(own) + bool(metrics), origin if own else None
                )
            self._enqueue(channel, tick, now)

    def _enqueue_all(self, channels: Iterable[Channel], tick: Tick) -> None:
        now = self._clock.monotonic()
        for channel in channels:
            self._enqueue(channel, tick, now)
        self._pump_soon()

    def _enqueue(self, channel: Channel, tick: Tick, now: float) -> None:
        if not channel.queue:
            self._ready.append(channel)
        channel.add(tick, now)

    def _delivered(self, tick: Tick, readers: int, size: int) -> None:
        """Note it until the slice is over: a call for each of many small channels would cost what they do."""
        self._handed_events += readers * tick.events
        self._handed_bytes += size
        if tick.origin is not None:
            self._origins[tick.origin] = None

    def _tell_delivered(self) -> None:
        events, size, origins = self._handed_events, self._handed_bytes, self._origins
        if not events:
            return
        self._handed_events, self._handed_bytes, self._origins = 0, 0, {}
        if self.on_delivered is not None:
            self.on_delivered(events, size, origins)

    def _catch_up(self, subscription: Subscription) -> None:
        """Hand one reader all that is queued for its channel, before its turn."""
        if subscription.channel is not None:
            for tick in tuple(subscription.channel.queue):
                subscription.receive(tick)

    def _pump_soon(self) -> None:
        if self._ready and not self._pumping:
            self._pumping = True
            if self._schedule is None:
                self._pump()
            else:
                self._schedule(self._pump)

    def _pump(self) -> None:
        """One slice of the fan-out, or all of it if nobody schedules the next one."""
        try:
            self._deliver_slice()
            while self._ready and self._schedule is None:
                self._deliver_slice()
        finally:  # whoever raises is reported by the loop, and must not silence the others for good
            self._pumping = False
            self._pump_soon()

    def _deliver_slice(self) -> None:
        """Reach so many readers. Channels take turns, so that a large one does not hold up a small one."""
        left = SLICE
        while self._ready and left > 0:
            channel = self._ready[0]
            left -= channel.deliver(left)
            self._ready.popleft()
            if channel.queue:
                self._ready.append(channel)
        self._tell_delivered()


def spread(index: int, count: int, seconds: float, chance: random.Random) -> int:
    """The wait in milliseconds of one of `count` readers that end at once: spread over `seconds`, with jitter."""
    return 1 + int(1000 * seconds * (index + chance.random()) / max(count, 1))
