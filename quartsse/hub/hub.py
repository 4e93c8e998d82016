"""The hub: a bounded log of updates, a channel for each distinct filter and coding, a subscription for each reader."""

import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from quartsse.hub.channel import Channel
from quartsse.hub.clock import Clock
from quartsse.hub.compression import Gzip
from quartsse.hub.events import EndReason, Event, Payload, ResumeMode, StreamEnd, event, retry_field
from quartsse.hub.filters import Filter
from quartsse.hub.ids import NOWHERE, Place, new_instance
from quartsse.hub.log import Entry, Log
from quartsse.hub.subscription import Subscription
from quartsse.hub.tick import Origin, Tick

SLICE = 100
"""Readers that one step of a fan-out writes to, in about a millisecond: whatever else there is to do waits for one of
these in each of its own steps, and a connect takes a dozen."""


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
        self._channels: dict[tuple[Filter, bool], Channel] = {}
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
        return [subscription for channel in self._channels.values() for subscription in channel.readers()]

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
        subscription.join(self._channel(wanted, gzip=gzip is not None), str(self.place), had=self._ticks)
        return subscription, self.replay(wanted, after)

    def refilter(self, subscription: Subscription, wanted: Filter) -> None:
        """Move a reader to another filter: what was published before passes the old one, all later the new one.

        Until it is sent something, its place leads to a new opening: it does not know what the new filter lets through.
        """
        if subscription.channel is None or subscription.channel.filter == wanted:
            return
        subscription.catch_up()
        if subscription.channel is not None:  # catching up may have ended it
            gzip = subscription.channel.gzip
            self.leave(subscription)
            subscription.join(self._channel(wanted, gzip=gzip), NOWHERE, had=self._ticks)

    def send(self, subscription: Subscription, data: bytes) -> None:
        """Give one reader something of its own, behind everything that was published before."""
        subscription.give(self._tick(data))

    def leave(self, subscription: Subscription) -> None:
        """Take a reader out of its channel; an empty channel is gone with it."""
        channel = subscription.channel
        subscription.leave()
        if channel is not None and channel.empty:
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

    def _channel(self, wanted: Filter, *, gzip: bool) -> Channel:
        channel = self._channels.get((wanted, gzip))
        if channel is None:
            channel = Channel(wanted, self._clock.monotonic(), self._delivered, gzip=gzip)
            self._channels[wanted, gzip] = channel
            if wanted.tickers is None:
                self._unfiltered[channel] = None
            for ticker in wanted.tickers or ():
                self._by_ticker.setdefault(ticker, {})[channel] = None
        return channel

    def _remove(self, channel: Channel) -> None:
        del self._channels[channel.filter, channel.gzip]
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
