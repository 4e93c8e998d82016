"""The poller: the one task that moves changes from the source, through the window, to the hub."""

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import batched
from statistics import quantiles

from quartsse.errors import SourceError
from quartsse.feed.bell import Bell
from quartsse.feed.dynamodb import throttled
from quartsse.feed.items import Item
from quartsse.feed.source import FOREVER, Batch, Source
from quartsse.feed.window import Changes, Window
from quartsse.hub.clock import Clock
from quartsse.hub.events import Event, FeedState, Metrics
from quartsse.hub.hub import Hub
from quartsse.hub.tick import Origin
from quartsse.telemetry.metrics import Telemetry
from quartsse.telemetry.tracing import Tracer

logger = logging.getLogger(__name__)

CHUNK = 500
"""Items that are taken in at one step of the loop."""

LONGEST_BACKOFF = 10.0
LEAST_STALE = 5.0
MINUTE = 60.0
SLOW_SWEEP = 5.0
"""Seconds: what may lie between the table and the event. A sweep that takes longer is said."""

SLOW_SWEEP_ADVICE = "late items come up to a sweep later: raise SSE_READ_BUDGET, or set SSE_SOURCE=streams"


@dataclass(frozen=True, slots=True)
class FeedStatus:
    """How the feed is. Times in seconds; None where there is nothing to tell yet.

    `sweep_seconds`: how long the last complete coverage of the window took, which is how late a late item may come;
    `hot_seconds`: how far back from now every read reaches; `lateness_seconds`: from the timestamp of a new item to
    when it was first seen; `reason`: what the last failed read said; `advice`: what would make the feed faster.
    """

    state: FeedState
    age_seconds: float | None
    items: int
    sweep_seconds: float | None
    read_units_per_minute: float
    lateness_seconds: dict[str, float] | None
    hot_seconds: float | None
    reason: str | None
    advice: str | None


