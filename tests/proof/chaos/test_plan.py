"""The plan of a seed, and who reads."""

from tests.proof.chaos.plan import KINDS, LEAST_PAUSE, plan
from tests.proof.chaos.readers import wishes


def test_the_plan_of_a_seed_is_always_the_same_and_of_another_it_is_another() -> None:
    assert plan(7, 600) == plan(7, 600)
    assert plan(7, 600) != plan(8, 600)


def test_a_longer_plan_begins_like_a_shorter_one_and_neither_is_longer_than_it_may_be() -> None:
    short, long = plan(7, 100), plan(7, 600)
    assert long[: len(short)] == short
    assert sum(one.seconds for one in short) <= 100
    assert 550 < sum(one.seconds for one in long) <= 600


def test_even_the_shortest_plan_has_an_episode() -> None:
    assert len(plan(7, 1)) == 1


def test_every_kind_comes_within_the_ten_minutes_of_any_seed() -> None:
    for seed in range(200):
        assert {fault.kind for one in plan(seed, 600) for fault in one.faults} == set(KINDS)


def test_there_is_time_to_come_back_before_the_next_and_what_overlaps_acts_on_different_things() -> None:
    for one in (one for seed in range(200) for one in plan(seed, 600)):
        assert one.pause >= LEAST_PAUSE
        assert len({fault.kind.on for fault in one.faults}) == len(one.faults)
        for fault in one.faults:
            assert fault.kind.least <= fault.seconds <= fault.kind.most
            assert fault.after <= one.faults[0].seconds


def test_readers_are_of_every_kind_on_both_ways_to_the_service() -> None:
    asked = wishes(120, 7)
    assert asked == wishes(120, 7)
    for way in (asked[3::4], [wish for number, wish in enumerate(asked) if number % 4 != 3]):
        kinds = {"all" if one.tickers is None else "private" if one.user else "some" for one in way}
        assert kinds == {"all", "private", "some"}
        assert {one.gzip for one in way} == {True, False}
