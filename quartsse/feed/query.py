"""QuerySource: reads the index by Query, three partitions side by side, within a budget of read units."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from quartsse.errors import SourceError
from quartsse.feed.blocking import blocking
from quartsse.feed.dynamodb import Client
from quartsse.feed.items import LABELS, PROJECTION, Item, MalformedItem, item_in
from quartsse.feed.source import FOREVER, Batch
from quartsse.hub.clock import Clock
from quartsse.hub.events import Label

PAGE_SECONDS = 8.0
"""The longest that one page may take, retries included; beyond that the read has failed."""

HOT_SECONDS = 300.0
COLDEST_HOT = 30.0
_EMPTY_QUERY = 0.5
_GUESSED_UNITS_PER_ITEM = 0.15


class Population(Protocol):
    """What is known about where items lie: the window."""

    def count(self, low: float, high: float) -> int:
        """About how many items lie between two moments."""
        ...

    def reach(self, high: float, items: int) -> float:
        """The moment from which on about so many items lie before `high`."""
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """One page of one partition."""

    items: list[Item]
    units: float
    skipped: Counter[str]
    rest: dict[str, Any] | None
    """Where the next page starts; None after the last."""


@dataclass(slots=True)
class Sweep:
    """A walk over the window from new to old, some of it at every read.

    `started`: wall clock; `at`: everything from here on has been covered; `settled`: no item was seen in two
    partitions, so the walk can vouch for what was visible when it began.
    """

    started: float
    at: float
    settled: bool = True


@dataclass(slots=True)
class Gathered:
    """What the queries of one span found, so far."""

    items: dict[str, Item] = field(default_factory=dict)
    unsettled: set[str] = field(default_factory=set)
    units: float = 0.0
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, page: Page) -> None:
        """Add a page. An item that another partition has too is unsettled: the index is just moving it."""
        self.units += page.units
        self.skipped += page.skipped
        for item in page.items:
            other = self.items.setdefault(item.key, item)
            if other.sentiment != item.sentiment:
                self.unsettled.add(item.key)

    def batch(self, span: tuple[float, float] | None, watermark: float | None = None) -> Batch:
        """All of it as a batch."""
        settled = [item for key, item in self.items.items() if key not in self.unsettled]
        return Batch(settled, frozenset(self.unsettled), (), span, watermark, self.units, dict(self.skipped))


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
    ) -> None:
        self._client = client
        self._table = table
        self._index = index
        self._budget = budget
        self._population = population
        self._clock = clock or Clock()
        self._units_per_item = _GUESSED_UNITS_PER_ITEM
        self._sweep: Sweep | None = None
        self.hot_seconds = HOT_SECONDS
        """How far back the part reaches that every read covers; the whole window, where that fits the budget."""

    async def read(self, low: float, *, whole: bool) -> AsyncIterator[Batch]:
        """Read the hot end and go on with the sweep, or read the whole window."""
        now = self._clock.wall()
        if whole:
            self._sweep = None
            async for batch in self._pages(low, now):
                yield batch
        elif self._cost(low, FOREVER) <= self._budget:
            self._sweep, self.hot_seconds = None, now - low
            found, _ = await self._gather(low, FOREVER)
            yield found.batch((low, FOREVER), None if found.unsettled else now)
        else:
            async for batch in self._hot_and_sweep(low, now):
                yield batch

    async def _pages(self, low: float, now: float) -> AsyncIterator[Batch]:
        """The whole window, newest first, a page of each partition at a time."""
        starts: dict[Label, dict[str, Any] | None] = dict.fromkeys(LABELS)
        items, units = 0, 0.0
        while starts:
            found, starts = await self._round(starts, low, FOREVER)
            items, units = items + len(found.items), units + found.units
            yield found.batch((low, FOREVER) if not starts else None, now if not starts else None)
        self._learn(items, units)

    async def _hot_and_sweep(self, low: float, now: float) -> AsyncIterator[Batch]:
        self.hot_seconds = HOT_SECONDS
        while self._cost(now - self.hot_seconds, FOREVER) > self._budget / 2 and self.hot_seconds > COLDEST_HOT:
            self.hot_seconds = max(COLDEST_HOT, self.hot_seconds / 2)
        hot = float(int(now - self.hot_seconds))
        found, _ = await self._gather(hot, FOREVER)
        yield found.batch((hot, FOREVER))
        left = self._budget - found.units
        if self._sweep is None or self._sweep.at > hot:
            self._sweep = Sweep(now, hot)
        sweep = self._sweep
        sweep.settled &= not found.unsettled
        while left > 0 and sweep.at > low:
            batch = await self._slice(sweep, low, left)
            left -= max(batch.units, len(LABELS) * _EMPTY_QUERY)  # emulators answer 0 for what costs something
            yield batch
        if sweep.at <= low:
            self._sweep = None

    async def _slice(self, sweep: Sweep, low: float, units: float) -> Batch:
        """The next slice of a sweep: the same span in all partitions, as long as the units are likely to pay for."""
        wanted = max(1, int(units / self._units_per_item))
        start = max(low, float(int(min(self._population.reach(sweep.at, wanted), sweep.at - 1))))
        found, covered = await self._gather(start, sweep.at, most=wanted + 100)
        if covered >= sweep.at:  # a crowd within one second, or a timestamp that is none: take that second whole
            found, covered = await self._gather(max(low, sweep.at - 1), sweep.at)
        span = (covered, sweep.at)
        sweep.at = covered
        sweep.settled &= not found.unsettled
        return found.batch(span, sweep.started if sweep.at <= low and sweep.settled else None)

    async def _gather(self, low: float, high: float, most: int | None = None) -> tuple[Gathered, float]:
        """All pages of a span, or about `most` items of each partition; and from where on they are complete."""
        starts: dict[Label, dict[str, Any] | None] = dict.fromkeys(LABELS)
        found = Gathered()
        while starts:
            part, starts = await self._round(starts, low, high, most)
            for key, item in part.items.items():
                other = found.items.setdefault(key, item)
                if other.sentiment != item.sentiment:
                    found.unsettled.add(key)
            found.unsettled |= part.unsettled
            found.units += part.units
            found.skipped += part.skipped
            if most is not None and starts:
                break
        self._learn(len(found.items), found.units)
        ends = [_whole_second_after(rest) for rest in starts.values() if rest is not None]
        return found, min(max([low, *ends]), high)

    async def _round(
        self, starts: dict[Label, dict[str, Any] | None], low: float, high: float, most: int | None = None
    ) -> tuple[Gathered, dict[Label, dict[str, Any] | None]]:
        """One page of each partition that has more, read side by side; and where each goes on."""
        try:
            async with asyncio.TaskGroup() as group:
                reads = {
                    label: group.create_task(self._page(label, low, high, start, most))
                    for label, start in starts.items()
                }
        except* SourceError as errors:
            raise errors.exceptions[0] from None
        found = Gathered()
        for read in reads.values():
            found.add(read.result())
        return found, {label: read.result().rest for label, read in reads.items() if read.result().rest is not None}

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
            raise SourceError(f"cannot read {self._table}: no answer within {PAGE_SECONDS:g} s") from error

    def _ask(self, request: dict[str, Any]) -> Page:
        """One Query, in a thread."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = self._client().query(**request)
            items, skipped = items_in(answer["Items"])
        except (BotoCoreError, ClientError, KeyError) as error:
            raise SourceError(f"cannot read {self._table}: {error}") from error
        units = answer.get("ConsumedCapacity", {}).get("CapacityUnits", 0.0)
        return Page(items, float(units), skipped, answer.get("LastEvaluatedKey"))

    def _cost(self, low: float, high: float) -> float:
        """The read units that a span is likely to cost: half a unit for each query, and what its items add."""
        return len(LABELS) * _EMPTY_QUERY + self._population.count(low, high) * self._units_per_item

    def _learn(self, items: int, units: float) -> None:
        """Learn what an item costs from a read of some size; small ones are mostly rounding."""
        if items >= 100 and units > 0:
            self._units_per_item = max(units / items, 1e-4)


def items_in(records: Sequence[dict[str, Any]]) -> tuple[list[Item], Counter[str]]:
    """The items of some records, and how many did not fit, by kind."""
    items: list[Item] = []
    skipped: Counter[str] = Counter()
    for record in records:
        try:
            items.append(item_in(record))
        except MalformedItem as misfit:
            skipped[str(misfit)] += 1
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


def _whole_second_after(rest: dict[str, Any]) -> float:
    """The first whole second behind the last item of a page: from there on its partition is complete."""
    try:
        return float(int(datetime.fromisoformat(rest["timestamp"]["S"]).replace(tzinfo=UTC).timestamp()) + 1)
    except ValueError:
        return FOREVER
