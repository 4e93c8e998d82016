"""What the feed's tests are made of: a clock in the hand, items, sources that do as they are told."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from quartsse.feed.items import Item, key_of, moment
from quartsse.feed.poller import Poller
from quartsse.feed.source import FOREVER, Batch, Source
from quartsse.feed.window import Window
from quartsse.hub.clock import Clock, iso
from quartsse.hub.events import Event, Label
from quartsse.hub.hub import Hub
from quartsse.hub.tick import Origin

if TYPE_CHECKING:
    from quartsse.errors import SourceError

NOW = 1_764_671_400.0
"""2025-12-02T10:30:00Z: where a `Time` begins."""

SIGN = {"positive": 1.0, "neutral": 0.0, "negative": -1.0}


def item(
    source_id: str = "tiingo:1",
    *tickers: str,
    at: float = NOW,
    sentiment: Label = "positive",
    score: float = 0.8,
    source: str = "tiingo",
) -> Item:
    """An item as the feed sees it."""
    signed = score * SIGN[sentiment] + 0.0
    key = key_of(source_id, iso(at))
    return Item(key, moment(iso(at)), sentiment, signed, score, tickers or ("AAPL",), source)


class Time:
    """Both clocks, in the hand of a test. Whoever sleeps by it is woken when the test lets time pass."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self.offset = NOW
        self.pauses: list[float] = []
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.elapsed, self.wall)

    def wall(self) -> float:
        return self.offset + self.elapsed

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        woken = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.elapsed + seconds, woken))
        await woken

    async def pass_by(self, seconds: float) -> None:
        """Let time pass, and everyone do what they do meanwhile."""
        end = self.elapsed + seconds
        while True:
            await settle()
            due = sorted((at, index) for index, (at, _) in enumerate(self._sleepers) if at <= end)
            if not due:
                break
            at, index = due[0]
            self.elapsed = max(self.elapsed, at)
            _, woken = self._sleepers.pop(index)
            if not woken.done():
                woken.set_result(None)
        self.elapsed = end
        await settle()

    async def freeze(self, seconds: float) -> None:
        """Let time pass while nobody does anything, as with SIGSTOP: timers that were due meanwhile fire once."""
        self.elapsed += seconds
        await self.pass_by(0)


def state(poller: Poller) -> str:
    """The feed's state, which is another one after a while, whatever mypy thinks."""
    return poller.state


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(60):
        await asyncio.sleep(0)


class Script(Source):
    """A source that has some items, fails or hangs as it is told, and knows how it was read."""

    def __init__(self, time: Time, *items: Item) -> None:
        self.time = time
        self.items = {item.key: item for item in items}
        self.reads: list[bool] = []
        """Whether each read was of the whole window."""
        self.at_once = 0
        self.most_at_once = 0
        self.failure: SourceError | None = None
        self.takes = 0.0
        self.then: Callable[[], None] = lambda: None
        """Called in the middle of each read."""
        self.batches: list[Batch] | None = None
        self.units = 1.5

    def put(self, *items: Item) -> None:
        for one in items:
            self.items[one.key] = one

    async def read(self, low: float, *, whole: bool) -> AsyncGenerator[Batch]:
        self.reads.append(whole)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        started = self.time.wall()
        try:
            if self.takes:
                await self.time.sleep(self.takes)
                self.time.pauses.pop()
            if self.failure is not None:
                raise self.failure
            if self.batches is not None:
                for batch in self.batches:
                    yield batch
                return
            half = [self.copy(one) for one in self.items.values() if one.time >= low]
            yield Batch(items=half[::2], units=self.units)
            self.then()
            yield Batch(items=half[1::2], span=(low, FOREVER), watermark=started)
        finally:
            self.at_once -= 1

    @staticmethod
    def copy(one: Item) -> Item:
        return Item(one.key, one.time, one.sentiment, one.score, one.confidence, one.tickers, one.source)


class Listener(Hub):
    """A hub that keeps what is published."""

    def __init__(self, time: Time | None = None) -> None:
        super().__init__(clock=time.clock if time else None, instance="test")
        self.updates: list[Event] = []
        self.totals: list[Event] = []
        self.ticks: list[list[Event]] = []
        """The updates once more, as they came together."""

    def publish(self, updates: Sequence[Event], metrics: Event | None = None, origin: Origin | None = None) -> None:
        self.updates += updates
        self.ticks.append(list(updates))
        self.totals += [metrics] if metrics else []
        super().publish(updates, metrics, origin)


@asynccontextmanager
async def polling(
    source: Source, time: Time, *, attended: bool = True, window: Window | None = None, **settings: Any
) -> AsyncGenerator[tuple[Poller, Listener]]:
    """A poller at work, by the test's clock."""
    listener = Listener(time)
    poller = Poller(
        source, window or Window(), listener, clock=time.clock, sleep=time.sleep, **({"interval": 2.0} | settings)
    )
    if attended:
        poller.attend()
    task = asyncio.create_task(poller.run())
    try:
        await settle()
        yield poller, listener
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
