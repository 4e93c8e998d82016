"""The poller, by a clock in the test's hand."""

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from quartsse.errors import SourceError
from quartsse.feed.poller import CHUNK, LONGEST_BACKOFF, Poller
from quartsse.feed.source import FOREVER, Batch
from quartsse.feed.window import Window
from quartsse.hub.hub import Hub
from tests.feed.feeding import NOW, Listener, Script, Time, item, polling, settle, state

HOUR = 3600.0
DOWN = SourceError("cannot read news: down")


@pytest.fixture
def time() -> Time:
    return Time()


def tickers(listener: Listener) -> list[str | None]:
    return [update.ticker for update in listener.updates]


async def test_nobody_attends_and_nothing_is_read(time: Time) -> None:
    source = Script(time, item("a:1"))
    async with polling(source, time, attended=False) as (poller, _):
        await time.pass_by(3600)
        assert source.reads == []
        assert state(poller) == "idle"


async def test_the_first_load_is_state_and_no_news(time: Time) -> None:
    async with polling(Script(time, item("a:1"), item("a:2")), time) as (poller, listener):
        assert len(poller.window) == 2
        assert listener.updates == []
        assert [json.loads(totals.data)["total"] for totals in listener.totals] == [2]
        assert state(poller) == "live"


async def test_a_new_item_is_published_with_the_totals_at_the_next_read(time: Time) -> None:
    source = Script(time, item("a:1"))
    async with polling(source, time) as (_, listener):
        source.put(item("a:2", "MSFT", at=NOW - 6 * HOUR))
        await time.pass_by(1.9)
        assert tickers(listener) == []
        await time.pass_by(0.1)
        assert tickers(listener) == ["MSFT"]
        assert json.loads(listener.totals[-1].data)["by_tag"] == {"AAPL": 1, "MSFT": 1}


async def test_what_did_not_change_is_not_told_again(time: Time) -> None:
    async with polling(Script(time, item("a:1")), time, metrics_interval=60) as (_, listener):
        await time.pass_by(59)
        assert (len(listener.updates), len(listener.totals)) == (0, 1)
        await time.pass_by(2)
        assert (len(listener.updates), len(listener.totals)) == (0, 2)


async def test_a_deleted_item_leaves_the_totals_within_three_polls(time: Time) -> None:
    source = Script(time, item("a:1"), item("a:2"))
    async with polling(source, time) as (_, listener):
        source.items.popitem()
        await time.pass_by(6)
        assert [json.loads(totals.data)["total"] for totals in listener.totals] == [2, 1]


async def test_there_are_never_two_reads_at_once_however_long_one_takes(time: Time) -> None:
    source = Script(time, item("a:1"))
    source.takes = 7.0
    async with polling(source, time) as (poller, _):
        for _ in range(20):
            with poller.attended():
                await time.pass_by(3)
        assert source.most_at_once == 1
        assert len(source.reads) == 9


async def test_the_next_read_is_due_an_interval_after_the_start_of_the_last(time: Time) -> None:
    source = Script(time)
    source.takes = 0.5
    async with polling(source, time):
        await time.pass_by(10)
        assert time.pauses[:3] == [1.5, 1.5, 1.5]


async def test_a_failed_read_publishes_nothing_and_what_was_missed_comes_after_it(time: Time) -> None:
    source = Script(time, item("a:1"))
    async with polling(source, time) as (poller, listener):
        source.failure = DOWN
        source.put(item("a:2", "MSFT"))
        await time.pass_by(60)
        assert listener.updates == []
        assert len(listener.totals) == 1
        assert state(poller) == "stale"
        assert poller.status().reason == "cannot read news: down"
        source.failure = None
        await time.pass_by(LONGEST_BACKOFF)
        assert tickers(listener) == ["MSFT"]
        assert state(poller) == "live"
        assert poller.status().reason is None


async def test_totals_of_an_unreadable_table_are_never_repeated_as_if_they_were_fresh(time: Time) -> None:
    source = Script(time, item("a:1"))
    async with polling(source, time, metrics_interval=5) as (_, listener):
        source.failure = DOWN
        await time.pass_by(100)
        assert len(listener.totals) == 1


