"""The checker: every reader's history against the table's. Pure: a record in, breaches out.

What it holds a run to is what `docs/concepts.md` promises:

- Nothing invented: an update says what the table said, of a ticker that was asked for, and not before it was written;
  an identity means one thing, for everyone.
- Nothing twice, each item's states in their order: within a connection always; from one to the next where it was
  `exact`. An `overlap` may show states again that another instance read later, in their order; never the one that the
  reader had last, which the rule of ids drops. A new opening shows what its instance has read.
- Nothing lost, from an opening on for as long as resumes are `exact` or `overlap`: not the last state of a ticker at
  the opening, and no state that was written since; but one that stood for less than an instance takes to read the table
  may have been folded into the next.
- No item is left in an older state than was shown of it, unless a new opening follows at once, which may fold what lies
  between; in the end each ticker's last state is right, the feed is live, and the totals are the table's.
- Every connection ended by a reason that the contract names, or was cut; everyone is back in time.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.proof.chaos.history import Connection, Episode, History, Record, Update, Written, wanted

BACK = 10.0
"""Seconds after an episode in which everyone has to be back."""
LAG = 15.0
"""Seconds in which what is written is read, by a sweep at the latest, published and heard, if nothing is wrong."""
SILENCE = 4.0
"""Seconds: who heard nothing for so long, where a heartbeat comes every other, was disturbed."""

REASONS = {
    "deadline",
    "draining",
    "lagged",
    "max_age",
    "configuration_removed",
    "unauthorized",
    "connection_limit",
    "unavailable",
}
_ENDED = "ended by the server"
LEFT = "closed by the reader"


@dataclass(frozen=True, slots=True, order=True)
class Breach:
    """Something that must not be: when it was seen, whose history it is in, its kind, and the rest in words."""

    at: float
    kind: str
    reader: str
    words: str


class Table:
    """What the table said, as questions about moments. `blind`: when it was hidden from somebody."""

    def __init__(self, written: Iterable[Written], blind: Iterable[tuple[float, float]] = ()) -> None:
        self.written = sorted(written, key=lambda one: one.began)
        self._by_number = {one.number: one for one in self.written}
        self._blind = _merged(blind)
        self._next: dict[int, float] = {}
        versions: defaultdict[str, list[Written]] = defaultdict(list)
        for one in self.written:
            versions[one.item].append(one)
        for states in versions.values():
            self._next |= {one.number: later.began for one, later in pairwise(states)}
        self.size = len(versions)
        """How many items there are in the end."""
        self._lasts: dict[str, tuple[list[float], list[Written]]] = defaultdict(lambda: ([], []))
        for one in sorted(self.written, key=lambda one: one.done):
            for ticker in one.tickers:
                self._note_last(*self._lasts[ticker], one)

    def find(self, number: int) -> Written | None:
        """The state with a number."""
        return self._by_number.get(number)

    def replaced(self, one: Written) -> float:
        """When the next state of its item began to be written."""
        return self._next.get(one.number, float("inf"))

    def tickers(self) -> Iterable[str]:
        """Those of which there has ever been anything."""
        return self._lasts

    def last(self, ticker: str) -> Written:
        """A ticker's last state in the end: that of its item with the greatest timestamp, then name."""
        return self._lasts[ticker][1][-1]

    def last_throughout(self, ticker: str, since: float, until: float) -> Written | None:
        """What was a ticker's last state from one moment to another; None if nothing was, or another may have been."""
        times, states = self._lasts[ticker]
        place = bisect_right(times, since)
        if not place or any(later.began <= until for later in states[place : place + 20]):
            return None
        return states[place - 1]

    def readable(self, since: float, until: float) -> float:
        """For how many of the seconds between two moments nothing hid the table from anybody."""
        hidden = sum(max(0.0, min(until, end) - max(since, begin)) for begin, end in self._blind)
        return max(0.0, until - since) - hidden

    @staticmethod
    def _note_last(times: list[float], states: list[Written], one: Written) -> None:
        if not states or (one.timestamp, one.item) >= (states[-1].timestamp, states[-1].item):
            times.append(one.done)
            states.append(one)


