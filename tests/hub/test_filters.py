import pytest

from quartsse.hub.filters import TICKER, Filter


def test_a_filter_lets_its_tickers_through_and_no_others() -> None:
    wanted = Filter(frozenset({"AAPL", "MSFT"}))
    assert wanted.matches("AAPL")
    assert not wanted.matches("TSLA")


def test_a_filter_without_tickers_lets_no_ticker_through() -> None:
    assert not Filter().matches("AAPL")


def test_a_filter_for_all_lets_every_ticker_through() -> None:
    assert Filter(None).matches("AAPL")


@pytest.mark.parametrize("wanted", [Filter(), Filter(None), Filter(frozenset({"AAPL"}))])
def test_what_has_no_ticker_is_for_everyone(wanted: Filter) -> None:
    assert wanted.matches(None)


def test_equal_filters_are_one_however_their_tickers_were_written_down() -> None:
    assert len({Filter(frozenset(["A", "B"])), Filter(frozenset(["B", "A"])), Filter(frozenset(["A", "B", "B"]))}) == 1


def test_with_and_without_totals_are_two_filters() -> None:
    assert Filter(None, metrics=True) != Filter(None, metrics=False)


def test_of_some_tickers_those_are_named_that_pass_in_order() -> None:
    assert Filter(frozenset({"B", "A", "Z"})).of({"C", "B", "A"}) == ["A", "B"]
    assert Filter(None).of({"C", "B"}) == ["B", "C"]
    assert Filter().of({"C", "B"}) == []


@pytest.mark.parametrize("ticker", ["A", "BRK.B", "BF-A", "0700.HK", "ABCDEFGHIJ"])
def test_these_are_tickers(ticker: str) -> None:
    assert TICKER.fullmatch(ticker)


@pytest.mark.parametrize("ticker", ["", "a", "ABCDEFGHIJK", "A B", "A\n", "\u0391", "\u0661", "A*", "A,B", "\u017f"])
def test_these_are_none(ticker: str) -> None:
    assert not TICKER.fullmatch(ticker)
