"""The hub: a bounded log of updates, one channel for each distinct filter, one subscription for each reader."""

import random
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from quartsse.hub.clock import Clock
from quartsse.hub.events import EndReason, Event, Payload, ResumeMode, StreamEnd, event, retry_field
from quartsse.hub.filters import Filter
from quartsse.hub.ids import Place, new_instance

SLICE = 500
"""Readers that one step of a fan-out writes to: 18,000 take half a second, and nothing else should wait for that."""


@dataclass(slots=True)
class Tick:
    """What one channel got at once: updates, joined, and perhaps the totals after them. Shared by all its readers."""

    updates: bytes
    metrics: bytes
    place: str
    """Where a reader who has had it goes on from."""
    _chunk: bytes | None = None

    @property
    def data(self) -> bytes:
        """The bytes of the stream."""
        return self.updates + self.metrics if self.metrics else self.updates

    @property
    def chunk(self) -> bytes:
        """The same as one chunk of HTTP/1.1's chunked coding (RFC 9112, section 7.1), made once for all readers."""
        if self._chunk is None:
            self._chunk = chunk(self.data)
        return self._chunk


def chunk(data: bytes) -> bytes:
    """Bytes in HTTP/1.1's chunked coding; there is no state between chunks, so anyone may send them."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Subscription:
    """One reader's place in a channel: the ticks that it has not taken yet.

    Bounded: a tick that comes while more than `backlog` bytes of earlier ones wait ends it with `lagged`. Of several
    waiting totals only the last is kept. A reader either takes what waits, woken by `wake`, or sets `write` and gets
    each tick handed at once for as long as that answers True.
    """

    __slots__ = ("_hub", "_waiting", "_waiting_bytes", "channel", "ending", "owner", "place", "wake", "write")

    def __init__(self, hub: "Hub", channel: "Channel", place: str) -> None:
        self._hub = hub
        self.channel: Channel | None = channel
        self.place = place
        """Where the reader goes on from when it has taken what waits: as of then, watermark included."""
        self.ending: bytes | None = None
        """The stream's last frame, once the server has ended it."""
        self.owner: object = None
        """Whoever reads, so that the one who is told of a subscription finds them."""
        self.wake: Callable[[], None] | None = None
        self.write: Callable[[Tick], bool] | None = None
        self._waiting: deque[Tick] | None = None
        self._waiting_bytes = 0

    @property
    def waiting_bytes(self) -> int:
        """Bytes of ticks that the reader has not taken."""
        return self._waiting_bytes

    def receive(self, tick: Tick) -> None:
        """Hand one tick to the reader, or keep it until it is taken."""
        if self.channel is None:
            return
        if self._waiting is None and self.write is not None and self.write(tick):
            self.place = tick.place
            return
        if self._waiting_bytes > self._hub.backlog_bytes:
            self._hub.lagged(self)
            return
        self.place = tick.place
        self._keep(tick)
        if self.wake is not None:
            self.wake()

    def take(self) -> bytes:
        """Everything that waits, joined; empty if nothing does."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, None, 0
        return b"".join(tick.data for tick in waiting) if waiting else b""

    def end(self, reason: EndReason, retry_ms: int) -> None:
        """Let this be the end: what waits is still for the reader, then `stream_end`. Later calls change nothing."""
        if self.ending is None:
            self._hub.leave(self)
            self.ending = self._hub.last_frame(reason, retry_ms, self.place)
            if self.wake is not None:
                self.wake()

    def close(self) -> None:
        """Leave the channel: the reader has gone. Later calls change nothing."""
        self._hub.leave(self)
        self._waiting, self._waiting_bytes, self.wake, self.write = None, 0, None, None

    def _keep(self, tick: Tick) -> None:
        if self._waiting is None:
            self._waiting = deque()
        if tick.metrics:
            for index, earlier in enumerate(self._waiting):
                if earlier.metrics:
                    self._waiting[index] = Tick(earlier.updates, b"", earlier.place)
                    self._waiting_bytes -= len(earlier.metrics)
        self._waiting.append(tick)
        self._waiting_bytes += len(tick.updates) + len(tick.metrics)


class Channel:
    """One filter's view of the log, and the readers who share it."""

    __slots__ = ("_ready", "filter", "queue", "subscriptions", "written_at")

    def __init__(self, wanted: Filter) -> None:
        self.filter = wanted
        self.subscriptions: dict[Subscription, None] = {}
        self.queue: deque[tuple[Tick, deque[Subscription]]] = deque()
        self.written_at = 0.0
        """When its readers last got bytes, on the monotonic clock."""

    def deliver(self, limit: int) -> int:
        """Hand waiting ticks to at most `limit` readers, in order; how many were reached."""
        done = 0
        while self.queue and done < limit:
            tick, readers = self.queue[0]
            while readers and done < limit:
                readers.popleft().receive(tick)
                done += 1
            if not readers:
                self.queue.popleft()
        return done