async def test_failures_are_retried_with_a_pause_that_is_random_and_bounded(time: Time) -> None:
    source = Script(time)
    source.failure = DOWN
    async with polling(source, time):
        await time.pass_by(600)
        assert max(time.pauses) <= LONGEST_BACKOFF
        assert max(time.pauses) > LONGEST_BACKOFF / 2
        assert len(set(time.pauses)) == len(time.pauses)
        assert 60 < len(source.reads) < 250


async def test_a_reason_is_logged_once_and_not_at_every_attempt(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    source = Script(time)
    source.failure = DOWN
    with caplog.at_level(logging.INFO):
        async with polling(source, time):
            await time.pass_by(60)
            source.failure = SourceError("cannot read news: throttled")
            await time.pass_by(60)
            source.failure = None
            await time.pass_by(20)
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(" (")[0] for line in said[:2]] == [f"feed: {DOWN}", "feed: cannot read news: throttled"]
    assert len(said) == 3
    assert "reading again" in said[2]


async def test_it_is_starting_until_the_window_is_read_and_stale_when_that_does_not_happen(time: Time) -> None:
    source = Script(time)
    source.takes = 3.0
    async with polling(source, time) as (poller, listener):
        assert (state(poller), poller.age, poller.loaded) == ("starting", None, False)
        source.failure = DOWN
        await time.pass_by(30)
        assert state(poller) == "stale"
        assert listener.totals == []
        source.failure = None
        await time.pass_by(15)
        assert state(poller) == "live"


async def test_it_is_stale_after_two_intervals_or_five_seconds(time: Time) -> None:
    source = Script(time)
    async with polling(source, time, interval=2.0) as (poller, _):
        await time.pass_by(2)
        source.failure = DOWN
        await time.pass_by(4.9)
        assert state(poller) == "live"
        await time.pass_by(0.3)
        assert state(poller) == "stale"


async def test_it_rests_when_nobody_has_attended_for_the_grace_and_says_so(time: Time) -> None:
    source = Script(time)
    async with polling(source, time, idle_grace=30) as (poller, _):
        poller.leave()
        await time.pass_by(29)
        assert len(source.reads) == 15
        assert state(poller) == "live"
        await time.pass_by(3)
        assert state(poller) == "idle"
        await time.pass_by(1000)
        assert len(source.reads) == 15


async def test_after_a_rest_the_window_is_read_whole_and_what_changed_is_published(time: Time) -> None:
    source = Script(time, item("a:1"))
    async with polling(source, time, idle_grace=0) as (poller, listener):
        poller.leave()
        await time.pass_by(500)
        source.put(item("a:2", "MSFT"))
        poller.attend()
        assert not poller.showable
        await asyncio.wait_for(poller.ready(), 1)
        assert source.reads == [True, True]
        assert tickers(listener) == ["MSFT"]


async def test_only_the_first_read_is_whole_when_nothing_happens_between(time: Time) -> None:
    source = Script(time)
    async with polling(source, time):
        await time.pass_by(10)
        assert source.reads == [True] + [False] * 5


async def test_after_a_freeze_the_window_is_read_whole_at_once(time: Time) -> None:
    source = Script(time, item("a:1"))
    async with polling(source, time) as (_, listener):
        await time.pass_by(1)
        source.put(item("a:2", "MSFT"))
        await time.freeze(20)
        assert source.reads == [True, True]
        assert tickers(listener) == ["MSFT"]


async def test_a_read_that_was_under_way_when_somebody_came_after_a_freeze_is_not_the_whole_one(time: Time) -> None:
    source = Script(time, item("a:1"))
    async with polling(source, time) as (poller, _):
        await time.pass_by(3)
        poller.leave()
        source.takes = 1.0
        await time.pass_by(1.5)
        assert source.at_once == 1
        time.elapsed += 60
        poller.attend()
        source.takes = 0.0
        await time.pass_by(3)
        assert source.reads[-3:].count(True) == 1
        assert source.reads[-3] is False


async def test_a_freeze_that_only_the_wall_clock_has_seen_is_one_too(time: Time) -> None:
    source = Script(time)
    async with polling(source, time):
        await time.pass_by(1)
        time.offset += 20
        await time.pass_by(1)
        assert source.reads == [True, True]


