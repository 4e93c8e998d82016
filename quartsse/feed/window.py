"""The window: the items of the last hours, and what they add up to."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import islice

from quartsse.feed.items import Item
from quartsse.hub.clock import iso
from quartsse.hub.events import Event, Metrics, SentimentUpdate, event
from quartsse.hub.filters import Filter
from quartsse.hub.ids import digest

QUARTER = 900
"""Seconds of a bucket: a quarter of an hour, the step of the history."""

MOST_TAGS = 200
FUTURE = 86_400.0
"""Items more than a day ahead of the clock are skipped: far beyond any clock that is merely wrong by an hour."""

_MICRO = 1_000_000


@dataclass(slots=True)
class Tally:
    """A ticker's items: how many, the sum of their scores in millionths (whole numbers add up without drift)."""

    count: int = 0
    sum: int = 0
    last: Item | None = None
    """The item with the greatest time, then key; None when it must be looked for."""
    said: Event | None = field(default=None, compare=False)
    """That item's update, once somebody has asked for it: every opening shows it."""

    def add(self, item: Item) -> None:
        """Count an item in."""
        self.said = None
        if self.count == 0 or (self.last is not None and _order(item) >= _order(self.last)):
            self.last = item
        self.count += 1
        self.sum += round(item.score * _MICRO)

    def remove(self, item: Item) -> None:
        """Count an item out."""
        self.said = None
        self.count -= 1
        self.sum -= round(item.score * _MICRO)
        if self.last is item:
            self.last = None

    @property
    def mean(self) -> float:
        """The mean score, to four decimals."""
        return round(self.sum / self.count / _MICRO, 4) + 0.0 if self.count else 0.0


@dataclass(slots=True)
class Bucket:
    """The items of one quarter of an hour."""

    items: dict[str, Item] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=lambda: {"positive": 0, "neutral": 0, "negative": 0})
    tallies: dict[str, Tally] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items.values())

    def last_of(self, ticker: str) -> Item | None:
        """The last item of a ticker here."""
        tally = self.tallies.get(ticker)
        if tally is None:
            return None
        if tally.last is None:
            tally.last = max((item for item in self.items.values() if ticker in item.tickers), key=_order)
        return tally.last


@dataclass(slots=True)
class Changes:
    """What some items changed: the updates to publish, the items that are new, and how many lay too far ahead."""

    updates: list[Event] = field(default_factory=list)
    new: list[Item] = field(default_factory=list)
    ahead: int = 0