class Poller:
    """Reads for as long as somebody attends, and `idle_grace` seconds longer.

    Never two reads at once. A failed read publishes nothing, is told in the state, and is tried again after a pause
    with full jitter. After a gap (nobody attended, or the process was frozen) the window is read whole, at once.
    `loading` is held while that is done for the first time, when nearly all that is made stays.
    """

    def __init__(
        self,
        source: Source,
        window: Window,
        hub: Hub,
        *,
        interval: float = 2.0,
        idle_grace: float = 30.0,
        metrics_interval: float = 60.0,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        telemetry: Telemetry | None = None,
        tracer: Tracer | None = None,
        loading: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.window = window
        self._loading = loading
        self._source = source
        self._hub = hub
        self._interval = interval
        self._grace = idle_grace
        self._metrics_interval = metrics_interval
        self._clock = clock or Clock()
        self._sleep = sleep
        self._telemetry = telemetry or Telemetry()
        self._tracer = tracer or Tracer()
        self._attending = 0
        self._left_at = float("-inf")
        self._wanted = asyncio.Event()
        self._tried = Bell()
        self._read = 0
        self._failures = 0
        self._reason: str | None = None
        self._whole = True
        self._whole_next = False
        self._idle = True
        self._woken_at = self._clock.monotonic()
        self._started_at = self._woken_at
        self._complete_wall = float("-inf")
        self._complete_at: float | None = None
        self._covered_at: float | None = None
        self._sweep_seconds: float | None = None
        self._sweeps_slowly = False
        self._hot_seconds: float | None = None
        self._version = -1
        self._totals: Metrics | None = None
        self._totals_at = float("-inf")
        self._shown: tuple[float, Event] | None = None
        self._units: deque[tuple[float, float]] = deque()
        self._lateness: deque[float] = deque(maxlen=1000)
        self._skipped: Counter[str] = Counter()

    @property
    def stale_after(self) -> float:
        """Seconds without a complete read after which the feed is stale."""
        return max(LEAST_STALE, 2 * self._interval)

    @property
    def loaded(self) -> bool:
        """Whether the window has ever been read whole."""
        return self._covered_at is not None

    @property
    def age(self) -> float | None:
        """Seconds since the last complete read."""
        return None if self._complete_at is None else self._clock.monotonic() - self._complete_at

    @property
    def state(self) -> FeedState:
        """`idle` while nobody attends, `starting` until there is something to show, then `live` or `stale`."""
        if self._idle:
            return "idle"
        if self.loaded and self.age is not None and self.age <= self.stale_after:
            return "live"
        overdue = self._clock.monotonic() - self._woken_at > self.stale_after
        return "stale" if overdue and (self.loaded or self._failures) else "starting"

    def status(self) -> FeedStatus:
        """Everything about the feed that an operator wants to see."""
        cuts = quantiles(self._lateness, n=100, method="inclusive") if len(self._lateness) > 1 else None
        return FeedStatus(
            state=self.state,
            age_seconds=None if self.age is None else round(self.age, 3),
            items=len(self.window),
            sweep_seconds=self._sweep_now(),
            read_units_per_minute=round(self._units_per_minute(), 1),
            lateness_seconds=None if cuts is None else {"p50": round(cuts[49], 1), "p99": round(cuts[98], 1)},
            hot_seconds=None if self._hot_seconds is None else round(self._hot_seconds, 1),
            reason=self._reason,
            advice=SLOW_SWEEP_ADVICE if self._sweeps_slowly else None,
        )

    def attend(self) -> None:
        """Say that one more reader wants the feed."""
        self._attending += 1
        if self._attending == 1:
            self._wake()

    def leave(self) -> None:
        """Say that a reader has gone."""
        self._attending -= 1
        self._left_at = self._clock.monotonic()

    @contextmanager
    def attended(self) -> Iterator[None]:
        """Attend for a moment."""
        self.attend()
        try:
            yield
        finally:
            self.leave()

    @property
    def showable(self) -> bool:
        """Whether there is a state to show: a fresh one, or an old one if a read has failed since it grew old."""
        fresh = self.age is not None and self.age <= self.stale_after
        return self.loaded and (fresh or self._failures > 0)

    async def ready(self) -> None:
        """Return when there is a state to show."""
        while not self.showable:
            await self._tried.wait()

    def totals(self) -> Event:
        """The totals as they are now, as an event; whoever asks within the same second shares it."""
        now = self._clock.monotonic()
        if self._shown is None or now - self._shown[0] > 1.0:
            self._shown = (now, self._hub.event("metrics", self.window.metrics(self._clock.wall())))
        return self._shown[1]

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            if self._abandoned():
                await self._rest()
            self._whole = self._whole or self._whole_next or self._after_a_gap
            self._whole_next = False
            self._started_at = self._clock.monotonic()
            pause = await self._poll()
            spent = 0 if self._failures else self._clock.monotonic() - self._started_at
            await self._sleep(max(0.0, pause - spent))

    async def _poll(self) -> float:
        """One read. Returns how long after its start the next one is due, or after its end if it failed."""
        self._read += 1
        span = self._tracer.poll()
        try:
            with nullcontext() if self.loaded else self._loading():
                await self._read_once()
        except SourceError as error:
            self._tracer.end(span, failed=True)
            return self._failed(error)
        self._tracer.end(span, items=len(self.window))
        if self._failures:
            logger.info("feed: reading again after %d failed reads", self._failures)
        self._failures, self._reason, self._whole = 0, None, False
        self._complete_at, self._complete_wall = self._clock.monotonic(), self._clock.wall()
        self._tried.ring()
        self._repeat_totals()
        return self._interval

    def _failed(self, error: SourceError) -> float:
        """Note a failed read, and log it if it says something new. Returns how long to wait: full jitter."""
        self._failures += 1
        if str(error) != self._reason:
            logger.warning("feed: %s (%s)", error, error.__cause__)
        self._reason = str(error)
        self._telemetry.feed_failed("throttled" if throttled(error) else "failed")
        self._tried.ring()
        return random.uniform(0, min(LONGEST_BACKOFF, self._interval * 2 ** min(self._failures, 10)))  # noqa: S311

    async def _read_once(self) -> None:
        started = self._clock.monotonic()
        units = 0.0
        dropped = CHUNK
        while dropped == CHUNK:
            dropped = self.window.expire(self._clock.wall(), CHUNK)
            await asyncio.sleep(0)
        async for batch in self._source.read(self.window.low, whole=self._whole):
            units += batch.units
            self._note_units(batch.units)
            await self._take_in(batch)
        self._telemetry.feed_read(self._clock.monotonic() - started, units)

    async def _take_in(self, batch: Batch) -> None:
        """Apply a batch, a chunk at a step, and publish what a step changes in that step.

        So whoever subscribes between two steps has the one in the state and the other live.
        """
        self._note_skipped(batch.skipped)
        if batch.ordered:
            self._read += 1
        for chunk in batched(batch.items, CHUNK, strict=False):
            changes = self.window.apply(chunk, self._read, self._clock.wall(), silent=not self.loaded)
            self._note(changes)
            self._publish(changes.updates, _stamp(batch, changes.new))
            await asyncio.sleep(0)
        self.window.touch(batch.unsettled, self._read)
        for key in batch.gone:
            self.window.forget(key)
        if batch.span is not None:
            await self._covered(batch.span)
        if batch.watermark is not None:
            self._cover(batch.watermark)
        self._publish([])

    def _note(self, changes: Changes) -> None:
        if changes.ahead:
            self._note_skipped({"future": changes.ahead})
        if self.loaded:
            now = self._clock.wall()
            self._lateness.extend(now - item.time for item in changes.new)

    async def _covered(self, span: tuple[float, float]) -> None:
        """A span has been read completely: what is gone leaves the window, a chunk at a step."""
        if span[1] == FOREVER:
            self._hot_seconds = max(0.0, self._clock.wall() - span[0])
        for chunk in batched(self.window.missed(span, self._read), CHUNK, strict=False):
            self.window.remove(chunk)
            await asyncio.sleep(0)

    def _cover(self, watermark: float) -> None:
        """The whole window has been read: from the first time on there is a state, and changes are news."""
        now = self._clock.monotonic()
        since = self._started_at if self._whole or self._covered_at is None else self._covered_at
        was_slow = self._sweeps_slowly
        self._sweep_seconds = now - since
        self._sweeps_slowly = not self._whole and self._sweep_seconds > max(SLOW_SWEEP, 2 * self._interval)
        self._covered_at = now
        self._hub.advance(watermark)
        if self._sweeps_slowly and not was_slow:
            logger.warning("feed: a sweep over the window takes %.0f s: %s", self._sweep_seconds, SLOW_SWEEP_ADVICE)

    def _publish(self, updates: list[Event], stamp: float | None = None) -> None:
        """Publish a step's updates and, if a count has changed, the totals. Nothing before the first load."""
        if not self.loaded or (self._version == self.window.version and not updates):
            return
        self._version = self.window.version
        for update in updates:
            self._telemetry.published(update.name)
        totals = self.window.metrics(self._clock.wall())
        if not _same_counts(totals, self._totals):
            self._hub.publish(updates, self._totals_event(totals), Origin(self._started_at, stamp))
        elif updates:
            self._hub.publish(updates, origin=Origin(self._started_at, stamp))

    def _repeat_totals(self) -> None:
        """Say the totals again from time to time, after a good read only."""
        if self.loaded and self._clock.monotonic() - self._totals_at >= self._metrics_interval:
            self._hub.publish([], self._totals_event(self.window.metrics(self._clock.wall())))

    def _totals_event(self, totals: Metrics) -> Event:
        self._telemetry.published("metrics")
        self._totals, self._totals_at = totals, self._clock.monotonic()
        self._shown = (self._totals_at, self._hub.event("metrics", totals))
        return self._shown[1]

    async def _rest(self) -> None:
        """Wait for somebody to attend; what comes then is read whole."""
        self._idle = True
        self._wanted.clear()
        if self._attending == 0:
            await self._wanted.wait()
        self._wake()

    def _wake(self) -> None:
        """Somebody attends: if it was idle, or slept too long, the window must be read again before it is shown.

        A read that is under way began before that, and does not count.
        """
        if self._idle or self._after_a_gap:
            self._woken_at = self._clock.monotonic()
            self._whole_next = True
        self._idle = False
        self._wanted.set()

    def _sweep_now(self) -> float | None:
        """How long the last sweep took, or the one under way if that is longer already."""
        if self._sweep_seconds is None or self._covered_at is None:
            return None
        running = self._clock.monotonic() - self._covered_at if self.state == "live" else 0.0
        return round(max(self._sweep_seconds, running), 3)

    @property
    def _after_a_gap(self) -> bool:
        """Whether the last complete read is so old that what came and went since must be looked for everywhere.

        The wall clock is asked too, since the other one may stand still with a frozen machine. If it was merely set,
        one read more is made than was needed.
        """
        apart = self._clock.wall() - self._complete_wall
        return self.age is None or self.age > self.stale_after or apart > self.stale_after

    def _abandoned(self) -> bool:
        return self._attending == 0 and self._clock.monotonic() - self._left_at >= self._grace

    def _note_units(self, units: float) -> None:
        """Remember what was spent, for a minute."""
        self._units.append((self._clock.monotonic(), units))
        while self._units[0][0] < self._clock.monotonic() - MINUTE:
            self._units.popleft()

    def _units_per_minute(self) -> float:
        since = self._clock.monotonic() - MINUTE
        return sum(units for at, units in self._units if at >= since)

    def _note_skipped(self, skipped: dict[str, int]) -> None:
        """Count records that did not fit, and log the first of each kind."""
        for kind, count in skipped.items():
            if kind not in self._skipped:
                logger.warning("feed: %d items skipped, and later ones of the kind without a word: %s", count, kind)
            self._skipped[kind] += count
            self._telemetry.items_skipped(kind, count)


def _stamp(batch: Batch, new: Sequence[Item]) -> float | None:
    """The source's own time of what changed: of the change itself or, where it has none, of the oldest new item."""
    return min((item.time for item in new), default=None) if batch.changed_at is None else batch.changed_at


def _same_counts(one: Metrics, other: Metrics | None) -> bool:
    return other is not None and (one.positive, one.neutral, one.negative, one.by_tag) == (
        other.positive,
        other.neutral,
        other.negative,
        other.by_tag,
    )
