"""Items: what is read out of a record, and what does not fit."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quartsse.feed.items import MOST_TICKERS, PROJECTION, Item, MalformedItem, item_in, moment
from quartsse.hub.events import SentimentUpdate, event
from quartsse.hub.filters import TICKER

STAMP = "2025-12-02T10:30:00Z"
SECONDS = datetime(2025, 12, 2, 10, 30, tzinfo=UTC).timestamp()

type Record = dict[str, dict[str, Any]]


def record(**attributes: dict[str, Any] | None) -> Record:
    """A record that fits, but for what is given; None takes an attribute away."""
    whole: dict[str, dict[str, Any] | None] = {
        "source_id": {"S": "tiingo:1"},
        "timestamp": {"S": STAMP},
        "sentiment": {"S": "positive"},
        "score": {"N": "0.8"},
        "matched_tickers": {"L": [{"S": "AAPL"}]},
    }
    return {name: value for name, value in (whole | attributes).items() if value is not None}


def texts(*values: str) -> dict[str, Any]:
    return {"L": [{"S": value} for value in values]}


@pytest.mark.parametrize(("sentiment", "score"), [("positive", 0.8), ("neutral", 0.0), ("negative", -0.8)])
def test_the_score_of_an_item_without_a_confidence_is_one_and_gets_its_sign_from_the_label(
    sentiment: str, score: float
) -> None:
    read = item_in(record(sentiment={"S": sentiment}))
    assert (read.score, read.confidence) == (score, 0.8)


def test_an_item_with_a_confidence_of_its_own_has_a_signed_score() -> None:
    read = item_in(record(score={"N": "-0.3"}, confidence={"N": "0.9"}))
    assert (read.score, read.confidence) == (-0.3, 0.9)


@pytest.mark.parametrize("confidence", [None, {"N": "-0"}])
@pytest.mark.parametrize("sentiment", ["positive", "neutral", "negative"])
def test_nothing_is_never_minus_nothing(sentiment: str, confidence: dict[str, Any] | None) -> None:
    read = item_in(record(sentiment={"S": sentiment}, score={"N": "-0"}, confidence=confidence))
    assert (str(read.score), str(read.confidence)) == ("0.0", "0.0")


def test_a_score_and_a_confidence_that_are_equal_are_kept_once() -> None:
    read = item_in(record(sentiment={"S": "positive"}))
    assert read.score is read.confidence
    neutral = [item_in(record(sentiment={"S": "neutral"})) for _ in range(2)]
    assert neutral[0].score is neutral[1].score


@pytest.mark.parametrize(
    ("attributes", "source"),
    [
        ({}, "tiingo"),
        ({"sources": texts("finnhub", "tiingo")}, "finnhub"),
        ({"sources": {"SS": ["newsapi"]}}, "newsapi"),
        ({"sources": {"L": []}}, "tiingo"),
        ({"sources": {"NULL": True}}, "tiingo"),
        ({"source_id": {"S": "plain"}}, "plain"),
    ],
)
def test_the_source_is_the_first_of_the_sources_or_what_the_id_begins_with(
    attributes: dict[str, Any], source: str
) -> None:
    assert item_in(record(**attributes)).source == source


def test_tickers_are_upper_cased_and_each_is_there_once() -> None:
    assert item_in(record(matched_tickers=texts("aapl", "BRK.B", "AAPL"))).tickers == ("AAPL", "BRK.B")


def test_an_item_may_be_about_nobody() -> None:
    assert item_in(record(matched_tickers=None)).tickers == ()


@pytest.mark.parametrize(
    "stamp",
    [STAMP, "2025-12-02T10:30:00+00:00", "2025-12-02T10:30:00", "2025-12-02T10:30:00.000", "2025-12-02T10:30:00.0000Z"],
)
def test_a_time_in_utc_is_read_however_it_is_written(stamp: str) -> None:
    assert moment(stamp) == SECONDS


@pytest.mark.parametrize(
    "stamp",
    [
        "yesterday",
        "2025-12-02",
        "2025-12-02 10:30:00",
        "2025-12-02T10:30:00+05:00",
        "2025-W49-2T10:30:00.000",
        "20251202T103000.000000",
        "2025-13-02T10:30:00Z",
        "2025-12-02T25:30:00Z",
        "0000-12-02T10:30:00Z",
        "٢٠٢٥-12-02T10:30:00Z",
        "2025-12-02T10:30:00Z\n",
    ],
)
def test_a_time_that_would_lie_elsewhere_in_the_index_is_refused(stamp: str) -> None:
    with pytest.raises(MalformedItem, match="timestamp"):
        moment(stamp)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("source_id", None),
        ("source_id", {"N": "1"}),
        ("source_id", {"S": ""}),
        ("source_id", {"S": "x" * 2000}),
        ("timestamp", {"N": "1764671400"}),
        ("sentiment", {"S": "mixed"}),
        ("sentiment", {"BOOL": True}),
        ("score", None),
        ("score", {"S": "0.8"}),
        ("score", {"N": "NaN"}),
        ("score", {"N": "1.01"}),
        ("score", {"N": "-0.5"}),
        ("score", {"NULL": True}),
        ("confidence", {"N": "2"}),
        ("confidence", {"M": {}}),
        ("matched_tickers", {"S": "AAPL"}),
        ("matched_tickers", {"L": [{"N": "1"}]}),
        ("matched_tickers", texts("TOO-LONG-A-TICKER")),
        ("matched_tickers", texts("A\r\nevent: admin")),
        ("matched_tickers", texts("ß")),
        ("matched_tickers", texts(*(f"T{n}" for n in range(1000)))),
        ("matched_tickers", texts("x" * 400_000)),
        ("sources", {"M": {}}),
    ],
)
def test_what_does_not_fit_is_refused_by_the_name_of_the_attribute(kind: str, value: dict[str, Any] | None) -> None:
    with pytest.raises(MalformedItem, match=kind):
        item_in(record(**{kind: value}))


def test_a_null_confidence_is_none() -> None:
    assert item_in(record(confidence={"NULL": True})).confidence == 0.8


SCALARS = st.one_of(
    st.builds(lambda text: {"S": text}, st.text(max_size=20)),
    st.builds(lambda number: {"N": str(number)}, st.floats() | st.integers()),
    st.builds(lambda truth: {"BOOL": truth}, st.booleans()),
    st.just({"NULL": True}),
    st.builds(lambda data: {"B": data}, st.text(max_size=8)),
    st.builds(lambda values: {"SS": values}, st.lists(st.text(max_size=8), max_size=4)),
)
VALUES = st.recursive(
    SCALARS,
    lambda values: st.one_of(
        st.builds(lambda elements: {"L": elements}, st.lists(values, max_size=MOST_TICKERS + 5)),
        st.builds(lambda members: {"M": members}, st.dictionaries(st.text(max_size=5), values, max_size=3)),
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(PROJECTION), VALUES))
def test_any_record_either_fits_or_is_refused_with_a_kind(attributes: dict[str, Any]) -> None:
    try:
        read = item_in(record(**attributes))
    except MalformedItem as misfit:
        refused = str(misfit)
    else:
        assert_it_can_be_told(read)
        return
    assert refused in PROJECTION


def assert_it_can_be_told(read: Item) -> None:
    """Whatever passes becomes an update with all its promises."""
    for ticker in (*read.tickers, "AAPL"):
        assert TICKER.fullmatch(ticker)
        told = SentimentUpdate(
            ticker=ticker,
            score=read.score,
            label=read.sentiment,
            confidence=read.confidence,
            source=read.source,
            timestamp=STAMP,
            count=1,
            mean_score=0.0,
        )
        assert b"\n" not in event("sentiment_update", "x", told, ticker).data


def test_a_source_with_half_a_character_can_still_be_sent() -> None:
    assert_it_can_be_told(item_in(record(sources=texts("\ud800wire"))))


def test_neither_texts_nor_addresses_are_ever_asked_for() -> None:
    assert not set(PROJECTION) & {"headline", "title", "text", "content", "summary", "url", "link", "snippet"}
