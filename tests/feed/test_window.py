"""The window, against a model that adds everything up anew each time."""

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from quartsse.feed.items import Item
from quartsse.feed.source import FOREVER
from quartsse.feed.window import FUTURE, QUARTER, Changes, Window
from quartsse.hub.clock import iso
from quartsse.hub.filters import Filter
from tests.feed.feeding import NOW, item

HOUR = 3600.0
EVERYTHING = Filter(tickers=None)
ALWAYS = (float("-inf"), FOREVER)


def filled(*items: Item, read: int = 1) -> Window:
    window = Window()
    window.expire(NOW, 1000)
    window.apply(items, read, NOW)
    return window


def told(changes: Changes) -> list[tuple[str, str, float]]:
    said = [json.loads(update.data) for update in changes.updates]
    return [(one["ticker"], one["label"], one["score"]) for one in said]


def test_a_new_item_is_an_update_for_each_of_its_tickers() -> None:
    changes = filled().apply([item("a:1", "AAPL", "MSFT")], 1, NOW)
    assert told(changes) == [("AAPL", "positive", 0.8), ("MSFT", "positive", 0.8)]
    assert [one.key for one in changes.new] == [item("a:1").key]


def test_what_was_seen_already_is_no_change() -> None:
    assert filled(item("a:1")).apply([item("a:1")], 2, NOW) == Changes()


@pytest.mark.parametrize("changed", [{"sentiment": "negative"}, {"score": 0.7}])
def test_an_item_that_says_something_else_is_an_update_and_is_not_new(changed: dict[str, Any]) -> None:
    changes = filled(item("a:1")).apply([item("a:1", **changed)], 2, NOW)
    assert len(changes.updates) == 1
    assert not changes.new


def test_a_ticker_that_an_item_gained_is_told_and_the_others_are_not() -> None:
    window = filled(item("a:1", "AAPL"))
    assert told(window.apply([item("a:1", "AAPL", "MSFT")], 2, NOW)) == [("MSFT", "positive", 0.8)]
    assert told(window.apply([item("a:1", "MSFT")], 3, NOW)) == []
    assert window.metrics(NOW).by_tag == {"MSFT": 1}


def test_an_item_seen_twice_in_one_read_is_left_as_it_was_first() -> None:
    window = filled(item("a:1"))
    window.apply([item("a:1")], 2, NOW)
    assert window.apply([item("a:1", sentiment="negative")], 2, NOW) == Changes()
    assert told(window.apply([item("a:1", sentiment="negative")], 3, NOW)) == [("AAPL", "negative", -0.8)]


def test_the_identity_of_an_update_is_made_from_the_item_alone() -> None:
    alone = filled(item("a:1")).updates(EVERYTHING)[0]
    crowded = filled(item("a:1"), item("a:0", at=NOW - 5), read=7).updates(EVERYTHING)[0]
    assert alone.identity == crowded.identity
    assert alone.data != crowded.data  # the count is another
    assert filled(item("a:1", score=0.7)).updates(EVERYTHING)[0].identity != alone.identity
    assert filled(item("a:2")).updates(EVERYTHING)[0].identity != alone.identity


def test_an_item_is_removed_after_two_complete_reads_without_it() -> None:
    window = filled(item("a:1"))
    assert window.missed(ALWAYS, 2) == []
    assert [one.key for one in window.missed(ALWAYS, 3)] == [item("a:1").key]


def test_an_item_that_one_read_missed_and_the_next_one_saw_has_to_be_missed_twice_again() -> None:
    window = filled(item("a:1"))
    window.missed(ALWAYS, 2)
    window.apply([item("a:1")], 3, NOW)
    assert window.missed(ALWAYS, 3) == []
    assert window.missed(ALWAYS, 4) == []
    assert window.missed(ALWAYS, 5) != []


def test_an_item_that_nobody_knows_the_state_of_is_not_missed() -> None:
    window = filled(item("a:1"))
    window.missed(ALWAYS, 2)
    window.touch([item("a:1").key, "nobody"], 3)
    assert window.missed(ALWAYS, 3) == []
    assert window.missed(ALWAYS, 4) == []


def test_a_read_can_miss_only_what_lies_in_its_span() -> None:
    window = filled(item("a:1", at=NOW - 100), item("a:2", at=NOW - 50), item("a:3"))
    for read in (2, 3):
        gone = window.missed((NOW - 50, NOW), read)
    assert [one.key for one in gone] == [item("a:2", at=NOW - 50).key]


def test_a_deleted_item_leaves_at_once_and_only_once() -> None:
    window = filled(item("a:1"))
    assert window.forget(item("a:1").key)
    assert not window.forget(item("a:1").key)
    assert len(window) == 0
    assert window.metrics(NOW).by_tag == {}


def test_items_leave_at_the_lower_edge_as_many_at_once_as_are_asked_for() -> None:
    window = filled(*(item(f"a:{n}", at=NOW - n * HOUR) for n in range(20)))
    assert window.expire(NOW + 10 * HOUR, 4) == 4
    assert window.expire(NOW + 10 * HOUR, 4) == 1
    assert window.expire(NOW + 10 * HOUR, 4) == 0
    assert {one.time for one in window} == {NOW - n * HOUR for n in range(15)}


def test_a_step_back_of_the_clock_does_not_make_old_items_new_again() -> None:
    old = item("a:1", at=NOW - 23.5 * HOUR)
    window = filled(old)
    window.expire(NOW + HOUR, 10)
    window.expire(NOW, 10)
    assert window.apply([old], 2, NOW) == Changes()
    assert len(window) == 0


def test_items_far_ahead_of_the_clock_are_skipped_and_counted() -> None:
    changes = filled().apply([item("a:1", at=NOW + FUTURE + 1), item("a:2", at=NOW + HOUR)], 1, NOW)
    assert (changes.ahead, [one.time for one in changes.new]) == (1, [NOW + HOUR])


def test_the_last_update_of_a_ticker_is_by_timestamp_and_then_by_source_id() -> None:
    window = filled(item("b:1", score=0.2), item("a:9", score=0.3), item("c:1", score=0.4, at=NOW - 1))
    assert json.loads(window.updates(EVERYTHING)[0].data)["score"] == 0.2
    window.forget(item("b:1").key)
    assert json.loads(window.updates(EVERYTHING)[0].data)["score"] == 0.3


def test_the_version_changes_with_every_item_that_comes_or_goes_and_with_nothing_else() -> None:
    window = filled(item("a:1"))
    before = window.version
    window.apply([item("a:1")], 2, NOW)
    window.expire(NOW, 10)
    assert window.version == before
    window.forget(item("a:1").key)
    assert window.version != before


def test_a_count_reaches_back_to_about_as_many_items_as_are_asked_for() -> None:
    window = filled(*(item(f"a:{n}", at=NOW - n * 60) for n in range(600)))
    assert window.count(NOW - 2 * HOUR, FOREVER) == pytest.approx(120, abs=15)
    assert window.reach(FOREVER, 120) == NOW - 119 * 60
    assert window.reach(NOW - HOUR, 100) == NOW - 160 * 60
    assert window.reach(NOW, 10_000) == window.low


def test_by_tag_holds_the_two_hundred_largest() -> None:
    window = filled(*(item(f"a:{n}", f"T{n % 300}", at=NOW - n) for n in range(500)))
    by_tag = window.metrics(NOW).by_tag
    assert len(by_tag) == 200
    assert set(by_tag.values()) == {2}


LABELS = st.sampled_from(["positive", "neutral", "negative"])
TICKERS = st.lists(st.sampled_from(["AAPL", "MSFT", "TSLA", "V"]), max_size=3, unique=True).map(tuple)
KEYS = st.tuples(st.sampled_from("abcdefgh"), st.sampled_from([0, 0, 1, 900, 3600, 3601, 80_000, 86_000]))


