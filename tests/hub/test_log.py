from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from quartsse.hub.log import Entry, Log


def log(limit: int, *arrivals: float) -> Log:
    """A log with an update at each of these moments."""
    made = Log(limit)
    for number, arrived in enumerate(arrivals, 1):
        made.append(Entry(arrived, None, str(number).encode()))
    return made


def numbers(entries: Iterator[Entry] | None) -> list[int] | None:
    return None if entries is None else [int(entry.frame) for entry in entries]


def test_what_comes_after_a_number_is_found() -> None:
    assert numbers(log(10, 1, 2, 3).after(1)) == [2, 3]


def test_nothing_comes_after_the_last_one() -> None:
    assert numbers(log(10, 1, 2, 3).after(3)) == []
    assert numbers(log(10).after(0)) == []


def test_a_number_that_was_never_given_is_not_found() -> None:
    assert log(10, 1, 2, 3).after(4) is None


def test_the_oldest_number_that_can_be_gone_on_from_is_the_one_just_forgotten() -> None:
    full = log(2, 1, 2, 3, 4)
    assert numbers(full.after(2)) == [3, 4]
    assert full.after(1) is None


def test_a_moment_includes_what_arrived_at_it() -> None:
    assert numbers(log(10, 1, 2, 2, 3).since(2)) == [2, 3, 4]


def test_a_moment_before_everything_finds_everything_if_nothing_was_forgotten() -> None:
    assert numbers(log(10, 1, 2).since(-5)) == [1, 2]


def test_a_moment_at_which_something_forgotten_arrived_is_not_found() -> None:
    full = log(2, 1, 2, 2, 3)
    assert full.since(2) is None
    assert numbers(full.since(2.5)) == [4]


def test_a_log_of_none_keeps_none_and_still_counts() -> None:
    none = log(0, 1, 2)
    assert none.number == 2
    assert numbers(none.after(2)) == []
    assert none.after(1) is None
    assert none.since(2) is None
    assert numbers(none.since(3)) == []


@given(st.integers(0, 6), st.lists(st.integers(0, 5), max_size=15).map(sorted), st.integers(0, 16), st.integers(0, 6))
def test_it_tells_exactly_what_a_log_without_a_limit_would_or_nothing(
    limit: int, arrivals: list[int], number: int, moment: int
) -> None:
    bounded, endless = log(limit, *arrivals), log(100, *arrivals)
    for found, whole in (
        (numbers(bounded.after(number)), numbers(endless.after(number))),
        (numbers(bounded.since(moment)), numbers(endless.since(moment))),
    ):
        assert found == whole or (found is None and (whole is None or len(whole) > 0))
        assert whole is None or len(whole) > limit or found is not None or limit < len(arrivals)
