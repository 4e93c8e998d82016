"""The checker sees what it is there to see: every kind of breach, in histories that are right but for one thing."""

from dataclasses import replace

import pytest

from tests.proof.chaos.checker import BACK, LAG, back_after, check
from tests.proof.chaos.history import Connection, Episode, History, Record, Update, Written
from tests.proof.chaos.report import account, figures

OVER = 1000.0


def written(number: int, at: float, item: str = "", version: int = 1, tickers: tuple[str, ...] = ("A",)) -> Written:
    """A state with a timestamp that is the later, the greater the item's name."""
    item = item or f"item {number:03d}"
    moment = f"2026-11-26T12:{item[-3:]}"
    return Written(number, item, version, tickers, "positive", 0.5, "chaos", moment, at, at + 0.1)


def heard(state: Written, at: float, ticker: str = "A") -> Update:
    identity = f"evt_{state.item}/{ticker}-{state.number}"
    return Update(at, state.number, identity, ticker, state.label, state.score, state.source, state.timestamp)


def connected(
    mode: str, *updates: Update, since: float, until: float | None = None, reason: str = "cut before the last chunk"
) -> Connection:
    """A connection that heard something up to its end."""
    return Connection(
        since - 0.1,
        mode != "opening",
        mode,
        since,
        updates=list(updates),
        heard=OVER if until is None else until,
        closed=until,
        reason="" if until is None else reason,
    )


def kinds(
    states: list[Written], *connections: Connection, tickers: frozenset[str] | None = None, blind: bool = False
) -> list[str]:
    """The kinds of the breaches that the checker finds in one history."""
    history = History("reader 1", tickers, list(connections))
    episodes = [Episode(("hang",), 0.0, OVER - 5, hidden=OVER)] if blind else []
    for at in range(int(OVER)):
        history.heard.append(float(at))
        history.live.append(float(at))
    return [breach.kind for breach in check(Record(states, [history], episodes, 0.0, OVER)).breaches]


FIRST, SECOND, THIRD = written(1, 10.0), written(2, 20.0), written(3, 300.0)
CHANGED = written(4, 400.0, item=SECOND.item, version=2)
STATES = [FIRST, SECOND, THIRD]


def test_who_heard_everything_in_order_has_nothing_against_it() -> None:
    opening = connected("opening", heard(FIRST, 11), heard(SECOND, 21), since=5, until=100)
    assert kinds(STATES, opening, connected("exact", heard(THIRD, 301), since=102)) == []
    assert kinds(STATES, opening, connected("overlap", heard(THIRD, 301), since=102)) == []
    assert kinds(STATES, opening, connected("snapshot", heard(THIRD, 301), since=102)) == []


def test_an_opening_shows_the_last_state_of_each_ticker_and_what_was_before_is_not_missed() -> None:
    assert kinds(STATES, connected("opening", heard(SECOND, 101), heard(THIRD, 301), since=100)) == []


@pytest.mark.parametrize("mode", ["exact", "overlap"])
def test_what_was_written_between_two_connections_of_which_one_goes_on_from_the_other_must_be_heard(mode: str) -> None:
    later = written(900, 40.0)
    opening = connected("opening", heard(FIRST, 11), since=5, until=15)
    assert kinds([FIRST, SECOND, later], opening, connected(mode, heard(later, 100), since=100)) == ["lost"]


def test_what_was_written_before_a_new_opening_may_be_folded_into_the_state() -> None:
    opening = connected("opening", heard(FIRST, 11), since=5, until=15)
    states = [FIRST, SECOND, THIRD, written(900, 40.0)]
    later = connected("snapshot", heard(states[-1], 100), heard(THIRD, 301), since=100)
    assert kinds(states, opening, later) == []


def test_what_an_opening_shows_may_have_been_overtaken_while_it_was_asked_for() -> None:
    overtaking = written(900, 99.92)
    assert kinds([FIRST, overtaking], connected("opening", heard(overtaking, 101), since=100)) == []


def test_to_the_end_everything_must_be_heard_even_by_who_was_silent_then() -> None:
    silent = connected("opening", heard(FIRST, 11), heard(written(900, 12.0), 13), since=5)
    silent.heard = 20.0
    assert kinds([FIRST, written(900, 12.0), SECOND], silent) == ["lost"]


def test_what_was_written_while_one_listened_must_be_heard() -> None:
    assert kinds(STATES, connected("opening", heard(FIRST, 11), heard(THIRD, 301), since=5)) == ["lost"]


def test_what_was_lost_before_a_new_opening_is_lost_all_the_same() -> None:
    opening = connected("opening", heard(FIRST, 11), since=5, until=20 + LAG + 1)
    later = connected("snapshot", heard(THIRD, 301), since=310)
    assert kinds(STATES, opening, later) == ["lost"]
    soon = connected("opening", heard(FIRST, 11), since=5, until=20 + LAG - 1)
    assert kinds(STATES, soon, later) == []


