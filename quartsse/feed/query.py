"""QuerySource: reads the index by Query, three partitions side by side, within a budget of read units."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import batched
from operator import attrgetter
from typing import Any, Protocol

from quartsse.errors import SourceError
from quartsse.feed.blocking import blocking
from quartsse.feed.dynamodb import Client, source_error, throttled
from quartsse.feed.items import LABELS, PROJECTION, Item, MalformedItem, item_in
from quartsse.feed.source import FOREVER, Batch
from quartsse.hub.clock import Clock
from quartsse.hub.events import Label

PAGE_SECONDS = 8.0
"""The longest that one page may take, retries included; beyond that the read has failed."""

HOT_SECONDS = 300.0
COLDEST_HOT = 30.0
THROTTLED_ATTEMPTS = 6
PORTION = 50
_EMPTY_READ = 0.5 * len(LABELS)
_GUESSED_UNITS_PER_ITEM = 0.15


class Population(Protocol):
    """What is known about where items lie: the window."""

    def count(self, low: float, high: float) -> int:
        """About how many items lie between two moments."""
        ...

    def reach(self, high: float, items: int) -> float:
        """The moment from which on so many items lie before `high`."""
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """One page of one partition. `rest`: where the next one starts; None after the last."""

    items: list[Item]
    records: int
    units: float
    skipped: Counter[str]
    rest: dict[str, Any] | None

    @property
    def reach(self) -> float:
        """The first whole second behind its last item: the partition has been read from there on."""
        if self.rest is None:
            return -FOREVER
        return float(int(self.items[-1].time) + 1) if self.items else FOREVER


@dataclass(slots=True)
class Sweep:
    """A walk over the window from new to old, some of it at every read.

    `started`: wall clock; `at`: everything from here on has been covered; `again`: the slice here is being read a
    second time, because the index was just moving an item of it.
    """

    started: float
    at: float
    again: bool = False


@dataclass(slots=True)
class Gathered:
    """What the queries of one span found, so far. `reach`: from here on it is all there is."""

    items: dict[str, Item] = field(default_factory=dict)
    unsettled: set[str] = field(default_factory=set)
    records: int = 0
    units: float = 0.0
    skipped: Counter[str] = field(default_factory=Counter)
    reach: float = -FOREVER

    def add(self, page: Page) -> None:
        """Add a page. An item that another partition has too is unsettled: the index is just moving it."""
        self.records += page.records
        self.units += page.units
        self.skipped += page.skipped
        for item in page.items:
            other = self.items.setdefault(item.key, item)
            if other.sentiment != item.sentiment:
                self.unsettled.add(item.key)

    def batch(self, span: tuple[float, float] | None, watermark: float | None = None) -> Batch:
        """All of it as a batch, old before new: so the last update that a reader gets of a ticker is its last."""
        settled = [item for key, item in self.items.items() if key not in self.unsettled]
        settled.sort(key=attrgetter("time", "key"))
        return Batch(settled, frozenset(self.unsettled), (), span, watermark, self.units, dict(self.skipped))


type Starts = dict[Label, dict[str, Any] | None]
"""The partitions that have more to read, and where each goes on; None is its beginning."""


class QuerySource:
    """The default source: read-only queries on the index `sentiment`, `timestamp`.

    Every read covers the hot end of the window, the last minutes. What `budget` read units leave is spent on a sweep
    over the rest, a slice or more per read; a window that fits the budget is read whole every time. `client` is
    called in a thread, and so may be slow the first time.
    """

    def __init__(
        self,
        client: Callable[[], Client],
        table: str,
        index: str,
        *,
        budget: float,
        population: Population,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._table = table
        self._index = index
        self._budget = budget
        self._population = population
        self._clock = clock or Clock()
        self._sleep = sleep
        self._units_per_item = _GUESSED_UNITS_PER_ITEM
        self._sweep: Sweep | None = None
        self._read_at = FOREVER

    async def read(self, low: float, *, whole: bool) -> AsyncIterator[Batch]:
        """Read the hot end and go on with the sweep, or read the whole window."""
        now = self._clock.wall()
        if whole:
            batches = self._pages(low, now)
        elif self._cost(low, FOREVER) <= self._budget:
            batches = self._all_at_once(low, now)
        else:
            batches = self._hot_and_sweep(low, now)
        async for batch in batches:
            yield batch
        self._read_at = now

    async def _pages(self, low: float, now: float) -> AsyncIterator[Batch]:
        """The whole window, newest first, a page of each partition at a time."""
        self._sweep = None
        starts: Starts = dict.fromkeys(LABELS)
        records, units = 0, 0.0
        while starts:
            found, starts = await self._patient_round(starts, low)
            records, units = records + found.records, units + found.units
            yield found.batch(None if starts else (low, FOREVER), None if starts else now)
        self._learn(records, units)

    async def _all_at_once(self, low: float, now: float) -> AsyncIterator[Batch]:
        self._sweep = None
        found = await self._gather(low, FOREVER)
        yield found.batch((low, FOREVER), None if found.unsettled else now)

    async def _hot_and_sweep(self, low: float, now: float) -> AsyncIterator[Batch]:
        hot = self._hot_end(low, now)
        found = await self._gather(hot, FOREVER)
        yield found.batch((hot, FOREVER))
        if self._sweep is None or self._sweep.at > hot:
            self._sweep = None if found.unsettled else Sweep(now, hot)
        left = max(self._budget - found.units, self._budget / 4)
        while (sweep := self._sweep) is not None:
            batch = await self._slice(sweep, low, left)
            left -= max(batch.units, _EMPTY_READ)  # emulators answer 0 for what costs something
            yield batch
            if sweep.at <= low:
                self._sweep = None
            if left < max(2 * _EMPTY_READ, self._budget / 10) or sweep.again:
                break

    def _hot_end(self, low: float, now: float) -> float:
        """From where on every read looks: minutes ago, less if they hold more than half the budget pays for.

        In any case from before the last read on, or what came fresh while the process was frozen would be overlooked.
        """
        seconds = HOT_SECONDS
        while self._cost(now - seconds, FOREVER) > self._budget / 2 and seconds > COLDEST_HOT:
            seconds = max(COLDEST_HOT, seconds / 2)
        return max(low, float(int(min(now - seconds, self._read_at - COLDEST_HOT))))

    async def _slice(self, sweep: Sweep, low: float, units: float) -> Batch:
        """The next slice of a sweep: the same span in all partitions, as long as the units are likely to pay for.

        One that holds an item which the index is just moving is read again at the next read, once.
        """
        wanted = max(1, int((units - _EMPTY_READ) / self._units_per_item))
        start = max(low, float(int(min(self._population.reach(sweep.at, wanted), sweep.at - 1))))
        found = await self._gather(start, sweep.at, most=wanted + 100)
        if found.reach >= sweep.at:  # a crowd within one second, or a page without an item: take that second whole
            units = found.units
            found = await self._gather(max(low, sweep.at - 1), sweep.at)
            found.units += units
        span = (found.reach, sweep.at)
        sweep.again = bool(found.unsettled) and not sweep.again
        if not sweep.again:
            sweep.at = found.reach
        return found.batch(span, sweep.started if sweep.at <= low else None)

    async def _gather(self, low: float, high: float, most: int | None = None) -> Gathered:
        """All pages of a span; or, with `most`, the first page of each partition, of about so many items."""
        starts: Starts = dict.fromkeys(LABELS)
        found = Gathered()
        while starts:
            starts = await self._round(found, starts, low, high, most)
            if most is not None:
                break
        self._learn(found.records, found.units)
        found.reach = min(max(low, found.reach), high) if starts else low
        return found

    async def _patient_round(self, starts: Starts, low: float) -> tuple[Gathered, Starts]:
        """One page of each partition; while DynamoDB throttles, some attempts.

        A long read that began anew each time would never come to its end on a table with little capacity.
        """
        found = Gathered()
        for attempt in range(1, THROTTLED_ATTEMPTS):
            try:
                return found, await self._round(found, starts, low, FOREVER)
            except SourceError as error:
                if not throttled(error):
                    raise
            await self._sleep(random.uniform(0, 0.25 * 2**attempt))  # noqa: S311 (full jitter)
        return found, await self._round(found, starts, low, FOREVER)

    async def _round(self, found: Gathered, starts: Starts, low: float, high: float, most: int | None = None) -> Starts:
        """Add one page of each partition that has more, read side by side. Returns where each goes on.

        All are awaited even if one fails: or the next read would begin while queries of this one are still under way.
        """
        pages = await asyncio.gather(
            *(self._page(label, low, high, start, most) for label, start in starts.items()), return_exceptions=True
        )
        for page in pages:
            if isinstance(page, BaseException):
                raise page
        read = {label: page for label, page in zip(starts, pages, strict=True) if isinstance(page, Page)}
        for page in read.values():
            found.add(page)
        found.reach = max(found.reach, *(page.reach for page in read.values()))
        return {label: page.rest for label, page in read.items() if page.rest is not None}

    async def _page(
        self, label: Label, low: float, high: float, start: dict[str, Any] | None, most: int | None
    ) -> Page:
        request = query_request(self._table, self._index, label, low, high)
        if start is not None:
            request["ExclusiveStartKey"] = start
        if most is not None:
            request["Limit"] = most
        try:
            return await blocking(lambda: self._ask(request), PAGE_SECONDS)
        except TimeoutError as error:
            raise SourceError(f"cannot read {self._what}: no answer within {PAGE_SECONDS:g} s") from error

    def _ask(self, request: dict[str, Any]) -> Page:
        """One Query, in a thread."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = self._client().query(**request)
        except (BotoCoreError, ClientError) as error:
            raise source_error(self._what, "dynamodb:Query", error) from error
        records = answer.get("Items")
        if not isinstance(records, list):
            raise SourceError(f"cannot read {self._what}: what answered is not DynamoDB")
        items, skipped = items_in(records)
        units = answer.get("ConsumedCapacity", {}).get("CapacityUnits", 0.0)
        return Page(items, len(records), float(units), skipped, answer.get("LastEvaluatedKey"))

    @property
    def _what(self) -> str:
        return f"{self._table}/index/{self._index}"

    def _cost(self, low: float, high: float) -> float:
        """The read units that a span is likely to cost: half a unit for each query, and what its items add."""
        return _EMPTY_READ + self._population.count(low, high) * self._units_per_item

    def _learn(self, records: int, units: float) -> None:
        """Learn what an item costs from a read of some size; small ones are mostly rounding."""
        if records >= 100 and units > 0:
            self._units_per_item = max(units / records, 1e-4)


