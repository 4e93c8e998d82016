"""What a chaos run writes down: what the table said and when, and what each reader heard. Nothing here does anything.

Every state that an item is ever in has a number of its own, which it carries as its confidence in millionths: so what
a reader heard is compared with the table by its data, and nothing of how the service makes ids is relied on. All times
are of one monotonic clock.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

SCALE = 1_000_000
"""The confidence of the state with the number n is n / SCALE."""


@dataclass(frozen=True, slots=True)
class Written:
    """One state of one item, the `version`-th of it. It was in the table from some moment between `began` and `done`.

    `timestamp` and `source` are as an event shows them.
    """

    number: int
    item: str
    version: int
    tickers: tuple[str, ...]
    label: str
    score: float
    source: str
    timestamp: str
    began: float
    done: float

    def shows(self, ticker: str) -> tuple[object, ...]:
        """What an update of it must say."""
        return ticker, self.label, self.score, self.source, self.timestamp


@dataclass(frozen=True, slots=True)
class Update:
    """A `sentiment_update` as it was heard."""

    at: float
    number: int
    identity: str
    ticker: str
    label: str
    score: float
    source: str
    timestamp: str

    def shows(self) -> tuple[object, ...]:
        """What it says."""
        return self.ticker, self.label, self.score, self.source, self.timestamp


@dataclass(slots=True)
class Connection:
    """One connection of a reader's: what it brought, and how it ended.

    `mode` is the `resume` that it began with, "opening" where it began without, and "" where it ended before either
    could be told. `with_id` is whether the reader said where it had been.
    """

    asked: float
    with_id: bool
    mode: str = ""
    began: float = 0.0
    """When the mode was told."""
    replayed: int = 0
    updates: list[Update] = field(default_factory=list)
    heard: float = 0.0
    """When it brought its last event."""
    open: bool = False
    closed: float | None = None
    reason: str = ""


@dataclass(slots=True)
class History:
    """One reader's: its connections in their order. `tickers`: those that it asked for; None for all."""

    name: str
    tickers: frozenset[str] | None = None
    connections: list[Connection] = field(default_factory=list)
    heard: array[float] = field(default_factory=lambda: array("d"))
    """When it heard anything at all."""
    live: array[float] = field(default_factory=lambda: array("d"))
    """When it was told that the feed is live."""
    totals: int | None = None
    """What the last totals said."""
    attempts: int = 0
    """How often it asked for a stream."""
    repeats: int = 0
    """What the client dropped by the rule of ids."""
    failure: str = ""
    """Why it gave up, if it did: it never should."""

    def wants(self, ticker: str) -> bool:
        """Whether it asked for a ticker."""
        return self.tickers is None or ticker in self.tickers


@dataclass(frozen=True, slots=True)
class Episode:
    """What was done to the service at a time, and when: `ended` is when everything worked again."""

    kinds: tuple[str, ...]
    began: float
    ended: float
    hidden: float | None = None
    """Until when what was written may be read, or heard, later than otherwise; None if it may not."""


@dataclass(slots=True)
class Record:
    """Everything about a run. `over` is when the quiet at its end had lasted long enough for all to be heard."""

    written: list[Written]
    histories: list[History]
    episodes: list[Episode]
    began: float
    over: float


def wanted(writes: Iterable[Written], history: History) -> list[tuple[Written, str]]:
    """The updates that a reader's filter lets through: of each state one for each of its tickers."""
    return [(one, ticker) for one in writes for ticker in one.tickers if history.wants(ticker)]