def test_an_opening_without_the_last_state_of_a_ticker_has_lost_it() -> None:
    states = [FIRST, SECOND, THIRD]
    assert kinds(states, connected("opening", heard(FIRST, 101), heard(THIRD, 301), since=100)) == ["lost"]


def test_each_ticker_of_an_item_is_heard_by_those_who_asked_for_it() -> None:
    both = written(5, 10.0, tickers=("A", "B"))
    one, other = heard(both, 11), heard(both, 11, "B")
    assert kinds([both], connected("opening", one, other, since=5)) == []
    assert kinds([both], connected("opening", other, since=5), tickers=frozenset("B")) == []
    assert kinds([both], connected("opening", one, since=5)) == ["lost", "wrong last state"]
    assert kinds([both], connected("opening", one, other, since=5), tickers=frozenset("B")) == ["not asked for"]


def test_a_state_that_stood_for_a_moment_may_be_folded_into_the_next_and_one_that_stood_longer_may_not() -> None:
    quickly = written(4, SECOND.done + LAG - 1, item=SECOND.item, version=2)
    slowly = written(4, SECOND.done + LAG + 1, item=SECOND.item, version=2)
    for later, expected in ((quickly, []), (slowly, ["lost"])):
        opening = connected("opening", heard(FIRST, 11), heard(later, 40), since=5)
        assert kinds([FIRST, SECOND, later], opening) == expected


def test_while_the_table_cannot_be_read_states_may_be_folded() -> None:
    opening = connected("opening", heard(FIRST, 11), heard(CHANGED, 401), since=5)
    assert kinds([FIRST, SECOND, CHANGED], opening) == ["lost"]
    assert kinds([FIRST, SECOND, CHANGED], opening, blind=True) == []


def test_an_update_that_nobody_wrote_is_invented() -> None:
    opening = connected("opening", heard(FIRST, 11), heard(written(99, 0.0), 12), heard(SECOND, 21), since=5)
    assert kinds([FIRST, SECOND], opening) == ["invented"]


@pytest.mark.parametrize("change", [{"label": "negative"}, {"score": 0.25}, {"timestamp": ""}, {"source": "x"}])
def test_an_update_that_says_something_else_than_the_table_is_invented(change: dict[str, object]) -> None:
    other = replace(heard(FIRST, 11), **change)  # type: ignore[arg-type]
    assert kinds([FIRST], connected("opening", other, heard(FIRST, 12), since=5)) == ["invented"]


def test_an_update_of_a_ticker_that_its_item_does_not_have_is_invented() -> None:
    assert kinds([FIRST], connected("opening", heard(FIRST, 11), heard(FIRST, 12, "B"), since=5)) == ["invented"]


def test_an_update_from_before_it_was_written_is_invented() -> None:
    assert kinds([FIRST], connected("opening", heard(FIRST, 9.0), since=5)) == ["invented"]


def test_an_identity_that_means_two_things_is_told() -> None:
    same = replace(heard(SECOND, 21), identity=heard(FIRST, 11).identity)
    assert kinds([FIRST, SECOND], connected("opening", heard(FIRST, 11), same, since=5)) == ["ambiguous"]


def test_a_state_with_two_identities_is_told() -> None:
    other = replace(heard(FIRST, 200), identity="evt_other-1")
    first = connected("opening", heard(FIRST, 11), heard(SECOND, 21), since=5, until=100)
    assert "ambiguous" in kinds([FIRST, SECOND], first, connected("snapshot", other, since=150))


@pytest.mark.parametrize("mode", ["exact", "overlap", "snapshot"])
def test_the_state_that_was_heard_last_is_not_heard_again(mode: str) -> None:
    first = connected("opening", heard(FIRST, 11), heard(SECOND, 21), since=5, until=100)
    assert kinds([FIRST, SECOND], first, connected(mode, heard(SECOND, 150), since=140)) == ["twice"]


def test_a_double_within_a_connection_is_told() -> None:
    assert kinds([FIRST], connected("opening", heard(FIRST, 11), heard(FIRST, 12), since=5)) == ["twice"]


def test_the_states_of_an_item_come_in_their_order_on_every_connection() -> None:
    states = [SECOND, CHANGED]
    opening = connected("opening", heard(SECOND, 21), heard(CHANGED, 401), heard(SECOND, 402), since=5)
    assert kinds(states, opening) == ["disordered", "stepped back", "wrong last state"]


def test_an_exact_resume_does_not_go_back_and_an_overlap_may_if_it_ends_with_the_last() -> None:
    states = [SECOND, CHANGED]
    first = connected("opening", heard(SECOND, 21), heard(CHANGED, 401), since=5, until=402)
    again = (heard(SECOND, 405), heard(CHANGED, 405.1))
    assert kinds(states, first, connected("overlap", *again, since=404)) == []
    assert kinds(states, first, connected("exact", *again, since=404)) == ["disordered"]
    assert kinds(states, first, connected("overlap", again[0], since=404)) == ["stepped back", "wrong last state"]


