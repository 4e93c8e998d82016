"""The truth: whatever happens to the table and to the way there, in the end the feed has said exactly that.

Source, window, poller and hub as the service puts them together, over two implementations of DynamoDB's API, with a
proxy between that fails at random.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Coroutine
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from itertools import count, pairwise
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from quartsse.feed.items import Item, item_in
from quartsse.hub.filters import Filter
from quartsse.tools.news import Record
from tests.dynamodb import key_of, record, tables_at
from tests.feed import fault_proxy as faults
from tests.feed.fault_proxy import fault_proxy
from tests.feed.rig import rig

LABELS = st.sampled_from(["positive", "neutral", "negative"])
FRESH = st.sampled_from([0.0, 1.0, -200.0, 250.0])
LATE = st.integers(300, 86_000)
"""Ages of items, in seconds: as the hot end sees them, and anywhere behind it."""
WRITTEN = st.fixed_dictionaries({"age": FRESH | LATE, "label": st.none() | LABELS})
ANALYSED = st.fixed_dictionaries(
    {"which": st.integers(0, 3), "label": LABELS, "tenth": st.integers(1, 9), "again": st.booleans()}
)
DELETED = st.fixed_dictionaries({"which": st.integers(0, 3)})
EVENTS = st.lists(
    st.tuples(st.just("write"), WRITTEN)
    | st.tuples(st.just("analyse"), ANALYSED)
    | st.tuples(st.just("analyse"), ANALYSED)
    | st.tuples(st.just("delete"), DELETED),
    min_size=1,
    max_size=4,
)
"""What writers do in a row. Drawn, and not rules: of those Hypothesis leaves some out of each example."""
FAULTS = {
    "throttled": faults.throttling,
    "breaking": faults.breaking,
    "half": faults.half_an_answer,
    "later": faults.later_pages(faults.server_error),
    "now and then": faults.every(3, faults.breaking),
    "hanging": faults.every(4, faults.hanging),
    "refused": faults.access_denied,
    "a partition refused": faults.of_label("neutral", faults.access_denied),
}
"""Of these, botocore tries again what breaks or is throttled, and a failed read is soonest one that is refused."""

type State = tuple[str, float, float]


class Truth(RuleBasedStateMachine):
    """What happens to a table, and what the feed made of it when all is quiet again."""

    def __init__(self, endpoint: str, expiry: str | None) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.patch = pytest.MonkeyPatch()
        self.parts, self.tables = AsyncExitStack(), ExitStack()
        self.endpoint, self.expiry = endpoint, expiry
        self.written: dict[str, Record] = {}
        """The items of the table, by name."""
        self.before: dict[str, State] = {}
        """What was true when it was quiet last, by key."""
        self.since: dict[str, list[State]] = {}
        """What became true since."""
        self.heard = 0
        self.numbers = count(1)

    def do[T](self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize(budget=st.sampled_from([100.0, 3.0, 2.0]), old=st.lists(LATE, max_size=25))
    def begin(self, budget: float, old: list[int]) -> None:
        self.table = self.tables.enter_context(tables_at(self.endpoint, expiry=self.expiry))
        news = [record(f"old:{n}", f"T{n}", age=age, sentiment="neutral") for n, age in enumerate(old)]
        self.do(self.table.fill(news))
        self.written = {one["source_id"]["S"]: one for one in news}
        self.proxy = self.do(self.parts.enter_async_context(fault_proxy(self.endpoint)))
        feed = rig(self.table, self.patch, endpoint=self.proxy.endpoint, budget=budget, interval=0.02, patience=0.15)
        self.feed = self.do(self.parts.enter_async_context(feed))
        self.before = {one.key: state(one) for one in self.true_items()}

    @rule(events=EVENTS)
    def happen(self, events: list[tuple[str, dict[str, Any]]]) -> None:
        for name, how in events:
            if name == "write":
                self.write(**how)
            elif self.written:
                getattr(self, name)(**how)

    def write(self, age: float, label: str | None) -> None:
        """An item as it is first written, mostly without a sentiment."""
        number = next(self.numbers)
        self.put(record(f"item:{number}", f"I{number % 4}", "ALL", age=age, sentiment=label))

    def analyse(self, which: int, label: str, tenth: int, again: bool) -> None:
        """For the first time or again; perhaps with the same label."""
        name = self.pick(which)
        label = self.written[name].get("sentiment", {}).get("S", label) if again else label
        self.do(self.table.analyse(key_of(self.written[name]), label, tenth / 10))
        self.written[name] |= {"sentiment": {"S": label}, "score": {"N": str(tenth / 10)}}
        one = item_in(self.written[name])
        self.since.setdefault(one.key, []).append(state(one))

    def delete(self, which: int) -> None:
        self.do(self.table.delete(key_of(self.written.pop(self.pick(which)))))

    @rule(label=LABELS)
    def write_what_leaves_soon(self, label: str) -> None:
        """An item that is analysed when it has almost left the window."""
        if "last:1" not in self.written:
            self.put(record("last:1", "L", age=86_400 - 0.3, sentiment=label))

    @rule()
    def write_nonsense(self) -> None:
        self.do(self.table.fill([record("bad:1", sentiment="positive") | {"matched_tickers": {"N": "1"}}]))

    @rule(kind=st.sampled_from(sorted(FAULTS)), seconds=st.sampled_from([0.0, 0.15]), meanwhile=EVENTS)
    def fail(self, kind: str, seconds: float, meanwhile: list[tuple[str, dict[str, Any]]]) -> None:
        self.proxy.fault = FAULTS[kind]
        self.do(asyncio.sleep(seconds))
        self.happen(meanwhile)

    @rule()
    def lose_connections(self) -> None:
        self.proxy.lose_connections()

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.05, 0.15]), then=EVENTS)
    def go_on(self, seconds: float, then: list[tuple[str, dict[str, Any]]]) -> None:
        self.do(asyncio.sleep(seconds))
        self.happen(then)

    @precondition(lambda self: self.since)
    @rule()
    def be_quiet(self) -> None:
        """Let the way be clear until three more reads have covered everything, and compare."""
        self.proxy.fault = None
        self.do(self.coverages(3))
        true = {one.key: state(one) for one in self.true_items()}
        seen = {one.key: state(one) for one in self.feed.poller.window}
        assert seen == true
        self.compare(true)
        self.compare_sums()
        self.compare_order()
        self.before, self.since = true, {}

    def compare(self, true: dict[str, State]) -> None:
        """What was told since it was quiet last is, for each item and ticker, some of what happened, in that order."""
        updates = self.feed.listener.updates[self.heard :]
        self.heard = len(self.feed.listener.updates)
        told: dict[tuple[str, str | None], list[State]] = {}
        for update, said in zip(updates, self.feed.told[-len(updates) or len(self.feed.told) :], strict=True):
            told.setdefault((update.identity.split("-")[0], update.ticker), []).append(
                (said["label"], said["score"], said["confidence"])
            )
        for one in self.true_items():
            for ticker in one.tickers:
                identity = self.feed.poller.window.update(one, ticker).identity.split("-")[0]
                mine = told.pop((identity, ticker), [])
                history = self.since.get(one.key, [])
                assert is_in_order(mine, history)
                assert not any(one == other for one, other in pairwise([self.before.get(one.key), *mine]))
                if self.before.get(one.key) != true[one.key]:
                    assert mine[-1:] == [true[one.key]]
        for left in told.values():  # of items that are gone again
            assert any(is_in_order(left, history) for history in self.since.values())

    def compare_sums(self) -> None:
        """What is shown of each ticker is made of its items alone, and its last update is its last item's."""
        items: dict[str, list[Item]] = {}
        for one in sorted(self.true_items(), key=lambda one: (one.time, one.key)):
            for ticker in one.tickers:
                items.setdefault(ticker, []).append(one)
        window = self.feed.poller.window
        totals = window.metrics(time.time())
        labels = Counter(one.sentiment for one in self.true_items())
        assert (totals.positive, totals.neutral, totals.negative) == tuple(
            labels[label] for label in ("positive", "neutral", "negative")
        )
        assert totals.by_tag == {ticker: len(some) for ticker, some in items.items()}
        shown = [json.loads(update.data) for update in window.updates(Filter(None))]
        assert {one["ticker"]: (one["label"], one["confidence"], one["count"], one["mean_score"]) for one in shown} == {
            ticker: (
                some[-1].sentiment,
                some[-1].confidence,
                len(some),
                pytest.approx(sum(one.score for one in some) / len(some), abs=1e-4),
            )
            for ticker, some in items.items()
        }

    def compare_order(self) -> None:
        """What is told in one go is told old before new, for each ticker: its last update is the one that counts."""
        for tick in self.feed.listener.ticks:
            told: dict[str | None, list[str]] = {}
            for update in tick:
                told.setdefault(update.ticker, []).append(json.loads(update.data)["timestamp"])
            assert all(stamps == sorted(stamps) for stamps in told.values())
        self.feed.listener.ticks.clear()

    def pick(self, which: int) -> str:
        """One of the items that were written or changed last: so that things happen to the same one again."""
        names = list(self.written)
        return names[-1 - which % len(names)]

    def put(self, item: Record) -> None:
        self.do(self.table.fill([item]))
        self.written[item["source_id"]["S"]] = dict(item)
        if "sentiment" in item:
            one = item_in(item)
            self.since.setdefault(one.key, []).append(state(one))

    def true_items(self) -> list[Item]:
        """What is in the table, analysed, and not too old."""
        items = [item_in(one) for one in self.written.values() if "sentiment" in one]
        return [one for one in items if one.time >= self.feed.poller.window.low]

    async def coverages(self, count: int) -> None:
        for _ in range(count + 1):
            last = self.feed.listener.place.watermark
            assert await self.feed.until(partial(self.covered_since, last), 30)

    def covered_since(self, watermark: float) -> bool:
        return self.feed.listener.place.watermark > watermark

    def teardown(self) -> None:
        try:
            if hasattr(self, "feed"):
                self.be_quiet()
        finally:
            self.do(self.parts.aclose())
            self.tables.close()
            self.patch.undo()
            self.loop.close()


def state(one: Item) -> State:
    return one.sentiment, one.score, one.confidence


def is_in_order(some: list[State], whole: list[State]) -> bool:
    """Whether some things are among others, in the same order."""
    rest = iter(whole)
    return all(any(one == other for other in rest) for one in some)


@pytest.mark.parametrize("kind", ["dynamodb", "dynalite"])
def test_in_the_end_the_feed_has_said_exactly_what_happened(kind: str, request: pytest.FixtureRequest) -> None:
    endpoint: str = request.getfixturevalue(kind)
    run_state_machine_as_test(
        cast("type[RuleBasedStateMachine]", partial(Truth, endpoint, "ttl" if kind == "dynamodb" else None)),
        settings=settings(
            max_examples=8 if kind == "dynamodb" else 20,
            stateful_step_count=25,
            deadline=None,
            database=None,
            phases=(Phase.generate,),  # what depends on real time does not shrink
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