class Identities:
    """What identities mean: one each, the same for every reader and from every instance."""

    def __init__(self) -> None:
        self._meaning: dict[str, tuple[int, str]] = {}
        self._names: dict[tuple[int, str], str] = {}

    def agree(self, update: Update) -> bool:
        """Whether an update's identity is the one that its state has for its ticker, and no other's."""
        meaning = (update.number, update.ticker)
        return (
            self._meaning.setdefault(update.identity, meaning) == meaning
            and self._names.setdefault(meaning, update.identity) == update.identity
        )


@dataclass(slots=True)
class Chain:
    """Connections of which each went on where the one before it stopped, and the opening that they began with."""

    asked: float
    began: float
    heard: float


@dataclass
class Reading:
    """One history, read from its beginning to its end."""

    history: History
    table: Table
    identities: Identities
    breaches: list[Breach] = field(default_factory=list)
    again: int = 0
    """States that an overlap or an opening showed again."""
    required: int = 0
    """States that had to be shown: whether they were is what loss is judged by."""
    folded: int = 0
    """States that were never shown, because the next one stood there before any instance had to have read them."""
    _had: set[tuple[int, str]] = field(default_factory=set)
    _last: dict[tuple[str, str], Written] = field(default_factory=dict)
    _back: dict[tuple[str, str], tuple[Written, float]] = field(default_factory=dict)
    """Of what the reader knows an older state than it was shown: the newest one, and when it stepped back."""
    _chain: Chain | None = None

    def read(self, over: float) -> None:
        """Judge it; `over` is when all had to be heard."""
        for connection in self.history.connections:
            self._connection(connection)
        if self._chain is not None:
            self._chain.heard = over
            self._end_chain()
        self._judge_the_end(over)

    def _connection(self, connection: Connection) -> None:
        if connection.mode == "opening" and connection.with_id:
            self._say(connection.began, "not resumed", "it sent an id, and its stream began without a `resume`")
        if connection.mode in ("opening", "snapshot"):
            self._end_chain()
            self._chain = Chain(connection.asked, connection.began, connection.heard)
        elif self._chain is not None and connection.heard:
            self._chain.heard = connection.heard
        here: dict[tuple[str, str], int] = {}
        for update in connection.updates:
            self._update(update, connection.mode, here)
        reason = connection.reason
        if reason.startswith(_ENDED) and reason.removeprefix(f"{_ENDED}: ") not in REASONS:
            self._say(connection.closed or 0.0, "unexplained end", repr(reason))

    def _update(self, update: Update, mode: str, here: dict[tuple[str, str], int]) -> None:
        state = self.table.find(update.number)
        if state is None or update.shows() != state.shows(update.ticker) or update.ticker not in state.tickers:
            self._say(update.at, "invented", f"{update} where the table has {state}")
            return
        if update.at < state.began:
            self._say(update.at, "invented", f"{update} before it was written at {state.began}")
        if not self.history.wants(update.ticker):
            self._say(update.at, "not asked for", f"{update}")
        if not self.identities.agree(update):
            self._say(update.at, "ambiguous", f"{update}: this identity and this state had others")
        key = (state.item, update.ticker)
        self._order(update, state, mode, here.get(key))
        here[key] = state.version
        self._had.add((state.number, update.ticker))
        self._last[key] = state
        if key in self._back and state.version >= self._back[key][0].version:
            del self._back[key]

    def _order(self, update: Update, state: Written, mode: str, here: int | None) -> None:
        """Judge an update by what came of its item before: on this connection, and ever."""
        last = self._last.get((state.item, update.ticker))
        if last is None or state.version > last.version:
            return
        words = f"{state.item} to {update.ticker}: state {state.version} after {last.version}, resumed `{mode}`"
        if state.version == last.version:
            self._say(update.at, "twice", words)
        elif here is not None or mode == "exact":
            self._say(update.at, "disordered", words)
        else:
            self.again += 1
        self._back.setdefault((state.item, update.ticker), (last, update.at))

    def _end_chain(self) -> None:
        """Look for what was lost between an opening and the last that was heard of what went on from it."""
        chain, self._chain = self._chain, None
        if chain is None:
            return
        for ticker in filter(self.history.wants, self.table.tickers()):
            last = self.table.last_throughout(ticker, chain.asked, chain.began)
            if last is not None:
                self._require(last, ticker, chain.began, chain)
        for state, ticker in self._written_in(chain):
            self._require(state, ticker, state.done, chain)
        for (item, ticker), (newest, at) in self._back.items():
            if self.table.readable(at, chain.heard) >= LAG:
                words = (
                    f"{item} to {ticker} is left in state {self._last[item, ticker].version}, after {newest.version}"
                )
                self._say(at, "stepped back", words)
        self._back.clear()

    def _written_in(self, chain: Chain) -> list[tuple[Written, str]]:
        writes = self.table.written
        low = bisect_right(writes, chain.began, key=lambda one: one.began)
        high = bisect_left(writes, chain.heard, key=lambda one: one.began)
        return wanted(writes[low:high], self.history)

    def _require(self, state: Written, ticker: str, since: float, chain: Chain) -> None:
        """Hold that a state, or a later one of its item, was shown, if it stood for long enough to be read."""
        replaced = self.table.replaced(state)
        must = self.table.readable(since, min(replaced, chain.heard)) >= LAG
        self.required += must
        if (state.number, ticker) in self._had:
            return
        if must:
            words = f"{state} to {ticker}, by a reader whose resumes since {chain.began} were all exact or overlap"
            self._say(state.done, "lost", words)
        elif replaced < chain.heard:
            self.folded += 1

    def _judge_the_end(self, over: float) -> None:
        for ticker in filter(self.history.wants, self.table.tickers()):
            last = self.table.last(ticker)
            known = self._last.get((last.item, ticker))
            if known != last:
                self._say(over, "wrong last state", f"{ticker} is {last}, and was last told {known}")
        if self.history.totals is not None and self.history.totals != self.table.size:
            self._say(over, "wrong totals", f"{self.history.totals} where the table has {self.table.size}")
        if over - (self.history.live[-1] if self.history.live else 0.0) > SILENCE:
            self._say(over, "not live", "it was not told that the feed is live")
        if self.history.failure:
            self._say(over, "gave up", self.history.failure)

    def _say(self, at: float, kind: str, words: str) -> None:
        self.breaches.append(Breach(at, kind, self.history.name, words))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of it: the breaches, the earliest first, and what was allowed and happened."""

    breaches: list[Breach]
    again: int
    required: int
    folded: int


def check(record: Record) -> Verdict:
    """Judge a run."""
    blind = [(one.began, one.hidden) for one in record.episodes if one.hidden is not None]
    table, identities = Table(record.written, blind), Identities()
    readings = [Reading(history, table, identities) for history in record.histories]
    for reading in readings:
        reading.read(record.over)
    breaches = [breach for reading in readings for breach in reading.breaches]
    for episode in record.episodes:
        for history in record.histories:
            back = back_after(history, episode)
            if back is not None and back > BACK:
                words = f"{back:.1f} s after {', '.join(episode.kinds)}"
                breaches.append(Breach(episode.ended, "not back", history.name, words))
    return Verdict(
        sorted(breaches),
        sum(reading.again for reading in readings),
        sum(reading.required for reading in readings),
        sum(reading.folded for reading in readings),
    )


def back_after(history: History, episode: Episode) -> float | None:
    """Seconds from the end of an episode until a reader whom it disturbed heard anything; None for the undisturbed.

    What is closed within the first seconds after it counts as its doing: a connection that was held up and then reset.
    """
    window = (episode.began, episode.ended + SILENCE)
    closes = [one.closed for one in history.connections if one.closed is not None and one.reason != LEFT]
    closed = max((at for at in closes if window[0] <= at <= window[1]), default=episode.began)
    start = max(episode.ended, closed)
    index = bisect_right(history.heard, start)
    before = history.heard[index - 1] if index else episode.began
    after = history.heard[index] if index < len(history.heard) else float("inf")
    cut = closed > episode.began and before <= closed
    return max(0.0, after - episode.ended) if cut or after - before > SILENCE else None


def by_kind(breaches: Sequence[Breach]) -> Counter[str]:
    """How many there are of each kind."""
    return Counter(breach.kind for breach in breaches)


def _merged(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans that do not overlap, covering the same."""
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged
