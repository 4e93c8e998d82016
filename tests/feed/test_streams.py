"""StreamsSource, against a double that reshards and against moto's streams over HTTP."""

import asyncio
import json
import time as times
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from quartsse.errors import SourceError
from quartsse.feed.dynamodb import client, lazily
from quartsse.feed.items import Item
from quartsse.feed.poller import Poller
from quartsse.feed.query import QuerySource
from quartsse.feed.source import Batch
from quartsse.feed.streams import ITERATOR_SECONDS, SETTLING, StreamsSource
from quartsse.feed.window import Window
from tests.dynamodb import Tables
from tests.feed import fault_proxy as faults
from tests.feed.feeding import NOW, Listener, Time
from tests.feed.rig import Rig
from tests.feed.stream_double import ARN, StreamDouble


class Following:
    """The feed over a double, read by read."""

    def __init__(self, table: StreamDouble, arn: str | None = None) -> None:
        self.table = table
        self.time = Time()
        self.pauses: list[float] = []
        self.source = StreamsSource(lambda: table, "news", table, arn=arn, clock=self.time.clock, sleep=self._pause)
        self.listener = Listener(self.time)
        self.window = Window()
        self.poller = Poller(self.source, self.window, self.listener, clock=self.time.clock)

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def poll(self) -> str | None:
        self.time.elapsed += 0.25
        self.poller._whole = self.poller._whole or self.poller._after_a_gap
        self.poller._started_at = self.time.elapsed
        await self.poller._poll()
        return self.poller.status().reason

    async def settle(self) -> None:
        self.time.elapsed += SETTLING
        await self.poll()

    async def batches(self, *, whole: bool = False) -> list[Batch]:
        return [batch async for batch in self.source.read(NOW - 86_400, whole=whole)]

    @property
    def said(self) -> list[tuple[str, float]]:
        """The label and score of each update."""
        return [(one["label"], one["score"]) for one in (json.loads(each.data) for each in self.listener.updates)]

    def assert_complete(self) -> None:
        seen = {one.key: (one.sentiment, one.score) for one in self.window}
        assert seen == {one.key: (one.sentiment, one.score) for one in self.table.in_the_index().values()}


async def test_the_window_is_read_once_and_then_the_stream_says_the_rest() -> None:
    feed = Following(StreamDouble())
    feed.table.write("a:1", "positive")
    await feed.poll()
    feed.table.write("a:2")
    feed.table.write("a:2", "negative", "0.5")
    feed.table.delete("a:1")
    await feed.poll()
    await feed.poll()
    assert feed.said == [("negative", -0.5)]
    assert feed.table.whole_reads == 1
    feed.assert_complete()


async def test_every_change_is_told_though_several_come_at_once() -> None:
    feed = Following(StreamDouble())
    await feed.poll()
    for score in ("0.1", "0.2", "0.3"):
        feed.table.write("a:1", "positive", score)
    feed.table.delete("a:1")
    feed.table.write("a:1", "neutral")
    await feed.poll()
    assert feed.said == [("positive", 0.1), ("positive", 0.2), ("positive", 0.3), ("neutral", 0.0)]


async def test_what_happens_while_the_window_is_read_is_neither_lost_nor_told_twice() -> None:
    feed = Following(StreamDouble())
    feed.table.write("a:1", "positive")
    await feed.poll()
    feed.table.expire_iterators()

    def meanwhile() -> None:
        feed.table.write("a:2", "positive", "0.1")
        feed.table.write("a:2", "negative", "0.2")

    feed.table.during_the_window = meanwhile
    await feed.poll()
    assert feed.said == [("negative", -0.2)]
    assert feed.table.whole_reads == 2
    feed.assert_complete()


async def test_what_the_window_shows_already_is_not_told_again_by_the_stream() -> None:
    feed = Following(StreamDouble())
    await feed.poll()
    feed.table.expire_iterators()
    read = feed.table.read

    async def later(low: float, *, whole: bool) -> Any:
        feed.table.write("a:1", "positive", "0.1")
        feed.table.write("a:1", "negative", "0.2")
        async for batch in read(low, whole=whole):
            yield batch

    feed.table.read = later  # type: ignore[method-assign]
    await feed.poll()
    await feed.poll()
    assert feed.said == [("negative", -0.2)]


async def test_an_item_that_loses_its_sentiment_or_fits_no_more_is_gone() -> None:
    feed = Following(StreamDouble())
    feed.table.write("a:1", "positive")
    feed.table.write("a:2", "positive")
    await feed.poll()
    feed.table.write("a:1")
    feed.table.write("a:2", "mixed")
    await feed.poll()
    assert len(feed.window) == 0


async def test_children_are_followed_from_their_beginning_once_their_parent_is_read() -> None:
    feed = Following(StreamDouble(page=3, describe_page=2))
    await feed.poll()
    for n in range(8):
        feed.table.write(f"a:{n}", "positive", "0.1")
    feed.table.split()
    for n in range(8):
        feed.table.write(f"a:{n}", "negative", "0.2")
    feed.table.split()
    feed.table.split(into=1)
    for n in range(8):
        feed.table.write(f"a:{n}", "neutral", "0.3")
    await feed.poll()
    assert len(feed.said) == 24
    for key in {update.identity.split("-")[0] for update in feed.listener.updates}:
        mine = [json.loads(one.data)["label"] for one in feed.listener.updates if one.identity.startswith(key)]
        assert mine == ["positive", "negative", "neutral"]
    feed.assert_complete()
    assert feed.table.whole_reads == 1


async def test_shards_that_were_closed_before_the_start_are_not_read() -> None:
    table = StreamDouble()
    table.write("a:1", "positive", "0.1")
    table.split()
    table.write("a:1", "positive", "0.2")
    feed = Following(table)
    await feed.poll()
    await feed.poll()
    assert feed.said == []
    feed.assert_complete()


@pytest.mark.parametrize("what", ["expire_iterators", "trim"])
async def test_a_lost_thread_means_that_the_window_is_read_again(what: str) -> None:
    feed = Following(StreamDouble())
    feed.table.write("a:1", "positive")
    await feed.poll()
    feed.table.write("a:2", "negative", "0.5")
    feed.table.delete("a:1")
    getattr(feed.table, what)()
    assert await feed.poll() is None
    assert feed.said == [("negative", -0.5)]
    assert feed.table.whole_reads == 2
    feed.table.write("a:3", "neutral")
    await feed.poll()
    assert feed.said[1:] == [("neutral", 0.0)]
    await feed.settle()
    feed.assert_complete()


async def test_what_the_index_did_not_know_yet_at_the_start_is_told_some_seconds_later() -> None:
    feed = Following(StreamDouble())
    feed.table.write("a:1", "positive")
    feed.table.write("a:2")
    feed.table.index = dict(feed.table.items)
    feed.table.write("a:2", "negative", "0.5")
    feed.table.lags = True
    await feed.poll()
    feed.table.lags = False
    await feed.settle()
    assert feed.said == [("negative", -0.5)]
    feed.assert_complete()
    reads = feed.table.whole_reads
    await feed.settle()
    assert feed.table.whole_reads == reads == 2


async def test_an_index_that_lags_behind_the_stream_takes_nothing_back() -> None:
    feed = Following(StreamDouble())
    feed.table.write("a:1", "positive", "0.1")
    await feed.poll()
    feed.table.lags = True
    feed.time.elapsed += SETTLING
    feed.table.write("a:1", "negative", "0.2")
    feed.table.write("a:2", "neutral")
    await feed.poll()
    assert feed.table.whole_reads == 2
    feed.table.expire_iterators()
    await feed.poll()
    assert feed.table.whole_reads == 3
    assert feed.said == [("negative", -0.2), ("neutral", 0.0)]
    feed.assert_complete()


async def test_a_short_gap_is_bridged_by_the_stream_and_a_long_one_by_the_window() -> None:
    feed = Following(StreamDouble())
    await feed.poll()
    await feed.settle()
    feed.table.write("a:1", "positive")
    feed.time.elapsed += 120
    await feed.poll()
    assert (feed.table.whole_reads, len(feed.said)) == (2, 1)
    feed.table.write("a:2", "positive")
    feed.time.elapsed += ITERATOR_SECONDS
    await feed.poll()
    assert (feed.table.whole_reads, len(feed.said)) == (3, 2)


async def test_a_third_reader_is_patient_and_loses_nothing() -> None:
    feed = Following(StreamDouble())
    await feed.poll()
    feed.table.write("a:1", "positive")
    feed.table.fail["get_records"] = ["ProvisionedThroughputExceededException"] * 2
    assert await feed.poll() is None
    assert (len(feed.said), len(feed.pauses)) == (1, 2)
    feed.table.write("a:2", "positive")
    feed.table.fail["get_records"] = ["LimitExceededException"] * 4
    reason = await feed.poll()
    assert "two readers" in str(reason)
    assert await feed.poll() is None
    assert len(feed.said) == 2
    assert feed.table.whole_reads == 1


async def test_an_answer_that_is_not_dynamodbs_is_a_failure(table: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    async with faults.fault_proxy(table.endpoint) as proxy:
        for name, value in replace(table, endpoint=proxy.endpoint).environment().items():
            monkeypatch.setenv(name, value)
        get = lazily(partial(client, service="dynamodbstreams"))
        source = StreamsSource(get, table.sentiments, StreamDouble())

        async def read() -> list[Batch]:
            return [batch async for batch in source.read(NOW - 86_400, whole=False)]

        assert await read()
        for fault in (faults.someone_s_json, faults.half_an_answer, faults.another_language):
            for again in (False, True):  # which asks for the shards, and for an iterator
                proxy.fault = fault
                source._read_at = None if again else source._read_at
                with pytest.raises(SourceError):
                    await read()
                proxy.fault = None
                await read()
        get().close()


@pytest.mark.parametrize("operation", ["describe_stream", "get_shard_iterator", "get_records"])
async def test_a_failure_while_resharding_loses_nothing(operation: str) -> None:
    feed = Following(StreamDouble())
    await feed.poll()
    feed.table.write("a:1", "positive", "0.1")
    feed.table.split()
    feed.table.write("a:1", "negative", "0.2")
    feed.table.fail[operation] = ["InternalServerError"]
    assert await feed.poll() is not None
    assert await feed.poll() is None
    assert feed.said == [("positive", 0.1), ("negative", -0.2)]
    feed.assert_complete()


async def test_a_first_read_that_fails_takes_its_iterators_anew() -> None:
    feed = Following(StreamDouble())
    feed.table.fail["get_records"] = ["InternalServerError"]
    assert await feed.poll() is not None
    feed.table.write("a:1", "positive")
    assert await feed.poll() is None
    assert (feed.said, len(feed.window)) == ([], 1)


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"status": "DISABLED"}, "it is disabled"),
        ({"status": ""}, "there is none"),
        ({"fail": {"list_streams": ["AccessDeniedException"]}}, "dynamodb:ListStreams"),
        ({"fail": {"describe_stream": ["ResourceNotFoundException"]}}, "does not exist"),
    ],
)
async def test_a_stream_that_cannot_be_followed_is_told_by_what_to_mend(change: dict[str, Any], advice: str) -> None:
    feed = Following(StreamDouble())
    vars(feed.table).update(change)
    assert advice in str(await feed.poll())


async def test_a_stream_without_new_images_is_told() -> None:
    feed = Following(StreamDouble())
    await feed.poll()
    feed.table.images = False
    feed.table.write("a:1", "positive")
    assert "NEW_IMAGE" in str(await feed.poll())


async def test_a_given_stream_is_not_looked_up() -> None:
    feed = Following(StreamDouble(), ARN)
    await feed.poll()
    assert "list_streams" not in feed.table.asked


async def test_the_watermark_is_the_start_of_each_read_and_each_page_costs_a_unit() -> None:
    feed = Following(StreamDouble())
    await feed.poll()
    await feed.settle()
    feed.time.elapsed += 7
    (batch,) = await feed.batches()
    assert (batch.watermark, batch.units) == (feed.time.wall(), 1.0)
    feed.table.write("a:1", "positive")
    assert sum(each.units for each in await feed.batches()) == 2.0


type Said = tuple[str, float, float]
"""A label, a score and a confidence."""


def _state(one: Item) -> Said:
    return one.sentiment, one.score, one.confidence