async def test_after_an_outage_the_window_is_read_whole(time: Time) -> None:
    source = Script(time)
    async with polling(source, time):
        source.failure = DOWN
        await time.pass_by(30)
        assert source.reads[1] is False
        source.failure = None
        source.reads.clear()
        await time.pass_by(14)
        assert source.reads[0] is True
        assert not any(source.reads[1:])


@pytest.mark.parametrize("step", [HOUR, -HOUR])
async def test_a_step_of_the_wall_clock_changes_neither_age_nor_pace_and_publishes_nothing_anew(
    time: Time, step: float
) -> None:
    source = Script(time, item("a:1"), item("a:2", at=NOW - 23.5 * HOUR))
    async with polling(source, time) as (poller, listener):
        time.offset += step
        await time.pass_by(10)
        assert state(poller) == "live"
        assert poller.age is not None
        assert poller.age <= 2
        time.offset -= step
        await time.pass_by(10)
        assert listener.updates == []
        assert len(source.reads) == 11


async def test_a_reader_who_comes_between_two_steps_has_each_item_once(time: Time) -> None:
    many = [item(f"a:{n}", at=NOW - n) for n in range(2 * CHUNK)]
    source = Script(time, many[0])
    async with polling(source, time) as (poller, listener):
        source.put(*many)
        seen: list[int] = []
        source.then = lambda: seen.append(len(poller.window) - 1 - len(listener.updates))
        await time.pass_by(2)
        assert seen == [0]
        assert len(listener.updates) == 2 * CHUNK - 1


async def test_many_items_that_leave_at_once_all_leave(time: Time) -> None:
    source = Script(time, *(item(f"a:{n}", at=NOW - 23 * HOUR) for n in range(3 * CHUNK)), item("a:last"))
    async with polling(source, time, idle_grace=0) as (poller, _):
        poller.leave()
        await time.pass_by(3 * HOUR)
        with poller.attended():
            await settle()
            assert len(poller.window) == 1


async def test_all_items_removed_at_once_leave_too(time: Time) -> None:
    source = Script(time, *(item(f"a:{n}") for n in range(3 * CHUNK)))
    async with polling(source, time) as (poller, listener):
        source.items.clear()
        await time.pass_by(6)
        assert len(poller.window) == 0
        assert json.loads(listener.totals[-1].data)["total"] == 0


async def test_changes_in_their_order_all_stand_though_they_come_in_one_read(time: Time) -> None:
    source = Script(time)
    async with polling(source, time) as (poller, listener):
        key = item("a:1").key
        source.batches = [
            Batch(items=[item("a:1", score=0.1)], ordered=True),
            Batch(items=[item("a:1", score=0.2)], ordered=True),
            Batch(gone=(key,), ordered=True),
            Batch(items=[item("a:1", score=0.3)], ordered=True),
        ]
        await time.pass_by(2)
        assert [json.loads(update.data)["score"] for update in listener.updates] == [0.1, 0.2, 0.3]
        assert len(poller.window) == 1


async def test_the_watermark_is_what_the_source_vouches_for(time: Time) -> None:
    source = Script(time)
    async with polling(source, time) as (_, listener):
        assert listener.place.watermark == NOW
        source.batches = [Batch()]
        await time.pass_by(10)
        assert listener.place.watermark == NOW


async def test_lateness_is_from_the_timestamp_to_when_a_new_item_is_first_seen(time: Time) -> None:
    source = Script(time, item("a:1", at=NOW - 5 * HOUR))
    async with polling(source, time) as (poller, _):
        assert poller.status().lateness_seconds is None
        source.put(*(item(f"b:{n}", at=time.wall() - 10) for n in range(98)), item("b:x", at=NOW - HOUR), item("b:y"))
        await time.pass_by(2)
        lateness = poller.status().lateness_seconds
        assert lateness is not None
        assert lateness["p50"] == 12.0
        assert lateness["p99"] == pytest.approx(12 + 0.01 * 3590, abs=40)
        source.put(item("b:y", sentiment="negative"))
        await time.pass_by(2)
        assert poller.status().lateness_seconds == lateness