class AgainstAModel(RuleBasedStateMachine):
    """Everything that can happen to a window, and a dictionary to which the same happens."""

    keys: Bundle[str] = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        self.window = Window()
        self.now = NOW
        self.read = 0
        self.model: dict[str, Item] = {}
        self.missed: Counter[str] = Counter()
        self.low = NOW - 24 * HOUR
        self.window.expire(self.now, 10_000)

    @rule(seen=st.lists(st.tuples(KEYS, LABELS, st.sampled_from([0.1, 0.8]), TICKERS), max_size=8), whole=st.booleans())
    def read_some(self, seen: list[Any], whole: bool) -> None:
        self.read += 1
        items: dict[str, Item] = {}
        for (name, ago), label, score, tickers in seen:
            one = item(f"s:{name}", at=NOW - ago, sentiment=label, score=score)
            one.tickers = tickers
            items.setdefault(one.key, one)
        fresh = {key: one for key, one in items.items() if one.time >= self.low}
        expected = [update for key, one in fresh.items() for update in self._news(self.model.get(key), one)]
        changes = self.window.apply(list(items.values()), self.read, self.now)
        assert told(changes) == expected
        assert {one.key for one in changes.new} == {key for key in fresh if key not in self.model}
        self.model |= fresh
        for key in fresh:
            self.missed[key] = 0
        if whole:
            self._complete(fresh)

    def _complete(self, seen: dict[str, Item]) -> None:
        for key in [key for key in self.model if key not in seen]:
            self.missed[key] += 1
            if self.missed[key] == 2:
                del self.model[key], self.missed[key]
        self.window.remove(self.window.missed((self.low, FOREVER), self.read))

    @rule(hours=st.sampled_from([0.1, 1.0, -1.0, 0.25]))
    def set_the_clock(self, hours: float) -> None:
        self.now += hours * HOUR
        self.low = max(self.low, self.now - 24 * HOUR)
        while self.window.expire(self.now, 2):
            pass
        self.model = {key: one for key, one in self.model.items() if one.time >= self.low}
        self.missed = Counter({key: count for key, count in self.missed.items() if key in self.model})

    @rule(which=KEYS)
    def delete(self, which: tuple[str, int]) -> None:
        key = item(f"s:{which[0]}", at=NOW - which[1]).key
        assert self.window.forget(key) == (key in self.model)
        self.model.pop(key, None)
        self.missed.pop(key, None)

    @staticmethod
    def _news(known: Item | None, one: Item) -> list[tuple[str, str, float]]:
        fresh = [t for t in one.tickers if known is None or not known.says_the_same(one) or t not in known.tickers]
        return [(ticker, one.sentiment, one.score) for ticker in fresh]

    @invariant()
    def the_items_are_the_same(self) -> None:
        assert {one.key: (one.sentiment, one.score, one.tickers) for one in self.window} == {
            key: (one.sentiment, one.score, one.tickers) for key, one in self.model.items()
        }
        assert len(self.window) == len(self.model)

    @invariant()
    def the_totals_are_the_same(self) -> None:
        labels = Counter(one.sentiment for one in self.model.values())
        tags = Counter(ticker for one in self.model.values() for ticker in one.tickers)
        metrics = self.window.metrics(self.now)
        assert (metrics.positive, metrics.neutral, metrics.negative) == (
            labels["positive"],
            labels["neutral"],
            labels["negative"],
        )
        assert metrics.total == len(self.model)
        assert metrics.by_tag == dict(tags)
        assert metrics.rate_last_hour == sum(one.time >= self.now - HOUR for one in self.model.values())
        assert metrics.rate_last_24h == sum(one.time >= self.now - 24 * HOUR for one in self.model.values())

    @invariant()
    def the_last_updates_are_the_same(self) -> None:
        for update in self.window.updates(EVERYTHING):
            mine = [one for one in self.model.values() if update.ticker in one.tickers]
            last = max(mine, key=lambda one: (one.time, one.key))
            said = json.loads(update.data)
            assert (said["label"], said["score"], said["timestamp"]) == (last.sentiment, last.score, iso(last.time))
            assert said["count"] == len(mine)
            assert said["mean_score"] == pytest.approx(sum(one.score for one in mine) / len(mine), abs=1e-4)

    @invariant()
    def the_history_adds_up(self) -> None:
        history = self.window.history(EVERYTHING)
        starts = [quarter["start"] for quarter in history]
        assert starts == sorted({iso(one.time // QUARTER * QUARTER) for one in self.model.values()})
        for label in ("positive", "neutral", "negative"):
            assert sum(int(str(quarter[label])) for quarter in history) == sum(
                one.sentiment == label for one in self.model.values()
            )


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50))
def test_a_mean_has_no_drift_whatever_came_and_went(scores: list[float]) -> None:
    window = filled(item("a:first", score=0.5))
    for n, score in enumerate(scores):
        one = item(f"a:{n}", at=NOW - n)
        one.score = score
        window.apply([one], n + 2, NOW)
    for n in range(len(scores)):
        window.forget(item(f"a:{n}", at=NOW - n).key)
    assert json.loads(window.updates(EVERYTHING)[0].data)["mean_score"] == 0.5
