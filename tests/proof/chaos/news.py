"""Those who write: items without end, fresh and late ones, some analysed again, and all of it written down."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush

from botocore.exceptions import BotoCoreError, ClientError

from quartsse.hub.clock import iso
from tests.dynamodb import Tables, key_of, record
from tests.proof.chaos.history import SCALE, Written

TICKERS = tuple(f"T{number:02d}" for number in range(24))
MANY = 8
WRITERS = 3
ATTEMPTS = 5
MOST = SCALE - 1
"""There are no more numbers than that."""


class News:
    """Writes to a table, and remembers what was written and when.

    Half of the items are fresh; the others appear seconds after they were written, under a timestamp that is hours
    old. A third of all are analysed again, differently: some at once, some after a minute, some twice.
    """

    def __init__(self, tables: Tables, seed: int) -> None:
        self.written: list[Written] = []
        self.rate = 0.0
        """Writes a second, new items and others analysed again."""
        self.wide = False
        """Whether items have many tickers, and so an update for each."""
        self._tables = tables
        self._chance = random.Random(seed)
        self._items = 0
        self._numbers = 0
        self._due: list[tuple[float, Written]] = []
        self._writers = asyncio.Semaphore(WRITERS)

    async def write(self) -> None:
        """Write at the rate until cancelled; what has begun is finished."""
        owed, before = 0.0, time.monotonic()
        async with asyncio.TaskGroup() as group:
            try:
                while True:
                    now = time.monotonic()
                    owed, before = owed + self.rate * (now - before), now
                    for _ in range(int(owed)):
                        group.create_task(self._one(now))
                    owed %= 1
                    await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                pass

    async def _one(self, now: float) -> None:
        if self._due and self._due[0][0] <= now:
            await self._say_again(heappop(self._due)[1])
            return
        self._items += 1
        item = f"chaos:{self._items}"
        tickers = tuple(self._chance.sample(TICKERS, MANY if self.wide else self._chance.choice((1, 1, 2))))
        fresh = self._chance.random() < 0.5
        moment = iso(
            (datetime.now(UTC) - timedelta(seconds=0.5 if fresh else self._chance.uniform(60, 72_000))).timestamp()
        )
        state = self._state(item, 1, tickers, moment)
        if fresh:
            said = {"sentiment": state.label, "score": state.score, "confidence": state.number / SCALE}
            await self._note(state, lambda: self._tables.put(item, *tickers, published=moment, **said))
        else:
            await self._patiently(lambda: self._tables.put(item, *tickers, published=moment))
            await asyncio.sleep(self._chance.uniform(0.2, 2))
            await self._note(state, lambda: self._analyse(state))

    async def _say_again(self, before: Written) -> None:
        state = self._state(before.item, before.version + 1, before.tickers, before.timestamp)
        await self._note(state, lambda: self._analyse(state))

    def _state(self, item: str, version: int, tickers: tuple[str, ...], moment: str) -> Written:
        self._numbers += 1
        assert self._numbers <= MOST
        label = self._chance.choice(("positive", "neutral", "negative"))
        score = round(self._chance.uniform(-1, 1), 2) + 0.0
        return Written(self._numbers, item, version, tickers, label, score, "chaos", moment, 0.0, 0.0)

    async def _analyse(self, state: Written) -> None:
        key = key_of(record(state.item, *state.tickers, published=state.timestamp))
        await self._tables.analyse(key, state.label, state.score, state.number / SCALE)

    async def _note(self, state: Written, write: Callable[[], Awaitable[object]]) -> None:
        """Write a state, and write down between which moments that was; perhaps it is not the item's last."""
        began, done = await self._patiently(write)
        noted = replace(state, began=began, done=done)
        self.written.append(noted)
        if self._chance.random() < 0.33:
            heappush(self._due, (done + self._chance.choice((0.5, 4.0, 60.0)) * self._chance.uniform(0.5, 1.5), noted))

    async def _patiently(self, write: Callable[[], Awaitable[object]]) -> tuple[float, float]:
        """Write, a few at a time, and again if it fails: it is the same each time. From when until when it was."""
        async with self._writers:
            began = time.monotonic()
            for attempt in range(ATTEMPTS):
                try:
                    await write()
                    break
                except (BotoCoreError, ClientError):
                    if attempt == ATTEMPTS - 1:
                        raise
            return began, time.monotonic()
