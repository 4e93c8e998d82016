import gzip
import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from quartsse.hub.channel import MOST_JOINED
from quartsse.hub.compression import Gzip
from quartsse.hub.events import KEEP_ALIVE
from quartsse.hub.filters import Filter
from quartsse.hub.hub import SLICE, Hub, spread
from quartsse.hub.ids import Place, place_in
from quartsse.hub.tick import chunk
from tests.hub.building import (
    ALL,
    NONE,
    START,
    Later,
    Reader,
    Time,
    heartbeat,
    identities,
    last_place,
    missed,
    only,
    parsed,
    place_of,
    reader,
    totals,
    unchunked,
    update,
)

if TYPE_CHECKING:
    from quartsse.hub.subscription import Subscription


def hub_at(time: Time, instance: str = "here", log_events: int = 10_000, resume_margin: float = 5.0) -> Hub:
    return Hub(clock=time.clock, instance=instance, log_events=log_events, resume_margin=resume_margin)


# Fan-out


def test_a_reader_gets_what_its_filter_lets_through_and_nothing_else() -> None:
    hub = Hub()
    apple, both, everything, nothing = (reader(hub, wanted) for wanted in (only("A"), only("A", "B"), ALL, NONE))
    hub.publish([update("1", "A"), update("2", "B"), update("3", "C")])
    assert apple.identities == ["1"]
    assert both.identities == ["1", "2"]
    assert everything.identities == ["1", "2", "3"]
    assert nothing.identities == []


def test_totals_come_after_the_updates_that_changed_them_in_one_piece() -> None:
    hub = Hub()
    one = reader(hub)
    hub.publish([update("1"), update("2")], totals(hub))
    assert one.identities == ["1", "2", "m1"]
    assert len(one.chunks) == 1


def test_totals_are_for_those_who_want_them_also_without_an_update() -> None:
    hub = Hub()
    globally, configured = reader(hub, NONE), reader(hub, only("A", metrics=False))
    hub.publish([update("1", "A")], totals(hub))
    assert globally.identities == ["m1"]
    assert configured.identities == ["1"]


def test_a_tick_without_anything_for_a_channel_does_not_reach_it() -> None:
    hub = Hub()
    one = reader(hub, only("A"))
    hub.publish([update("1", "B")])
    hub.publish([])
    assert one.chunks == []


def test_readers_of_one_channel_share_one_chunk() -> None:
    hub = Hub()
    first, second = reader(hub), reader(hub)
    hub.publish([update("1"), update("2")], totals(hub))
    assert first.chunks[0] is second.chunks[0]
    assert first.chunks[0] == chunk(first.received)


def test_channels_that_get_the_same_share_the_chunk_too() -> None:
    hub = Hub()
    first, second = reader(hub, only("A", "B")), reader(hub, only("A", "C"))
    hub.publish([update("1", "A")])
    assert first.chunks[0] is second.chunks[0]


def test_one_channel_with_and_one_without_totals_do_not_share() -> None:
    hub = Hub()
    with_totals, without = reader(hub, only("A")), reader(hub, only("A", metrics=False))
    hub.publish([update("1", "A")], totals(hub))
    assert with_totals.identities == ["1", "m1"]
    assert without.identities == ["1"]


def test_an_update_without_a_ticker_is_for_everyone_and_in_the_log() -> None:
    hub = Hub()
    one = reader(hub, only("A", metrics=False))
    hub.publish([update("1", ticker=None)])
    assert one.identities == ["1"]
    assert missed(hub, NONE, Place(hub.instance, 0, 0)) == ("exact", ["1"])


def test_a_heartbeat_reaches_everyone_and_is_not_in_the_log() -> None:
    hub = Hub()
    readers = [reader(hub, wanted) for wanted in (ALL, NONE, only("A", metrics=False))]
    hub.broadcast(heartbeat(hub))
    assert [one.identities for one in readers] == [["h1"]] * 3
    assert hub.replay(ALL, Place(hub.instance, 0, 0)).frames == []


def test_a_comment_goes_to_the_channels_that_were_quiet_for_so_long() -> None:
    time = Time()
    hub = hub_at(time)
    quiet, busy = reader(hub, only("A")), reader(hub, only("B"))
    time.seconds = 10
    hub.publish([update("1", "B")])
    time.seconds = 15
    hub.keep_alive(KEEP_ALIVE, 15)
    assert quiet.received == KEEP_ALIVE
    assert busy.identities == ["1"]
    hub.keep_alive(KEEP_ALIVE, 15)
    assert quiet.received == KEEP_ALIVE, "a comment is a byte too"
    time.seconds = 25
    hub.keep_alive(KEEP_ALIVE, 15)
    assert busy.received.endswith(KEEP_ALIVE)