def items_in(records: Sequence[dict[str, Any]]) -> tuple[list[Item], Counter[str]]:
    """The items of some records, and how many did not fit, by kind. For a thread."""
    items: list[Item] = []
    skipped: Counter[str] = Counter()
    for portion in batched(records, PORTION, strict=False):
        for record in portion:
            try:
                items.append(item_in(record))
            except MalformedItem as misfit:
                skipped[str(misfit)] += 1
        time.sleep(0)  # gives the interpreter's lock away: the loop would wait 5 ms for each thread that computes
    return items, skipped


def query_request(table: str, index: str, label: Label, low: float, high: float) -> dict[str, Any]:
    """The Query of one partition over a span, newest first.

    Every attribute is named by a placeholder: `timestamp` is a reserved word, which emulators do not mind and
    DynamoDB does. Bounds are whole seconds without a suffix, because `+`, `.` and `Z` sort behind nothing: so the
    lower one lets in the whole second, however its fractions are written.
    """
    names = {f"#{name}": name for name in PROJECTION}
    values: dict[str, Any] = {":label": {"S": label}, ":low": {"S": _bound(low)}}
    span = "#timestamp >= :low"
    if high != FOREVER:
        span = "#timestamp BETWEEN :low AND :high"
        values[":high"] = {"S": _bound(high)}
    return {
        "TableName": table,
        "IndexName": index,
        "KeyConditionExpression": f"#sentiment = :label AND {span}",
        "ProjectionExpression": ", ".join(names),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
        "ScanIndexForward": False,
        "ReturnConsumedCapacity": "TOTAL",
    }


def _bound(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%S")