class Window:
    """Every item of the last `hours`, by key, with totals kept up to date in O(change).

    Its lower edge never moves back, so a step of the wall clock cannot make old items new again.
    """

    def __init__(self, hours: float = 24.0) -> None:
        self.seconds = hours * 3600
        self.low = float("-inf")
        self.version = 0
        """Another number whenever an item has come or gone."""
        self._buckets: dict[int, Bucket] = {}
        self._tallies: dict[str, Tally] = {}
        self._labels = {"positive": 0, "neutral": 0, "negative": 0}

    def __len__(self) -> int:
        return sum(self._labels.values())

    def __iter__(self) -> Iterator[Item]:
        return (item for bucket in self._buckets.values() for item in bucket)

    def expire(self, now: float, most: int) -> int:
        """Move the lower edge to where the clock (Unix seconds) says, and drop at most so many that lie below it.

        Returns how many were dropped; after a long gap there may be more.
        """
        self.low = max(self.low, now - self.seconds)
        past = (item for start, bucket in self._buckets.items() if start * QUARTER < self.low for item in bucket)
        dropped = list(islice((item for item in past if item.time < self.low), most))
        for item in dropped:
            self._remove(item)
        return len(dropped)

    def apply(self, items: Iterable[Item], read: int, now: float, *, silent: bool = False) -> Changes:
        """Take in what a read saw; `silent` makes no updates, which are most of the work.

        An update for each ticker of an item that is new or says something else, and for each new ticker of one that
        doesn't. An item seen twice in one read with different values is left as it was first.
        """
        changes = Changes()
        for item in items:
            if item.time > now + FUTURE:
                changes.ahead += 1
            elif item.time >= self.low:
                self._take_in(item, read, changes, silent=silent)
        return changes

    def touch(self, keys: Iterable[str], read: int) -> None:
        """Say that items are there, though nobody knows yet what they say."""
        for key in keys:
            known = self.find(key)
            if known is not None:
                known.seen = read

    def missed(self, span: tuple[float, float], read: int) -> list[Item]:
        """Say that a read has been complete over a span of time. Returns what two such reads in a row did not see.

        One is not enough: an item that moves between partitions of the index can be missed by reads that are not one
        moment.
        """
        low, high = span
        missing: list[Item] = []
        for start, bucket in self._buckets.items():
            if low <= start * QUARTER and start * QUARTER + QUARTER <= high:
                missing += [item for item in bucket.items.values() if item.seen != read]
            elif low < start * QUARTER + QUARTER and start * QUARTER < high:
                missing += [item for item in bucket if item.seen != read and low <= item.time < high]
        gone = [item for item in missing if item.seen < 0]
        for item in missing:
            item.seen = -1
        return gone

    def remove(self, items: Iterable[Item]) -> None:
        """Remove items that have left the table."""
        for item in items:
            self._remove(item)

    def forget(self, key: str) -> bool:
        """Remove an item that is known to have left the table; whether it was here."""
        known = self.find(key)
        if known is None:
            return False
        self._remove(known)
        return True

    def find(self, key: str) -> Item | None:
        """The item with a key."""
        return next((bucket.items[key] for bucket in self._buckets.values() if key in bucket.items), None)

    def count(self, low: float, high: float) -> int:
        """About how many items lie between two moments; quarters that are only touched count in proportion."""
        return round(
            sum(
                len(bucket.items) * _overlap(start * QUARTER, low, high) / QUARTER
                for start, bucket in self._buckets.items()
            )
        )

    def reach(self, high: float, items: int) -> float:
        """The moment before `high` from which on so many items lie before it; the lower edge if there are fewer."""
        left = items
        for start in sorted(self._buckets, reverse=True):
            if start * QUARTER >= high:
                continue
            times = sorted((item.time for item in self._buckets[start] if item.time < high), reverse=True)
            if len(times) >= left:
                return max(self.low, times[left - 1])
            left -= len(times)
        return self.low

    def update(self, item: Item, ticker: str) -> Event:
        """The `sentiment_update` of an item for a ticker. Its identity is made from the item alone."""
        tally = self._tallies[ticker]
        said = f"{item.sentiment},{item.score!r},{item.confidence!r}"
        payload = SentimentUpdate(
            ticker=ticker,
            score=item.score,
            label=item.sentiment,
            confidence=item.confidence,
            source=item.source,
            timestamp=iso(item.time),
            count=tally.count,
            mean_score=tally.mean,
        )
        return event("sentiment_update", f"{digest(f'{item.key}\n{ticker}', 8)}-{digest(said, 5)}", payload, ticker)

    def updates(self, wanted: Filter) -> list[Event]:
        """The last update of every ticker that a filter lets through."""
        return [self._last_update(ticker) for ticker in wanted.of(self._tallies.keys())]

    def metrics(self, now: float) -> Metrics:
        """What it all adds up to at a moment (Unix seconds)."""
        return Metrics(
            total=len(self),
            positive=self._labels["positive"],
            neutral=self._labels["neutral"],
            negative=self._labels["negative"],
            by_tag={ticker: self._tallies[ticker].count for ticker in self._largest(self._tallies)},
            rate_last_hour=self._since(now - 3600),
            rate_last_24h=self._since(now - 86_400),
            timestamp=iso(now),
        )

    def history(self, wanted: Filter) -> list[dict[str, object]]:
        """The quarters of an hour of the window, oldest first, with the tickers of a filter (the 200 largest)."""
        tickers = set(self._largest(wanted.of(self._tallies.keys())))
        return [
            {
                "start": iso(start * QUARTER),
                **self._buckets[start].labels,
                "tickers": {
                    ticker: {"count": tally.count, "mean_score": tally.mean}
                    for ticker, tally in sorted(self._buckets[start].tallies.items())
                    if ticker in tickers
                },
            }
            for start in sorted(self._buckets)
        ]

    def _take_in(self, item: Item, read: int, changes: Changes, *, silent: bool) -> None:
        """Put an item in its place, and note what that changes."""
        bucket = self._buckets.get(_quarter(item))
        known = None if bucket is None else bucket.items.get(item.key)
        if known is None:
            changes.new.append(item)
            news = item.tickers
        elif known.seen == read:
            return
        elif not known.says_the_same(item):
            news = item.tickers
        elif known.tickers != item.tickers or known.source != item.source:
            news = tuple(ticker for ticker in item.tickers if ticker not in known.tickers)
        else:
            known.seen = read
            return
        if known is not None:
            self._remove(known)
        item.seen = read
        self._add(item)
        if not silent:
            changes.updates += [self.update(item, ticker) for ticker in news]

    def _add(self, item: Item) -> None:
        bucket = self._buckets.setdefault(_quarter(item), Bucket())
        bucket.items[item.key] = item
        bucket.labels[item.sentiment] += 1
        self._labels[item.sentiment] += 1
        self.version += 1
        for tallies in (bucket.tallies, self._tallies):
            for ticker in item.tickers:
                tallies.setdefault(ticker, Tally()).add(item)

    def _remove(self, item: Item) -> None:
        bucket = self._buckets[_quarter(item)]
        del bucket.items[item.key]
        bucket.labels[item.sentiment] -= 1
        self._labels[item.sentiment] -= 1
        self.version += 1
        for tallies in (bucket.tallies, self._tallies):
            for ticker in item.tickers:
                tallies[ticker].remove(item)
                if not tallies[ticker].count:
                    del tallies[ticker]
        if not bucket.items:
            del self._buckets[_quarter(item)]

    def _last_update(self, ticker: str) -> Event:
        tally = self._tallies[ticker]
        if tally.said is None:
            tally.said = self.update(self._last(ticker), ticker)
        return tally.said

    def _last(self, ticker: str) -> Item:
        tally = self._tallies[ticker]
        if tally.last is None:
            newest_first = (self._buckets[start].last_of(ticker) for start in sorted(self._buckets, reverse=True))
            tally.last = next(item for item in newest_first if item is not None)
        return tally.last

    def _since(self, low: float) -> int:
        return sum(
            len(bucket.items) if start * QUARTER >= low else sum(item.time >= low for item in bucket.items.values())
            for start, bucket in self._buckets.items()
            if start * QUARTER + QUARTER > low
        )

    def _largest(self, tickers: Iterable[str]) -> list[str]:
        return nsmallest(MOST_TAGS, tickers, key=lambda ticker: (-self._tallies[ticker].count, ticker))


def _order(item: Item) -> tuple[float, str]:
    return item.time, item.key


def _quarter(item: Item) -> int:
    return int(item.time // QUARTER)


def _overlap(start: float, low: float, high: float) -> float:
    return max(0.0, min(start + QUARTER, high) - max(start, low))