@dataclass(frozen=True, slots=True)
class Entry:
    """An update in the log: when it was published here (monotonic seconds), for whom it may be, and its frame."""

    arrived: float
    ticker: str | None
    frame: bytes


@dataclass(frozen=True, slots=True)
class Replay:
    """How a reader goes on: the mode, and the frames that it missed."""

    mode: ResumeMode
    frames: list[bytes]


class Hub:
    """Where events are published and readers subscribe.

    `log_events` bounds what a resume can be read from; `resume_margin` (seconds) is how far before another
    instance's watermark a replay starts, for the index's lag and clocks that differ; `backlog_bytes` bounds what may
    wait for one reader. `schedule` calls a function soon, after other work of the process has had its turn; the
    default calls it at once.
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
        schedule: Callable[[Callable[[], None]], object] = lambda call: call(),
    ) -> None:
        self.instance = instance or new_instance()
        self.backlog_bytes = backlog_bytes
        self.on_lagged: Callable[[Subscription], None] | None = None
        self._clock = clock or Clock()
        self._log: deque[Entry] = deque()
        self._log_events = log_events
        self._margin = resume_margin
        self._retry_ms = retry_ms
        self._number = 0
        self._serial = 0
        self._watermark = 0.0
        self._complete_since: float | None = None
        self._forgotten_at = float("-inf")
        self._channels: dict[Filter, Channel] = {}
        self._by_ticker: dict[str, set[Channel]] = {}
        self._unfiltered: set[Channel] = set()
        self._ready: deque[Channel] = deque()
        self._schedule = schedule
        self._pumping = False

    @property
    def place(self) -> Place:
        """The current place: a reader who has everything up to here goes on from it."""
        return Place(self.instance, self._number, self._watermark)

    @property
    def subscriptions(self) -> list[Subscription]:
        """Everyone who reads, as a copy that may be walked while readers come and go."""
        return [subscription for channel in self._channels.values() for subscription in channel.subscriptions]

    def event(self, name: str, payload: Payload) -> Event:
        """An event that is not about an item, with an identity that no other event of this instance has."""
        self._serial += 1
        return event(name, f"{name[0]}{self._serial}", payload)

    def publish(self, events: Sequence[Event], metrics: Event | None = None) -> None:
        """Append one tick's updates to the log, and queue them, with the totals after them, for the readers they match.

        Never waits: a reader that cannot keep up falls behind in its channel and is ended there.
        """
        frames: dict[Channel, list[bytes]] = {}
        for update in events:
            frame = self._append(update)
            for channel in self._channels_of(update.ticker):
                frames.setdefault(channel, []).append(frame)
        place = str(self.place)
        totals = metrics.frame(place) if metrics is not None else b""
        for channel in self._channels.values() if totals else list(frames):
            mine = totals if channel.filter.metrics else b""
            if mine or channel in frames:
                self._enqueue(channel, Tick(b"".join(frames.get(channel, ())), mine, place))
        self._pump_soon()

    def advance(self, watermark: float) -> None:
        """Say that all that was visible at `watermark` (Unix seconds) has been published. It never goes back.

        The first call tells that the window is complete, and so from when on the log can stand for another's.
        """
        self._watermark = max(self._watermark, watermark)
        if self._complete_since is None:
            self._complete_since = self._clock.monotonic()

    def broadcast(self, one: Event) -> None:
        """Send an event that is not logged to every reader, with the current place: a heartbeat."""
        place = str(self.place)
        self._to_all(Tick(one.frame(place), b"", place), self._channels.values())

    def keep_alive(self, comment: bytes, quiet_for: float) -> None:
        """Send a comment to the channels that had nothing for so many seconds."""
        before = self._clock.monotonic() - quiet_for
        quiet = [channel for channel in self._channels.values() if channel.written_at <= before]
        self._to_all(Tick(comment, b"", str(self.place)), quiet)

    def subscribe(self, wanted: Filter, after: Place | None = None) -> tuple[Subscription, Replay]:
        """Join the channel of a filter at the end of what has been published, with what was missed since `after`.

        Read the current state in the same step of the loop: then nothing falls between it and the first tick.
        """
        replay = self.replay(wanted, after)
        channel = self._channel(wanted)
        subscription = Subscription(self, channel, str(self.place))
        channel.subscriptions[subscription] = None
        return subscription, replay

    def refilter(self, subscription: Subscription, wanted: Filter) -> None:
        """Move a reader to another filter: what was published before passes the old one, all later the new one."""
        if subscription.channel is None or subscription.channel.filter == wanted:
            return
        self._catch_up(subscription.channel)
        if subscription.channel is not None:  # catching up may have ended it
            self.leave(subscription)
            subscription.channel = self._channel(wanted)
            subscription.channel.subscriptions[subscription] = None

    def send(self, subscription: Subscription, data: bytes) -> None:
        """Give one reader something of its own, behind everything that was published before."""
        if subscription.channel is not None:
            self._catch_up(subscription.channel)
            subscription.receive(Tick(data, b"", str(self.place)))

    def leave(self, subscription: Subscription) -> None:
        """Take a reader out of its channel; an empty channel is gone with it."""
        channel, subscription.channel = subscription.channel, None
        if channel is None:
            return
        channel.subscriptions.pop(subscription, None)
        if not channel.subscriptions:
            self._remove(channel)

    def lagged(self, subscription: Subscription) -> None:
        """End a reader that has more waiting than it may; it comes back and resumes from the log."""
        subscription.end("lagged", self._retry_ms)
        if self.on_lagged is not None:
            self.on_lagged(subscription)

    def last_frame(self, reason: EndReason, retry_ms: int, place: str) -> bytes:
        """The `stream_end` of a reader who goes on from `place`."""
        ending = self.event("stream_end", StreamEnd(reason=reason, retry_ms=retry_ms))
        return retry_field(retry_ms) + ending.frame(place)

    def replay(self, wanted: Filter, after: Place | None) -> Replay:
        """What a reader who comes back from `after` missed, as well as this instance can tell."""
        start = self._start_of(after)
        if start is None or after is None:
            return Replay("snapshot", [])
        mode: ResumeMode = "exact" if after.instance == self.instance else "overlap"
        missed = islice(self._log, start, None)
        return Replay(mode, [entry.frame for entry in missed if wanted.matches(entry.ticker)])

    def _start_of(self, after: Place | None) -> int | None:
        """The index in the log of the first entry after a place; None if the log does not reach back to it."""
        if after is None:
            return None
        if after.instance == self.instance:
            start = after.number - (self._number - len(self._log))
            return start if 0 <= start <= len(self._log) else None
        age = self._clock.wall() - (after.watermark - self._margin)
        since = self._clock.monotonic() - age
        if age < 0 or self._complete_since is None or since < self._complete_since or since <= self._forgotten_at:
            return None
        return bisect_left(self._log, since, key=lambda entry: entry.arrived)

    def _append(self, update: Event) -> bytes:
        self._number += 1
        frame = update.frame(str(self.place))
        self._log.append(Entry(self._clock.monotonic(), update.ticker, frame))
        if len(self._log) > self._log_events:
            self._forgotten_at = self._log.popleft().arrived
        return frame

    def _channels_of(self, ticker: str | None) -> Sequence[Channel]:
        if ticker is None:
            return list(self._channels.values())
        return [*self._by_ticker.get(ticker, ()), *self._unfiltered]

    def _channel(self, wanted: Filter) -> Channel:
        channel = self._channels.get(wanted)
        if channel is None:
            channel = self._channels[wanted] = Channel(wanted)
            channel.written_at = self._clock.monotonic()
            if wanted.tickers is None:
                self._unfiltered.add(channel)
            for ticker in wanted.tickers or ():
                self._by_ticker.setdefault(ticker, set()).add(channel)
        return channel

    def _remove(self, channel: Channel) -> None:
        del self._channels[channel.filter]
        self._unfiltered.discard(channel)
        for ticker in channel.filter.tickers or ():
            sharing = self._by_ticker[ticker]
            sharing.discard(channel)
            if not sharing:
                del self._by_ticker[ticker]

    def _to_all(self, tick: Tick, channels: Iterable[Channel]) -> None:
        for channel in channels:
            self._enqueue(channel, tick)
        self._pump_soon()

    def _enqueue(self, channel: Channel, tick: Tick) -> None:
        channel.written_at = self._clock.monotonic()
        if not channel.queue:
            self._ready.append(channel)
        channel.queue.append((tick, deque(channel.subscriptions)))

    def _catch_up(self, channel: Channel) -> None:
        """Hand a channel's readers all that is queued for them, now."""
        while channel.queue:
            channel.deliver(SLICE)

    def _pump_soon(self) -> None:
        if self._ready and not self._pumping:
            self._pumping = True
            self._schedule(self._pump)

    def _pump(self) -> None:
        """One slice of the fan-out: channels take turns, so that a large one does not hold up a small one."""
        left = SLICE
        while self._ready and left > 0:
            channel = self._ready.popleft()
            left -= channel.deliver(left)
            if channel.queue:
                self._ready.append(channel)
        if self._ready:
            self._schedule(self._pump)
        else:
            self._pumping = False


def spread(index: int, count: int, seconds: float, chance: random.Random) -> int:
    """The wait in milliseconds of one of `count` readers that end at once: spread over `seconds`, with jitter."""
    return 1 + int(1000 * seconds * (index + chance.random()) / max(count, 1))