def test_an_item_that_is_left_in_an_older_state_than_was_shown_is_told_though_no_ticker_shows_it_last() -> None:
    states = [SECOND, CHANGED, written(900, 30.0)]
    newer = heard(states[-1], 31)
    first = connected("opening", heard(SECOND, 21), newer, heard(CHANGED, 401), since=5, until=402)

    def later(until: float | None) -> Connection:
        return connected("overlap", heard(SECOND, 405), since=404, until=until)

    assert kinds(states, first, later(None)) == ["stepped back"]
    assert kinds(states, first, later(500), connected("snapshot", since=501)) == ["stepped back"]
    assert kinds(states, first, later(500), connected("exact", heard(CHANGED, 502), since=501)) == []
    assert kinds(states, first, later(407), connected("snapshot", since=408)) == [], "what lay between was folded"


def test_a_wrong_last_state_is_told_though_a_new_opening_has_forgiven_the_loss() -> None:
    first = connected("opening", heard(FIRST, 11), since=5, until=15)
    assert kinds([FIRST, SECOND], first, connected("snapshot", since=OVER - 3)) == ["wrong last state"]


def test_wrong_totals_a_feed_that_is_not_live_and_giving_up_are_told() -> None:
    history = History("reader 1", None, [connected("opening", heard(FIRST, 11), since=5)])
    history.totals, history.failure = 2, "StreamRefused"
    breaches = check(Record([FIRST], [history], [], 0.0, OVER)).breaches
    assert {breach.kind for breach in breaches} == {"wrong totals", "not live", "gave up"}


def test_a_stream_ends_by_a_reason_of_the_contract_or_is_cut() -> None:
    def ended(reason: str) -> list[str]:
        first = connected("opening", heard(FIRST, 11), since=5, until=100, reason=reason)
        return kinds([FIRST], first, connected("exact", since=101))

    assert ended("ended by the server: draining") == []
    assert ended("cut before the last chunk") == []
    assert ended("silent for 10 s") == []
    assert ended("ended by the server") == ["unexplained end"]
    assert ended("ended by the server: no reason given") == ["unexplained end"]


def test_who_sent_an_id_is_told_how_it_goes_on() -> None:
    first = connected("opening", heard(FIRST, 11), since=5, until=100)
    second = replace(connected("opening", since=101), with_id=True)
    assert kinds([FIRST], first, second) == ["not resumed"]


# Back in time

FAULT = Episode(("kill",), 100.0, 110.0)


def listener(*times: float, closed: float | None = None, reason: str = "cut") -> History:
    history = History("reader 1", None, [connected("opening", since=5, until=closed, reason=reason)])
    history.heard.extend(times)
    history.live.append(OVER - 1)
    return history


def test_who_heard_something_all_the_time_was_not_disturbed() -> None:
    assert back_after(listener(*range(90, 130, 2)), FAULT) is None


def test_who_was_cut_off_and_back_before_the_end_was_not_disturbed_then() -> None:
    assert back_after(listener(100, 104, 106, 108, 110.5, closed=101), FAULT) is None


def test_who_was_cut_off_is_back_with_the_next_that_it_hears() -> None:
    assert back_after(listener(100, 113, closed=101), FAULT) == 3
    assert back_after(listener(100, closed=101), FAULT) == float("inf")


def test_a_short_absence_at_the_end_is_an_absence() -> None:
    assert back_after(listener(107, 109, 110.5, closed=109.5), FAULT) == 0.5


def test_who_was_silent_at_the_end_is_back_with_the_next_that_it_hears() -> None:
    assert back_after(listener(98, 100, 117), FAULT) == 7


def test_who_is_cut_off_just_after_the_end_was_disturbed_too() -> None:
    assert back_after(listener(98, 100, 110.2, 116, closed=110.5), FAULT) == 6


def test_whoever_is_back_too_late_is_a_breach_that_is_told_with_its_fault() -> None:
    history = listener(100, 110 + BACK + 1, closed=101)
    record = Record([], [history], [FAULT], 0.0, OVER)
    verdict = check(record)
    assert [breach.kind for breach in verdict.breaches] == ["not back"]
    assert "11.0 s after kill" in account(record, verdict)[0]


def test_the_figures_say_what_happened() -> None:
    first = connected("opening", heard(FIRST, 11), heard(SECOND, 21), since=5, until=100)
    history = History("reader 1", None, [first, connected("exact", heard(THIRD, 301), since=101)])
    record = Record(STATES, [history], [FAULT], 0.0, OVER)
    told = "\n".join(figures(record, check(record)))
    for words in ("1 episodes: kill 1", "opening 1, exact 1", "cut before the last chunk 1", "3 heard", "3 updates"):
        assert words in told