def test_a_new_channel_is_quiet_from_its_beginning_on() -> None:
    time = Time(seconds=100)
    hub = hub_at(time)
    one = reader(hub)
    hub.keep_alive(KEEP_ALIVE, 15)
    assert one.received == b""


def test_who_has_left_gets_nothing_more_and_the_channel_is_gone_with_the_last() -> None:
    hub = Hub()
    first, second = reader(hub, only("A")), reader(hub, only("A"))
    first.subscription.close()
    hub.publish([update("1", "A")])
    assert first.received == b""
    assert second.identities == ["1"]
    second.subscription.close()
    second.subscription.close()
    assert hub.subscriptions == []
    hub.publish([update("2", "A")])
    assert second.identities == ["1"]


def test_no_trace_is_left_of_a_hundred_filters_whose_readers_have_gone() -> None:
    hub = Hub()
    readers = [reader(hub, only(f"T{number}", f"T{number + 1}")) for number in range(100)]
    readers += [reader(hub), reader(hub, NONE)]
    for one in readers:
        one.subscription.close()
    assert not any((hub._channels, hub._by_ticker, hub._unfiltered, hub._ready))


def test_all_events_of_an_instance_have_different_ids() -> None:
    hub = Hub()
    one = reader(hub)
    for number in range(200):
        hub.publish([update(f"same-{number % 3}"), update("same-1")], totals(hub))
        hub.broadcast(heartbeat(hub))
        hub.advance(START + number // 50)
    one.subscription.end("draining", 1)
    ids = [event.id for event in parsed(one.received)]
    assert len(ids) == 801
    assert len(set(ids)) == 801


# Joining, in the middle of a fan-out too


def test_a_new_reader_gets_nothing_of_what_was_published_before() -> None:
    hub = Hub()
    hub.publish([update("1")])
    one = reader(hub)
    hub.publish([update("2")])
    assert one.identities == ["2"]


def test_who_joins_while_a_tick_is_queued_has_it_in_the_replay_and_not_again() -> None:
    later = Later()
    hub = Hub(schedule=later)
    before = reader(hub)
    hub.publish([update("1")])
    subscription, replay = hub.subscribe(ALL, Place(hub.instance, 0, 0))
    joined = Reader(subscription)
    later.run()
    assert before.identities == ["1"]
    assert identities(b"".join(replay.frames)) == ["1"]
    assert joined.identities == []


def test_who_joins_in_the_middle_of_a_large_fan_out_is_not_in_it() -> None:
    later = Later()
    hub = Hub(schedule=later)
    crowd = [reader(hub) for _ in range(2 * SLICE + 10)]
    hub.publish([update("1")])
    later.step()
    joined = reader(hub)
    hub.publish([update("2")])
    later.run()
    assert joined.identities == ["2"]
    assert all(one.identities == ["1", "2"] for one in crowd)


def test_ticks_reach_every_reader_in_order_whatever_the_slices() -> None:
    later = Later()
    hub = Hub(schedule=later)
    crowd = [reader(hub) for _ in range(SLICE + 1)]
    for number in range(5):
        hub.publish([update(str(number))])
        later.step()
    later.run()
    assert all(one.identities == ["0", "1", "2", "3", "4"] for one in crowd)


def test_who_is_stuck_at_a_write_has_had_that_tick_and_gets_the_next_one_later() -> None:
    later = Later()
    hub = Hub(schedule=later)
    crowd = [reader(hub) for _ in range(10)]

    def write_the_last(chunk: bytes) -> None:
        crowd[4].remember(chunk)
        crowd[4].stop()

    crowd[4].instead = write_the_last
    publish_and_deliver(hub, later, "1")
    publish_and_deliver(hub, later, "2")
    assert crowd[4].identities == ["1"]
    crowd[4].instead = None
    crowd[4].go_on()
    hub.publish([update("3")])
    later.run()
    assert all(one.identities == ["1", "2", "3"] for one in crowd)


@pytest.mark.parametrize("stuck", [0, SLICE - 1, SLICE, 2 * SLICE - 1])
def test_who_pauses_in_the_middle_of_a_large_fan_out_misses_nothing_and_gets_nothing_twice(stuck: int) -> None:
    later = Later()
    hub = Hub(schedule=later)
    crowd = [reader(hub) for _ in range(2 * SLICE)]
    hub.publish([update("1")])
    later.step()
    hub.publish([update("2")])
    crowd[stuck].stop()
    later.run()
    assert crowd[stuck].identities == (["1"] if stuck < SLICE else [])
    crowd[stuck].go_on()
    assert crowd[stuck].identities == ["1", "2"]


def test_who_goes_on_in_the_middle_of_a_large_fan_out_is_not_written_what_it_has_taken() -> None:
    later = Later()
    hub = Hub(schedule=later)
    crowd = [reader(hub) for _ in range(2 * SLICE)]
    crowd[0].stop()
    hub.publish([update("1")])
    hub.publish([update("2")])
    later.step()
    crowd[0].go_on()
    assert crowd[0].identities == ["1", "2"]
    hub.publish([update("3")])
    later.run()
    assert all(one.identities == ["1", "2", "3"] for one in crowd)


def test_ticks_that_wait_for_all_are_joined_and_only_the_last_totals_are_written() -> None:
    later = Later()
    hub = Hub(schedule=later)
    one = reader(hub)
    hub.publish([update("1")], totals(hub))
    hub.broadcast(heartbeat(hub))
    hub.publish([update("2")], totals(hub))
    hub.publish([update("3")])
    later.run()
    assert one.identities == ["1", "m1", "h2", "2", "m3", "3"]
    hub.publish([update("4")], totals(hub))
    hub.publish([update("5")], totals(hub))
    later.run()
    assert one.identities[6:] == ["4", "5", "m5"]
    assert len(one.chunks) == 2
    one.subscription.close()
    assert one.subscription.events == 9


def test_what_is_published_faster_than_it_is_written_does_not_pile_up() -> None:
    later = Later()
    hub = Hub(schedule=later)
    crowd = [reader(hub) for _ in range(10 * SLICE)]
    for number in range(1000):
        hub.publish([update(str(number))])
        later.step()
    later.run()
    assert all(one.identities == [str(number) for number in range(1000)] for one in crowd[:: 2 * SLICE])
    assert len(crowd[0].chunks) == pytest.approx(100, abs=2)


def test_what_is_joined_has_a_bound() -> None:
    later = Later()
    hub = Hub(schedule=later)
    one = reader(hub)
    for number in range(100):
        hub.publish([update(str(number), size=10_000)])
    later.run()
    assert max(len(data) for data in one.chunks) < MOST_JOINED + 11_000
    assert one.identities == [str(number) for number in range(100)]


def test_who_joins_between_two_ticks_gets_the_second_one_whole_and_alone() -> None:
    later = Later()
    hub = Hub(schedule=later)
    before = reader(hub)
    hub.publish([update("1")])
    joined = reader(hub)
    hub.publish([update("2")])
    hub.publish([update("3")])
    later.run()
    assert joined.identities == ["2", "3"]
    assert before.identities == ["1", "2", "3"]
    assert [len(one.chunks) for one in (before, joined)] == [2, 1]


def test_readers_that_come_and_go_leave_nothing_in_their_channel() -> None:
    hub = Hub()
    staying = [reader(hub)]
    for number in range(200):
        short, stuck = reader(hub), reader(hub)
        stuck.stop()
        if number % 50 == 0:
            staying.append(reader(hub))
        hub.publish([update(str(number))])
        short.subscription.close()
        stuck.subscription.close()
    channel = staying[0].subscription.channel
    assert channel is not None
    assert len(channel._followers) == len(channel._writes) <= 2 * len(staying) + 1
    assert set(channel.readers()) == {one.subscription for one in staying}
    assert [len(one.chunks) for one in staying] == [200, 200, 150, 100, 50]


def test_a_slice_reaches_so_many_readers_and_no_more() -> None:
    later = Later()
    hub = Hub(schedule=later)
    crowd = [reader(hub) for _ in range(3 * SLICE)]
    hub.publish([update("1")])
    for slices in (1, 2, 3):
        assert later.step()
        assert sum(bool(one.received) for one in crowd) == slices * SLICE
    assert not later.step()


def test_a_small_channel_waits_for_one_slice_of_a_large_one_at_most() -> None:
    later = Later()
    hub = Hub(schedule=later)
    for _ in range(20 * SLICE):
        reader(hub)
    small = reader(hub, only("A"))
    hub.publish([update("1", "B")])
    hub.publish([update("2", "A")])
    later.step()
    later.step()
    assert small.identities == ["2"]


def test_without_a_schedule_all_is_delivered_at_once_however_many_there_are() -> None:
    hub = Hub()
    readers = [reader(hub) for _ in range(400 * SLICE)]
    hub.publish([update("1")])
    assert all(one.received for one in readers)


def test_what_is_published_by_a_reader_s_waking_comes_after_what_woke_it() -> None:
    hub = Hub()
    first, second = reader(hub), reader(hub)

    def publish_once(data: bytes) -> None:
        first.remember(data)
        if first.identities == ["1"]:
            hub.publish([update("2")])

    first.instead = publish_once
    hub.publish([update("1")])
    assert first.identities == second.identities == ["1", "2"]


def test_a_channel_that_empties_and_fills_again_while_a_tick_is_queued_does_not_give_it_to_the_new_reader() -> None:
    later = Later()
    hub = Hub(schedule=later)
    gone = reader(hub, only("A"))
    hub.publish([update("1", "A")])
    gone.subscription.close()
    new = reader(hub, only("A"))
    hub.publish([update("2", "A")])
    later.run()
    assert new.identities == ["2"]
    assert gone.received == b""


def test_a_reader_that_leaves_in_the_middle_of_a_fan_out_does_not_disturb_it() -> None:
    hub = Hub()
    crowd = [reader(hub) for _ in range(10)]

    def leave_with_others(data: bytes) -> None:
        for one in crowd[3:7]:
            one.subscription.close()

    crowd[3].instead = leave_with_others
    hub.publish([update("1")])
    assert [one.identities for one in crowd] == [["1"]] * 3 + [[]] * 4 + [["1"]] * 3
    hub.publish([update("2")])
    assert [one.identities for one in crowd] == [["1", "2"]] * 3 + [[]] * 4 + [["1", "2"]] * 3


@pytest.mark.parametrize("readers", [10, 3 * SLICE])
@pytest.mark.parametrize("scheduled", [True, False])
def test_a_reader_that_raises_is_heard_of_and_costs_the_others_nothing(readers: int, scheduled: bool) -> None:
    later = Later()
    hub = Hub(schedule=later if scheduled else None)
    crowd = [reader(hub) for _ in range(readers)]

    def broken(data: bytes) -> None:
        raise RuntimeError("a bug")

    crowd[4].instead = broken
    with pytest.raises(RuntimeError, match="a bug"):
        publish_and_deliver(hub, later, "1")
    later.run()
    crowd[4].subscription.close()
    publish_and_deliver(hub, later, "2")
    assert all(one.identities == ["1", "2"] for one in crowd if one is not crowd[4])


def publish_and_deliver(hub: Hub, later: Later, identity: str) -> None:
    hub.publish([update(identity)])
    later.run()


def test_who_is_ended_in_the_middle_of_a_fan_out_gets_nothing_after_its_end() -> None:
    later = Later()
    hub = Hub(schedule=later)
    crowd = [reader(hub) for _ in range(2 * SLICE)]
    hub.publish([update("1")])
    later.step()
    crowd[-1].subscription.end("draining", 1)
    later.run()
    assert crowd[-1].identities == ["s1"]
    assert crowd[-2].identities == ["1"]


# Readers that wait, and readers that lag


def test_nothing_is_kept_for_who_has_gone() -> None:
    hub = Hub()
    subscription, _ = hub.subscribe(ALL)
    hub.publish([update("1")])
    subscription.close()
    assert subscription.waiting_bytes == 0
    assert subscription.take() == b""


def test_what_is_not_taken_waits_in_order() -> None:
    hub = Hub()
    subscription, _ = hub.subscribe(ALL)
    woken: list[int] = []
    subscription.wake = lambda: woken.append(subscription.waiting_bytes)
    hub.publish([update("1")])
    hub.publish([update("2")])
    assert identities(subscription.take()) == ["1", "2"]
    assert subscription.take() == b""
    assert subscription.waiting_bytes == 0
    assert len(woken) == 2


def test_a_tick_is_not_written_past_one_that_waits() -> None:
    hub = Hub()
    one = reader(hub)
    one.stop()
    hub.publish([update("1")])
    hub.publish([update("2")])
    with pytest.raises(RuntimeError, match="taken first"):
        one.subscription.follow(one.write)
    one.go_on()
    hub.publish([update("3")])
    assert one.identities == ["1", "2", "3"]
    assert len(one.chunks) == 1


def test_of_totals_that_wait_only_the_last_is_kept_and_every_update() -> None:
    hub = Hub()
    subscription, _ = hub.subscribe(ALL)
    hub.publish([update("1")], totals(hub))
    hub.broadcast(heartbeat(hub))
    hub.publish([], totals(hub))
    hub.publish([update("2")], totals(hub))
    waiting_bytes = subscription.waiting_bytes
    data = subscription.take()
    assert identities(data) == ["1", "h2", "2", "m4"]
    assert waiting_bytes == len(data)


def test_totals_that_are_taken_do_not_come_again_nor_stand_for_others() -> None:
    hub = Hub()
    subscription, _ = hub.subscribe(ALL)
    hub.publish([update("1")], totals(hub))
    assert identities(subscription.take()) == ["1", "m1"]
    hub.publish([update("2")])
    hub.publish([], totals(hub))
    assert identities(subscription.take()) == ["2", "m2"]


def test_ten_thousand_totals_that_wait_take_the_room_of_one() -> None:
    hub = Hub()
    subscription, _ = hub.subscribe(NONE)
    for _ in range(10_000):
        hub.publish([], totals(hub))
    assert subscription._waiting is not None
    assert len(subscription._waiting) == 1
    assert subscription.waiting_bytes < 300


def lagging(backlog_bytes: int) -> tuple[Hub, Reader]:
    hub = Hub(backlog_bytes=backlog_bytes, retry_ms=1000, chance=random.Random(1))
    one = reader(hub)
    one.stop()
    return hub, one


def test_a_reader_that_falls_behind_is_ended_after_what_it_has() -> None:
    hub, slow = lagging(1000)
    told: list[Subscription] = []
    hub.on_lagged = told.append
    for number in range(1, 6):
        hub.publish([update(str(number), size=400)])
    assert told == [slow.subscription]
    assert hub.subscriptions == []
    events = parsed(slow.received)
    assert [one.event for one in events] == ["sentiment_update"] * 3 + ["stream_end"]
    assert events[-1].json()["reason"] == "lagged"
    assert 500 <= events[-1].json()["retry_ms"] <= 1000
    assert events[-1].retry == events[-1].json()["retry_ms"]


def test_what_a_lagging_reader_did_not_get_is_what_it_resumes_with() -> None:
    hub, slow = lagging(1000)
    for number in range(1, 9):
        hub.publish([update(str(number), size=400)])
    assert missed(hub, ALL, last_place(slow.received)) == ("exact", ["4", "5", "6", "7", "8"])


def test_one_tick_of_any_size_is_no_lag() -> None:
    hub, slow = lagging(1000)
    hub.publish([update("1", size=100_000)])
    assert hub.subscriptions
    hub.publish([update("2")])
    assert not hub.subscriptions
    assert slow.identities[0] == "1"


def test_exactly_the_backlog_is_no_lag() -> None:
    tick = len(update("1", size=500).frame("here.1.0"))
    hub, _ = lagging(tick)
    hub.instance = "here"
    hub.publish([update("1", size=500)])
    hub.publish([update("2", size=500)])
    assert hub.subscriptions
    hub.publish([update("3", size=500)])
    assert not hub.subscriptions


def test_bytes_that_have_not_left_the_process_are_backlog_too() -> None:
    hub, slow = lagging(1000)
    slow.subscription.unsent = lambda: 1001
    hub.publish([update("1")])
    assert not hub.subscriptions


def test_readers_that_lag_together_do_not_come_back_together() -> None:
    hub = Hub(backlog_bytes=0, retry_ms=3000)
    readers = [reader(hub) for _ in range(100)]
    for one in readers:
        one.stop()
    hub.publish([update("1")])
    hub.publish([update("2")])
    waits = [parsed(one.received)[-1].retry for one in readers]
    assert len(set(waits)) > 50


# Ends


def test_an_end_comes_after_what_waits_and_says_why_and_when_to_come_back() -> None:
    hub = Hub(instance="here")
    hub.advance(START)
    one = reader(hub)
    one.stop()
    hub.publish([update("1")])
    one.subscription.end("max_age", 1234)
    assert one.received == (
        b'id: evt_1.here.1.1764671400000\nevent: sentiment_update\ndata: ""\n\n'
        b"retry: 1234\nid: evt_s1.here.1.1764671400000\nevent: stream_end\n"
        b'data: {"reason":"max_age","retry_ms":1234}\n\n'
    )


def test_a_stream_ends_once() -> None:
    hub = Hub()
    one = reader(hub)
    one.subscription.end("draining", 1)
    ending = one.subscription.ending
    one.subscription.end("max_age", 2)
    hub.publish([update("1")])
    hub.broadcast(heartbeat(hub))
    hub.send(one.subscription, b"late")
    assert one.subscription.ending is ending
    assert one.identities == ["s1"]


def test_the_end_of_a_reader_whose_turn_has_not_come_leads_to_what_it_did_not_get() -> None:
    later = Later()
    hub = Hub(schedule=later)
    first, last = reader(hub), reader(hub)
    hub.publish([update("1")])
    later.run()
    hub.publish([update("2")])
    last.subscription.end("draining", 1)
    later.run()
    assert first.identities == ["1", "2"]
    assert last.identities == ["1", "s1"]
    assert missed(hub, ALL, last_place(last.received)) == ("exact", ["2"])


def test_the_end_of_a_reader_whose_turn_has_not_come_carries_the_watermark_of_what_it_got() -> None:
    """The current one would make another instance skip what was queued here."""
    time, later = Time(), Later()
    here = Hub(clock=time.clock, schedule=later)
    here.advance(START)
    one = reader(here)
    here.publish([update("1")])
    here.advance(START + 60)
    one.subscription.end("draining", 1)
    later.run()
    assert last_place(one.received).watermark == START


def test_readers_that_end_at_once_come_back_evenly_over_the_time() -> None:
    waits = [spread(index, 1000, 10.0, random.Random(index)) for index in range(1000)]
    assert waits == sorted(waits)
    assert 1 <= waits[0] <= 11
    assert 9_990 <= waits[-1] <= 10_001
    per_second = [sum(second * 1000 <= wait < second * 1000 + 1000 for wait in waits) for second in range(10)]
    assert all(95 <= count <= 105 for count in per_second)
    assert spread(0, 0, 10.0, random.Random(1)) >= 1


# A reader's own: refilter and send


def test_a_reader_that_changes_its_filter_gets_the_old_until_then_and_the_new_from_then_on() -> None:
    later = Later()
    hub = Hub(schedule=later)
    one = reader(hub, only("A"))
    hub.publish([update("1", "A"), update("2", "B")])
    hub.refilter(one.subscription, only("B"))
    hub.publish([update("3", "A"), update("4", "B")])
    later.run()
    assert one.identities == ["1", "4"]


def test_a_filter_changed_back_and_forth_within_a_fan_out_neither_loses_nor_repeats() -> None:
    later = Later()
    hub = Hub(schedule=later)
    one, other = reader(hub, only("A")), reader(hub, only("A"))
    for number in range(6):
        hub.publish([update(f"a{number}", "A"), update(f"b{number}", "B")])
        hub.refilter(one.subscription, only("B" if number % 2 == 0 else "A"))
    later.run()
    assert one.identities == ["a0", "b1", "a2", "b3", "a4", "b5"]
    assert other.identities == [f"a{number}" for number in range(6)]


def test_the_change_of_one_reader_s_filter_does_not_deliver_to_the_others_before_their_turn() -> None:
    later = Later()
    hub = Hub(schedule=later)
    one, other = reader(hub, only("A")), reader(hub, only("A"))
    hub.publish([update("1", "A")])
    hub.refilter(one.subscription, only("B"))
    assert one.identities == ["1"]
    assert other.identities == []
    later.run()
    assert other.identities == ["1"]


def test_who_moves_to_a_channel_gets_nothing_that_was_queued_there_before() -> None:
    later = Later()
    hub = Hub(schedule=later)
    one, other = reader(hub, only("A")), reader(hub, only("B"))
    hub.publish([update("1", "B")])
    hub.refilter(one.subscription, only("B"))
    later.run()
    assert other.identities == ["1"]
    assert one.identities == []


def test_a_gzip_stream_that_moves_to_another_channel_ends_with_the_sum_of_both() -> None:
    hub = Hub()
    subscription, _ = hub.subscribe(only("A"), gzip=Gzip())
    assert subscription.gzip is not None
    body = [subscription.gzip.encode(b": hello\n\n")]

    def follow() -> None:
        body.append(subscription.take())
        subscription.follow(lambda data: body.append(unchunked(data)))

    subscription.wake = follow
    follow()
    hub.publish([update("1", "A")])
    hub.refilter(subscription, only("B"))
    hub.publish([update("2", "B")])
    subscription.end("draining", 1)
    body += [subscription.take(), subscription.finish()]
    assert identities(gzip.decompress(b"".join(body)))[:2] == ["1", "2"], "and its trailer is that of these bytes"


def test_the_same_filter_again_changes_nothing() -> None:
    hub = Hub()
    one, ended = reader(hub, only("A")), reader(hub, only("A"))
    for each in (one, ended):
        hub.refilter(each.subscription, only("A"))
    ended.subscription.end("draining", 1)
    hub.publish([update("1", "A")])
    assert one.identities == ["1"]
    assert place_of(parsed(ended.received)[-1]).instance == hub.instance, "it needs no new opening"


def test_who_was_refiltered_and_ended_before_the_new_state_came_gets_a_new_opening() -> None:
    hub = Hub()
    one = reader(hub, only("A"))
    hub.refilter(one.subscription, only("B"))
    one.subscription.end("draining", 1)
    assert place_in(parsed(one.received)[-1].id) is None


def test_who_was_refiltered_and_sent_the_new_state_goes_on_from_there() -> None:
    hub = Hub()
    hub.publish([update("1", "B")])
    one = reader(hub, only("A"))
    hub.refilter(one.subscription, only("B"))
    hub.send(one.subscription, update("state", "B").frame(str(hub.place)))
    one.subscription.end("draining", 1)
    hub.publish([update("2", "B")])
    assert one.identities == ["state", "s1"]
    assert missed(hub, only("B"), last_place(one.received)) == ("exact", ["2"])


def test_a_refiltered_reader_that_lags_at_the_new_state_gets_a_new_opening() -> None:
    hub, slow = lagging(100)
    hub.publish([update("1", size=400)])
    hub.refilter(slow.subscription, only("B"))
    hub.send(slow.subscription, b"the new state")
    ended = parsed(slow.received)[-1]
    assert ended.json()["reason"] == "lagged"
    assert place_in(ended.id) is None


def test_what_is_sent_to_one_reader_comes_in_its_place_and_to_nobody_else() -> None:
    later = Later()
    hub = Hub(schedule=later)
    one, other = reader(hub), reader(hub)
    hub.publish([update("1")])
    hub.send(one.subscription, update("own").frame(str(hub.place)))
    hub.publish([update("2")])
    later.run()
    assert one.identities == ["1", "own", "2"]
    assert other.identities == ["1", "2"]


def test_who_has_left_is_neither_refiltered_nor_sent_anything() -> None:
    hub = Hub()
    one = reader(hub, only("A"))
    one.subscription.close()
    hub.refilter(one.subscription, ALL)
    hub.send(one.subscription, b"x")
    hub.publish([update("1")])
    assert one.received == b""
    assert hub.subscriptions == []


# Places


def test_every_update_carries_its_number_and_the_watermark_of_before_its_tick() -> None:
    hub = Hub(instance="here")
    one = reader(hub)
    hub.advance(START)
    hub.publish([update("1"), update("2")])
    hub.advance(START + 2)
    hub.publish([update("3")], totals(hub))
    assert [place_of(event) for event in parsed(one.received)] == [
        Place("here", 1, START),
        Place("here", 2, START),
        Place("here", 3, START + 2),
        Place("here", 3, START + 2),
    ]


def test_heartbeats_move_a_reader_on_whose_filter_matches_nothing() -> None:
    time = Time()
    hub = hub_at(time, log_events=2)
    one = reader(hub, only("A"))
    for number in range(10):
        hub.publish([update(str(number), "B")])
    hub.broadcast(heartbeat(hub))
    one.subscription.close()
    hub.publish([update("missed", "A")])
    assert missed(hub, only("A"), last_place(one.received)) == ("exact", ["missed"])


def test_a_watermark_that_was_ahead_of_the_right_time_is_taken_back() -> None:
    """The clock was an hour ahead and is set right: the ids must not promise for an hour what was not read."""
    hub = Hub()
    hub.advance(START + 3600)
    hub.advance(START)
    assert hub.place.watermark == START


# Resume


def test_a_reader_of_this_instance_gets_exactly_what_it_missed() -> None:
    hub = Hub()
    hub.publish([update("1", "A"), update("2", "B"), update("3", "A")])
    assert missed(hub, only("A"), replace(hub.place, number=1)) == ("exact", ["3"])
    assert missed(hub, ALL, replace(hub.place, number=0)) == ("exact", ["1", "2", "3"])
    assert missed(hub, ALL, hub.place) == ("exact", [])


def test_a_reader_without_a_place_gets_the_state() -> None:
    assert missed(Hub(), ALL, None) == ("snapshot", [])


def test_a_place_of_this_instance_that_it_never_reached_gets_the_state() -> None:
    hub = Hub()
    assert missed(hub, ALL, replace(hub.place, number=1)) == ("snapshot", [])


def test_a_place_that_the_log_does_not_reach_back_to_gets_the_state() -> None:
    hub = Hub(log_events=3)
    hub.publish([update(str(number)) for number in range(5)])
    assert missed(hub, ALL, replace(hub.place, number=2)) == ("exact", ["2", "3", "4"])
    assert missed(hub, ALL, replace(hub.place, number=1)) == ("snapshot", [])


def test_a_replay_can_be_gone_on_from_at_every_event_of_it() -> None:
    hub = Hub()
    hub.publish([update(str(number)) for number in range(5)])
    frames = hub.replay(ALL, replace(hub.place, number=0)).frames
    for number, frame in enumerate(frames, 1):
        assert missed(hub, ALL, last_place(frame)) == ("exact", [str(later) for later in range(number, 5)])


def elsewhere(watermark: float) -> Place:
    return Place("elsewhere", 1_000_000, watermark)


def hub_with_an_update_every_second(seconds: int, log_events: int = 10_000, margin: float = 5.0) -> tuple[Hub, Time]:
    """Loaded at second 0, then one update at each second from 1 on, named for it."""
    time = Time()
    hub = hub_at(time, log_events=log_events, resume_margin=margin)
    hub.advance(START)
    for second in range(1, seconds + 1):
        time.seconds = second
        hub.publish([update(str(second))])
    return hub, time


def test_a_reader_of_another_instance_gets_all_that_came_since_its_watermark_less_the_margin() -> None:
    hub, time = hub_with_an_update_every_second(20)
    time.seconds = 300
    mode, replayed = missed(hub, ALL, elsewhere(START + 15))
    assert mode == "overlap"
    assert replayed == [str(second) for second in range(10, 21)]


def test_a_replay_for_another_instance_passes_the_filter() -> None:
    hub, _ = hub_with_an_update_every_second(20)
    assert missed(hub, only("MSFT"), elsewhere(START + 15)) == ("overlap", [])


def test_a_watermark_from_before_this_instance_had_read_the_window_gets_the_state() -> None:
    hub, _ = hub_with_an_update_every_second(20)
    assert missed(hub, ALL, elsewhere(START + 5))[0] == "overlap"
    assert missed(hub, ALL, elsewhere(START + 4.99)) == ("snapshot", [])


def test_an_instance_that_has_not_read_the_window_stands_for_nobody() -> None:
    hub = hub_at(Time(seconds=100))
    assert missed(hub, ALL, elsewhere(START + 99)) == ("snapshot", [])


def test_a_watermark_that_the_log_does_not_reach_back_to_gets_the_state() -> None:
    hub, _ = hub_with_an_update_every_second(20, log_events=5)
    assert missed(hub, ALL, elsewhere(START + 20.5)) == ("overlap", ["16", "17", "18", "19", "20"])
    assert missed(hub, ALL, elsewhere(START + 20)) == ("snapshot", []), "some of what came at second 15 may be gone"


def test_a_watermark_from_the_future_gets_the_state() -> None:
    """Beyond the margin clocks do not differ by accident."""
    hub, _ = hub_with_an_update_every_second(20)
    assert missed(hub, ALL, elsewhere(START + 24.9))[0] == "overlap"
    assert missed(hub, ALL, elsewhere(START + 25.1)) == ("snapshot", [])


def test_a_machine_that_was_frozen_rather_repeats_than_loses() -> None:
    """Its monotonic clock stood still while the wall clock went on: what came just before seems long ago."""
    hub, time = hub_with_an_update_every_second(20)
    time.ahead = 600
    mode, replayed = missed(hub, ALL, elsewhere(START + 15))
    assert mode == "snapshot" or set(replayed) >= {str(second) for second in range(15, 21)}


def test_a_watermark_without_meaning_gets_the_state() -> None:
    hub, _ = hub_with_an_update_every_second(3)
    for watermark in (0.0, 10.0**12 - 1):
        assert missed(hub, ALL, elsewhere(watermark)) == ("snapshot", [])


# What it costs


def cost_of_a_tick(filters: list[Filter]) -> int:
    """Ticks that are made for one update to all these readers."""
    hub = Hub()
    readers = [reader(hub, wanted) for wanted in filters]
    hub.publish([update("1", "A")])
    return len({id(data) for one in readers for data in one.chunks})


def test_five_hundred_filters_that_one_update_matches_are_served_with_one_frame() -> None:
    assert cost_of_a_tick([only("A", f"T{number}") for number in range(500)]) == 1


def test_a_status_of_subscriptions_may_be_walked_while_they_end() -> None:
    hub = Hub()
    for _ in range(5):
        reader(hub)
    for subscription in hub.subscriptions:
        subscription.end("draining", 1)
    assert hub.subscriptions == []


def test_an_event_that_is_not_about_an_item_is_json_of_its_payload() -> None:
    hub = Hub()
    assert json.loads(heartbeat(hub).data)["feed"] == "live"
    assert heartbeat(hub).identity != heartbeat(hub).identity
