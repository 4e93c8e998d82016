"""Items: records of the sentiment table, as they leave DynamoDB and as the feed keeps them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from sys import intern
from typing import Any, cast

from quartsse.hub.events import Label
from quartsse.hub.filters import TICKER

PROJECTION = ("source_id", "timestamp", "sentiment", "score", "confidence", "matched_tickers", "sources")
"""All that is ever fetched: never a headline, a text or an address."""

LABELS: tuple[Label, ...] = ("positive", "neutral", "negative")
MOST_TICKERS = 50
_LONGEST_KEY = 1024
LONGEST_SOURCE = 64
_SIGNED: Mapping[str, Callable[[float], float]] = {
    "positive": lambda confidence: confidence,
    "neutral": lambda _: 0.0,
    "negative": lambda confidence: 0.0 - confidence,
}
"""The score by label, from the confidence. What is equal is one object: a float takes 24 bytes of each item."""

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]00:?00)?", re.ASCII)

type Record = Mapping[str, Mapping[str, Any]]
"""A record in DynamoDB's own JSON: attribute name to `{"S": "text"}`, `{"N": "1.5"}`, `{"L": […]}`, …"""


class MalformedItem(ValueError):
    """A record that does not fit; the text is the kind of misfit, one of a handful of words."""


@dataclass(slots=True)
class Item:
    """One analysed item. Kept small: a window may hold a hundred thousand of them.

    `key` is `source_id`, a line feed, and the timestamp as stored; `time` is that in Unix seconds. `seen` belongs to
    the window: the number of the read that saw it last.
    """

    key: str
    time: float
    sentiment: Label
    score: float
    confidence: float
    tickers: tuple[str, ...]
    source: str
    seen: int = 0

    def says_the_same(self, other: "Item") -> bool:
        """Whether sentiment, score and confidence are equal: what an update is made of."""
        return self.sentiment == other.sentiment and self.score == other.score and self.confidence == other.confidence


def key_of(source_id: str, timestamp: str) -> str:
    """The key of an item from the table's two keys."""
    return f"{source_id}\n{timestamp}"


def item_in(record: Record) -> Item:
    """The item in a record. Raises MalformedItem."""
    source_id, stamp = _text(record, "source_id"), _text(record, "timestamp")
    sentiment = _text(record, "sentiment")
    if sentiment not in _SIGNED:
        raise MalformedItem("sentiment")
    score, confidence = _scores(record, sentiment)
    tickers = _tickers(record)
    source = (_texts(record, "sources") or (source_id.partition(":")[0],))[0][:LONGEST_SOURCE]
    return Item(
        key_of(source_id, stamp),
        moment(stamp),
        cast("Label", intern(sentiment)),
        score,
        confidence,
        tickers,
        intern(source if source.isascii() else source.encode("utf-8", "replace").decode()),
    )


def moment(stamp: str) -> float:
    """Unix seconds of an ISO 8601 time in UTC (`Z`, `+00:00` or no suffix). Raises MalformedItem.

    Other offsets and other ways to write a date are refused: the index orders timestamps as text, and such an item
    would lie hours off its place.
    """
    if _MOMENT.fullmatch(stamp) is None:
        raise MalformedItem("timestamp")
    try:
        return datetime.fromisoformat(stamp).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise MalformedItem("timestamp") from None


def _text(record: Record, name: str) -> str:
    value = record.get(name, {}).get("S")
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_KEY:
        raise MalformedItem(name)
    return value


def _number(record: Record, name: str) -> float | None:
    value = record.get(name)
    if value is None or "NULL" in value:
        return None
    try:
        return float(value["N"])
    except (KeyError, TypeError, ValueError):
        raise MalformedItem(name) from None


def _scores(record: Record, sentiment: str) -> tuple[float, float]:
    """The signed score and the confidence (contract: the item's `score` is a confidence unless it has its own)."""
    score, own = _number(record, "score"), _number(record, "confidence")
    if score is None or not -1 <= score <= 1:
        raise MalformedItem("score")
    if own is not None:
        if not 0 <= own <= 1:
            raise MalformedItem("confidence")
        return score + 0.0, own + 0.0
    if score < 0:
        raise MalformedItem("score")
    confidence = score + 0.0  # and never -0.0, which JSON would show
    return _SIGNED[sentiment](confidence), confidence


def _texts(record: Record, name: str) -> tuple[str, ...]:
    value = record.get(name)
    if value is None or "NULL" in value:
        return ()
    if "SS" in value:
        texts = value["SS"]
    elif "L" in value:
        texts = [element.get("S") for element in value["L"]]
    else:
        raise MalformedItem(name)
    if not all(isinstance(text, str) and text for text in texts):
        raise MalformedItem(name)
    return tuple(texts)


_known_tickers: dict[tuple[str, ...], tuple[str, ...]] = {}
_MOST_KNOWN = 20_000


def _tickers(record: Record) -> tuple[str, ...]:
    """Upper-cased, each once. Items share the tuple, and the checks are made once for each distinct list."""
    written = _texts(record, "matched_tickers")
    known = _known_tickers.get(written)
    if known is not None:
        return known
    if len(written) > MOST_TICKERS:
        raise MalformedItem("matched_tickers")
    tickers = tuple(dict.fromkeys(intern(ticker.upper()) for ticker in written))
    if not all(ticker.isascii() for ticker in written) or not all(map(TICKER.fullmatch, tickers)):
        raise MalformedItem("matched_tickers")
    if len(_known_tickers) >= _MOST_KNOWN:
        _known_tickers.clear()
    _known_tickers[written] = tickers
    return tickers