class AnyOrder(RuleBasedStateMachine):
    """Writes, deletes, reshardings, failures and lost threads in any order: every change is told once, in order."""

    @initialize(page=st.sampled_from([1, 3, 1000]))
    def begin(self, page: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.feed = Following(StreamDouble(page=page, describe_page=2))
        self.expected: dict[str, list[Said]] = {}
        self.lost: dict[str, Said] | None = None
        self._poll_until_good()

    def _poll_until_good(self) -> None:
        for _ in range(40):
            if self.loop.run_until_complete(self.feed.poll()) is None:
                return
        raise AssertionError

    @rule(
        name=st.sampled_from("abcdef"),
        label=st.sampled_from(["positive", "neutral", "negative"]),
        tenth=st.integers(1, 9),
    )
    def write(self, name: str, label: str, tenth: int) -> None:
        before = self.feed.table.items.get(name)
        self.feed.table.write(name, label, f"0.{tenth}")
        if self.lost is None and before != self.feed.table.items[name]:
            self.expected.setdefault(name, []).append(_state(self.feed.table.in_the_index()[name]))

    @rule(name=st.sampled_from("abcdef"))
    def delete(self, name: str) -> None:
        if name in self.feed.table.items:
            self.feed.table.delete(name)

    @rule(into=st.sampled_from([1, 2]))
    def reshard(self, into: int) -> None:
        if len(self.feed.table.shards) < 9:
            self.feed.table.split(into=into)

    @rule(what=st.sampled_from(["get_records", "describe_stream", "get_shard_iterator"]), times=st.integers(1, 5))
    def fail(self, what: str, times: int) -> None:
        self.feed.table.fail[what] = ["InternalServerError"] * times

    @rule()
    def throttle(self) -> None:
        self.feed.table.fail["get_records"] = ["ProvisionedThroughputExceededException"] * 2

    @rule()
    def lose_the_thread(self) -> None:
        """What happens from here to the next poll is told by the window: of each item its last state, if new."""
        self.check()
        self.feed.table.expire_iterators()
        self.lost = {name: _state(one) for name, one in self.feed.table.in_the_index().items()}

    @rule()
    def check(self) -> None:
        self._poll_until_good()
        if self.lost is not None:
            now = {name: _state(one) for name, one in self.feed.table.in_the_index().items()}
            for name in [name for name in now if now[name] != self.lost.get(name)]:
                self.expected.setdefault(name, []).append(now[name])
            self.lost = None
        self.feed.time.elapsed += SETTLING
        self._poll_until_good()
        self.feed.assert_complete()
        told: dict[str, list[Said]] = {}
        for update in self.feed.listener.updates:
            one = json.loads(update.data)
            told.setdefault(update.identity.split("-")[0], []).append((one["label"], one["score"], one["confidence"]))
        assert sorted(told.values()) == sorted(self.expected.values())

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            try:
                self.check()
            finally:
                self.loop.close()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)


async def test_against_motos_streams_nothing_is_lost_or_doubled_and_it_takes_less_than_a_second(
    table: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in table.environment().items():
        monkeypatch.setenv(name, value)
    window, listener = Window(), Listener()
    tables, streams = lazily(client), lazily(lambda: client(service="dynamodbstreams"))
    query = QuerySource(tables, table.sentiments, "by_sentiment", budget=100, population=window)
    poller = Poller(StreamsSource(streams, table.sentiments, query), window, listener, interval=0.25)
    feed = Rig(poller, listener)
    deleted = await table.put("old:1", "OLD", sentiment="positive")
    poller.attend()
    task = asyncio.create_task(poller.run())
    try:
        assert await feed.until(lambda: poller.loaded)
        await table.delete(deleted)
        waits = []
        for n in range(20):
            key = await table.put(f"a:{n}", f"T{n}", age=3600 * (n % 20))
            began = times.monotonic()
            await table.analyse(key, "positive")
            assert await feed.until(partial(ends_with, feed, (f"T{n}", "positive")), 3)
            waits.append(times.monotonic() - began)
        assert max(waits) < 1
        await table.analyse(key, "negative")
        await feed.polls(2)
        assert feed.said == [(f"T{n}", "positive") for n in range(20)] + [("T19", "negative")]
        assert len(window) == 20
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        tables().close()
        streams().close()


def ends_with(feed: Rig, update: tuple[str, str]) -> bool:
    return feed.said[-1:] == [update]


async def test_a_table_without_a_stream_is_told_by_moto_too(table: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in table.environment().items():
        monkeypatch.setenv(name, value)
    streams = lazily(lambda: client(service="dynamodbstreams"))
    source = StreamsSource(streams, table.users, StreamDouble())
    with pytest.raises(SourceError, match="there is none"):
        async for _ in source.read(0, whole=True):
            pass
    streams().close()
