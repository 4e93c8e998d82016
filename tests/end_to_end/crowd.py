"""Hundreds of viewers that read for ever, each with its own history; and news whose truth the table keeps.

What a viewer has heard is compared with what was written by its data alone: each thing that is said of an item has a
confidence of its own, counted up in millionths, so that nothing of how the service makes ids is relied on.
"""

import asyncio
import json
import random
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush

from quartsse.client import ServerEvent, State, StreamOptions, stream
from quartsse.hub.clock import iso
from tests.dynamodb import Tables, key_of, record

TICKERS = tuple(f"T{number:02d}" for number in range(40))
SCALE = 1_000_000
WRITERS = 3
LONG_AFTER = 30.0
"""Seconds from what an item says first to what it says next: beyond what a resume on another instance repeats."""


@dataclass(frozen=True, slots=True)
class Said:
    """One thing that was said of one item: the `version`-th of it."""

    item: int
    version: int
    ticker: str
    moment: str


class News:
    """Writes news to a table, and remembers all of it: `said[n]` is what has the confidence n / 1,000,000.

    Half of it is fresh; the rest appears seconds after it was written, under a timestamp that is hours old by then. A
    tenth is analysed again, differently, long after.
    """

    def __init__(self, tables: Tables, seed: int = 7) -> None:
        self.said: dict[int, Said] = {}
        self._tables = tables
        self._chance = random.Random(seed)
        self._items = 0
        self._due: list[tuple[float, int, dict[str, dict[str, str]], str]] = []
        self._writers = asyncio.Semaphore(WRITERS)
        self.latest = 0.0
        """Seconds by which the table was behind at worst: how long something waited to be written."""

    async def write(self, rate: float, seconds: float) -> None:
        """Write so many things a second, for some seconds. What was to be analysed again later may be left as it is."""
        began, count = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while (now := time.monotonic() - began) < seconds:
                while count < rate * now:
                    group.create_task(self._one(began))
                    count += 1
                await asyncio.sleep(0.02)

    async def _one(self, began: float) -> None:
        now = time.monotonic() - began
        if self._due and self._due[0][0] <= now:
            _, number, key, ticker = heappop(self._due)
            await self._analyse(number, self.said_first(number), key, ticker)
            return
        self._items += 1
        item, ticker = self._items, self._chance.choice(TICKERS)
        age = 0.5 if self._chance.random() < 0.5 else self._chance.uniform(60, 20 * 3600)
        moment = self._moment(age, item)
        key = key_of(record(f"crowd:{item}", ticker, published=moment))
        if age < 1:
            number = self._note(item, 1, ticker, moment)
            said = {"sentiment": self._label(), "score": 0.5, "confidence": number / SCALE}
            async with self._turn():
                await self._tables.put(f"crowd:{item}", ticker, published=moment, **said)
        else:
            async with self._turn():
                await self._tables.put(f"crowd:{item}", ticker, published=moment)
            await asyncio.sleep(self._chance.uniform(0.2, 2))
            await self._analyse(item, 0, key, ticker)
        if self._chance.random() < 0.2:
            heappush(self._due, (now + LONG_AFTER, item, key, ticker))

    async def _analyse(self, item: int, version: int, key: dict[str, dict[str, str]], ticker: str) -> None:
        number = self._note(item, version + 1, ticker, key["timestamp"]["S"])
        async with self._turn():
            await self._tables.analyse(key, self._label(), 0.5, number / SCALE)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Write a few at a time: each takes a thread, and the test needs some for itself."""
        began = time.monotonic()
        async with self._writers:
            yield
        self.latest = max(self.latest, time.monotonic() - began)

    def said_first(self, item: int) -> int:
        """The last version of an item."""
        return max((said.version for said in self.said.values() if said.item == item), default=0)

    def last_of(self, ticker: str) -> int:
        """The number of what a ticker's last update must say, once all is read."""
        return max(
            (number for number, said in self.said.items() if said.ticker == ticker),
            key=lambda number: (self.said[number].moment, number),
        )

    def _note(self, item: int, version: int, ticker: str, moment: str) -> int:
        number = len(self.said) + 1
        self.said[number] = Said(item, version, ticker, moment)
        return number

    def _label(self) -> str:
        return self._chance.choice(("positive", "neutral", "negative"))

    def _moment(self, age: float, item: int) -> str:
        """A timestamp that no other item has: the number of the item is in its milliseconds and microseconds."""
        then = datetime.now(UTC) - timedelta(seconds=age)
        return iso(then.replace(microsecond=(item * 1000) % 1_000_000).timestamp())