async def test_units_are_those_of_the_last_minute(time: Time) -> None:
    source = Script(time)
    async with polling(source, time) as (poller, _):
        await time.pass_by(20)
        assert poller.status().read_units_per_minute == pytest.approx(11 * 1.5)
        await time.pass_by(600)
        assert poller.status().read_units_per_minute == pytest.approx(30 * 1.5, abs=2)
        source.failure = DOWN
        await time.pass_by(120)
        assert poller.status().read_units_per_minute == 0


async def test_a_slow_sweep_is_said_once_in_the_log_and_in_the_status(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    source = Script(time)
    async with polling(source, time) as (poller, _):
        await time.pass_by(2)
        assert (poller.status().sweep_seconds, poller.status().advice) == (2.0, None)
        for _ in range(3):
            source.batches = [Batch(span=(NOW - 300, FOREVER))]
            await time.pass_by(28)
            source.batches = [Batch(span=(NOW - 300, FOREVER), watermark=NOW)]
            await time.pass_by(2)
        status = poller.status()
        assert status.sweep_seconds == 30.0
        assert "SSE_READ_BUDGET" in str(status.advice)
        assert "SSE_SOURCE=streams" in str(status.advice)
        assert [record.getMessage().split(":")[0] for record in caplog.records] == ["feed"]
        source.batches = None
        await time.pass_by(2)
        assert poller.status().advice is None


async def test_a_sweep_under_way_that_takes_longer_than_the_last_one_is_what_the_status_says(time: Time) -> None:
    source = Script(time)
    async with polling(source, time) as (poller, _):
        source.batches = [Batch(span=(NOW - 300, FOREVER))]
        await time.pass_by(100)
        assert poller.status().sweep_seconds == 100.0
        assert poller.status().hot_seconds == pytest.approx(400, abs=3)


async def test_malformed_items_are_logged_once_per_kind(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    source = Script(time)
    async with polling(source, time):
        source.batches = [Batch(items=[item("a:1", at=NOW + 90_000)], skipped={"score": 3})]
        await time.pass_by(20)
    said = sorted(record.getMessage().rsplit(" ", 1)[1] for record in caplog.records)
    assert said == ["future", "score"]


async def test_a_bug_ends_the_poller(time: Time) -> None:
    class Broken(Script):
        def read(self, low: float, *, whole: bool) -> Any:
            raise ZeroDivisionError

    poller = Poller(Broken(time), Window(), Hub(), clock=time.clock, sleep=time.sleep)
    poller.attend()
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(poller.run(), 1)


async def test_those_who_wait_are_shown_an_old_state_once_a_read_has_failed(time: Time) -> None:
    source = Script(time, item("a:1"))
    async with polling(source, time, idle_grace=0) as (poller, _):
        poller.leave()
        await time.pass_by(100)
        source.failure = DOWN
        poller.attend()
        waiting = asyncio.create_task(poller.ready())
        await settle()
        assert waiting.done()
        assert state(poller) == "starting"


async def test_nobody_is_shown_a_window_that_was_never_read(time: Time) -> None:
    source = Script(time)
    source.failure = DOWN
    async with polling(source, time) as (poller, _):
        waiting = asyncio.create_task(poller.ready())
        await time.pass_by(60)
        assert not waiting.done()
        source.failure = None
        await time.pass_by(LONGEST_BACKOFF)
        assert waiting.done()


async def test_the_totals_are_shared_by_those_who_ask_within_a_second(time: Time) -> None:
    async with polling(Script(time, item("a:1")), time) as (poller, _):
        one = poller.totals()
        await time.pass_by(0.5)
        assert poller.totals() is one
        await time.pass_by(0.6)
        assert poller.totals() is not one


async def test_the_first_good_read_is_loading_and_so_are_those_that_fail_before_it(time: Time) -> None:
    held: list[str] = []

    @contextmanager
    def loading() -> Iterator[None]:
        try:
            yield
        except SourceError:
            held.append("failed")
            raise
        held.append("loaded")

    source = Script(time, item("a:1"))
    source.failure = DOWN
    async with polling(source, time, loading=loading):
        assert held == ["failed"]
        source.failure = None
        await time.pass_by(60)
        assert held[-1] == "loaded"
        assert set(held[:-1]) == {"failed"}
        assert len(source.reads) > len(held) + 10