@dataclass
class Viewer:
    """One reader: what it heard, and when it came and went. Times are monotonic."""

    heard: array[int] = field(default_factory=lambda: array("l"))
    """The numbers of what it was told, in order."""
    opened: list[float] = field(default_factory=list)
    """When each of its connections brought its head."""
    left: list[tuple[float, str]] = field(default_factory=list)
    """When each of its connections ended, and why."""
    waits: list[float] = field(default_factory=list)
    ends: list[tuple[float, str, int]] = field(default_factory=list)
    """Each `stream_end`: when, why, and the wait in ms that it asked for."""
    modes: list[str] = field(default_factory=list)
    repeats: int = 0
    connected: bool = False

    def note(self, state: State) -> None:
        """Take note of a connection's coming or going."""
        if state.name == "open":
            self.opened.append(time.monotonic())
            self.connected = True
        elif state.name == "closed":
            self.left.append((time.monotonic(), state.reason))
            self.connected = False

    def take(self, event: ServerEvent) -> None:
        """Take note of an event."""
        if event.event == "sentiment_update":
            self.heard.append(round(json.loads(event.data)["confidence"] * SCALE))
        elif event.event == "stream_end":
            told = event.json()
            self.ends.append((time.monotonic(), told["reason"], told["retry_ms"]))
        elif event.event == "resume":
            self.modes.append(event.json()["mode"])


class Crowd:
    """Viewers that are all alike."""

    def __init__(self, count: int, viewer: Callable[[], Viewer] = Viewer) -> None:
        self.viewers = [viewer() for _ in range(count)]

    @property
    def connected(self) -> int:
        """How many have a stream."""
        return sum(viewer.connected for viewer in self.viewers)

    def opened_since(self, moment: float) -> list[float]:
        """When those who came back after a moment did so, each once."""
        return sorted(min(late) for viewer in self.viewers if (late := [at for at in viewer.opened if at > moment]))

    async def all_back(self, seconds: float) -> float:
        """Wait until all are connected; gives how long that took. Fails if it takes longer than so many seconds."""
        began = time.monotonic()
        while self.connected < len(self.viewers):
            assert time.monotonic() - began < seconds, f"{self.connected} of {len(self.viewers)} after {seconds:g} s"
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def all_have_heard(self, numbers: Iterable[int], seconds: float) -> None:
        """Wait until all have heard some things, or until the time is over."""
        wanted, end = set(numbers), time.monotonic() + seconds
        while time.monotonic() < end:
            if all(wanted <= set(viewer.heard[-2000:]) for viewer in self.viewers):
                return
            await asyncio.sleep(0.3)


@asynccontextmanager
async def crowd(
    url: str, count: int, *, viewer: Callable[[], Viewer] = Viewer, per_second: float = 250
) -> AsyncIterator[Crowd]:
    """So many viewers of everything, who arrive one after another and stay until the end."""
    made = Crowd(count, viewer)
    options = StreamOptions(max_backoff=4.0, connect_timeout=5.0)

    async def view(viewer: Viewer, delay: float) -> None:
        await asyncio.sleep(delay)
        async with stream(url, tickers="*", on_state=viewer.note, options=options) as events:
            async for event in events:
                viewer.take(event)
                viewer.repeats = events.repeats

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(view(viewer, n / per_second)) for n, viewer in enumerate(made.viewers)]
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with the histories of a crowd: how many viewers, and examples."""

    lost: Counter[int]
    twice: Counter[int]
    disordered: list[tuple[int, int]]

    @property
    def faultless(self) -> bool:
        """Whether nothing is."""
        return not (self.lost or self.twice or self.disordered)


def judge(viewers: Sequence[Viewer], news: News) -> Verdict:
    """Compare every history with all that was ever said: nothing lost, nothing twice, each item's in its order."""
    everything = set(news.said)
    lost: Counter[int] = Counter()
    twice: Counter[int] = Counter()
    disordered: list[tuple[int, int]] = []
    for viewer in viewers:
        times = Counter(viewer.heard)
        lost.update(everything - set(times))
        twice.update(number for number, count in times.items() if count > 1)
        versions: dict[int, int] = {}
        for number in viewer.heard:
            said = news.said[number]
            if versions.get(said.item, 0) > said.version:
                disordered.append((said.item, said.version))
            versions[said.item] = said.version
    return Verdict(lost, twice, disordered)


def wrong_states(viewers: Sequence[Viewer], news: News) -> Counter[str]:
    """The tickers whose last update, as a viewer knows it, is not the table's; by how many viewers."""
    wrong: Counter[str] = Counter()
    truth = {ticker: news.last_of(ticker) for ticker in {said.ticker for said in news.said.values()}}
    for viewer in viewers:
        known: dict[str, int] = {}
        for number in viewer.heard:
            said = news.said[number]
            before = known.get(said.ticker)
            if before is None or news.said[before].moment <= said.moment:
                known[said.ticker] = number
        wrong.update(ticker for ticker, number in truth.items() if known.get(ticker) != number)
    return wrong
