"""News as the real system makes it."""

import json
import statistics
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from quartsse.tools.news import COMPANIES, Newsroom, Record, Writer, timestamp
from tests.dynamodb import Tables, key_of

NOW = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)
SENTIMENTS = {"positive", "neutral", "negative"}


def backlog(seed: int = 1, count: int = 600) -> list[Record]:
    return [story.analysed() for story in Newsroom(seed).backlog(NOW, count)]


def moment(item: Record) -> datetime:
    return datetime.fromisoformat(item["timestamp"]["S"])


def number(item: Record, name: str) -> float:
    return float(item[name]["N"])


def everything(tables: Tables) -> dict[str, Record]:
    pages = tables.client.get_paginator("scan").paginate(TableName=tables.sentiments)
    return {item["source_id"]["S"]: item for page in pages for item in page["Items"]}


class Recorder:
    """A client that keeps what it is told, by the name of the call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda **arguments: self.calls.append((name, arguments))


def wrote(seconds: int, rate: float = 5.0, seed: int = 1) -> list[tuple[str, dict[str, Any]]]:
    """All calls of a writer in so many seconds."""
    recorder = Recorder()
    writer = Writer(recorder, "news", Newsroom(seed), rate)
    due = NOW
    while due <= NOW + timedelta(seconds=seconds):
        due = writer.write(due)
    return recorder.calls


@pytest.fixture
def writer(table: Tables) -> Writer:
    return Writer(table.client, table.sentiments, Newsroom(5), 5.0)


@pytest.mark.parametrize(
    ("form", "written"),
    [
        (0, "2026-03-04T12:00:00Z"),
        (1, "2026-03-04T12:00:00.250000Z"),
        (2, "2026-03-04T12:00:00+00:00"),
        (3, "2026-03-04T12:00:00.250000+00:00"),
    ],
)
def test_publishers_write_a_moment_in_four_forms(form: int, written: str) -> None:
    assert timestamp(NOW + timedelta(milliseconds=250), form) == written


def test_all_four_forms_are_used() -> None:
    forms = {("." in text, text.endswith("Z")) for text in (item["timestamp"]["S"] for item in backlog())}
    assert len(forms) == 4


def test_the_same_seed_makes_the_same_news_and_another_makes_other() -> None:
    assert backlog(seed=1) == backlog(seed=1)
    assert backlog(seed=1) != backlog(seed=2)
    assert wrote(60, seed=3) == wrote(60, seed=3)


def test_the_backlog_fills_the_last_24_hours_in_order() -> None:
    moments = [moment(item).replace(microsecond=0) for item in backlog()]
    assert moments == sorted(moments)
    assert NOW - timedelta(hours=24) <= moments[0] < NOW - timedelta(hours=23)
    assert NOW - timedelta(hours=1) < moments[-1] < NOW


def test_popular_companies_are_in_the_news_more_often() -> None:
    tickers = Counter(ticker["S"] for item in backlog(count=2000) for ticker in item["matched_tickers"]["L"])
    assert len(COMPANIES) == 25
    assert set(tickers) == {company.ticker for company in COMPANIES}
    assert tickers["AAPL"] > 5 * tickers["CAT"]


def test_scores_mean_what_they_mean_in_the_real_table() -> None:
    items = backlog()
    own = [item for item in items if "confidence" in item]
    others = [item for item in items if "confidence" not in item]
    assert {item["sentiment"]["S"] for item in items} == SENTIMENTS
    assert 0.05 < len(own) / len(items) < 0.3
    assert all(0.5 <= number(item, "score") <= 1 for item in others)
    assert all(-1 <= number(item, "score") <= 1 and 0.5 <= number(item, "confidence") <= 1 for item in own)
    assert any(number(item, "score") < 0 for item in own)


def test_some_items_name_their_sources_and_the_first_is_in_the_key() -> None:
    items = backlog()
    named = [item for item in items if "sources" in item]
    assert 0.1 < len(named) / len(items) < 0.5
    assert all(item["source_id"]["S"].startswith(item["sources"]["L"][0]["S"] + ":") for item in named)


def test_moods_drift() -> None:
    """The same company is praised in one part of the day and blamed in another."""
    scores = [
        {"positive": 1, "neutral": 0, "negative": -1}[item["sentiment"]["S"]]
        for item in backlog(count=2000)
        if {"S": "AAPL"} in item["matched_tickers"]["L"]
    ]
    parts = [statistics.mean(scores[start : start + 40]) for start in range(0, len(scores) - 40, 40)]
    assert max(parts) - min(parts) > 0.5


def test_items_weigh_about_what_the_emulator_counts_for_them() -> None:
    assert 600 < statistics.mean(len(json.dumps(item)) for item in backlog()) < 1400


def test_an_item_comes_first_and_its_sentiment_seconds_later(table: Tables, writer: Writer) -> None:
    due = writer.write(NOW)
    while not everything(table):
        due = writer.write(due)
    ((source_id, item),) = everything(table).items()
    assert "sentiment" not in item
    assert item["status"] == {"S": "pending"}
    writer.write(due + timedelta(seconds=31))
    analysed = everything(table)[source_id]
    assert analysed["sentiment"]["S"] in SENTIMENTS
    assert analysed["status"] == {"S": "analyzed"}
    assert analysed["headline"] == item["headline"]


def test_an_article_is_minutes_or_hours_old_when_it_is_found() -> None:
    ages = [NOW - moment(call["Item"]) for name, call in wrote(60) if name == "put_item"]
    assert min(ages) < timedelta(minutes=5)
    assert timedelta(hours=3) < max(ages) < timedelta(hours=10)


def test_the_rate_is_kept_and_the_moments_are_irregular() -> None:
    assert 240 < Counter(name for name, _ in wrote(60))["put_item"] < 360
    assert 80 < Counter(name for name, _ in wrote(60, rate=2))["put_item"] < 160


def test_now_and_then_an_item_is_analysed_again_and_rarely_one_is_deleted() -> None:
    calls = wrote(600)
    names = Counter(name for name, _ in calls)
    analysed = Counter(json.dumps(call["Key"]) for name, call in calls if name == "update_item")
    again = sum(1 for times in analysed.values() if times > 1)
    assert 0.02 < again / names["put_item"] < 0.08
    assert 0.003 < names["delete_item"] / names["put_item"] < 0.02


def test_a_second_analysis_is_of_the_same_model_and_often_says_otherwise() -> None:
    first: dict[str, dict[str, Any]] = {}
    changed = 0
    for name, call in wrote(600):
        if name != "update_item":
            continue
        values, key = call["ExpressionAttributeValues"], json.dumps(call["Key"])
        if key in first:
            assert (":confidence" in values) == (":confidence" in first[key])
            changed += values[":sentiment"] != first[key][":sentiment"]
        first.setdefault(key, values)
    assert changed > 20


def test_what_is_deleted_is_never_written_again() -> None:
    deleted: set[str] = set()
    for name, call in wrote(1200):
        if name == "delete_item":
            deleted.add(json.dumps(call["Key"]))
        assert name != "update_item" or json.dumps(call["Key"]) not in deleted
    assert deleted


def test_after_a_long_sleep_the_writer_goes_on_from_now() -> None:
    recorder = Recorder()
    writer = Writer(recorder, "news", Newsroom(1), 5.0)
    writer.write(NOW)
    writer.write(NOW + timedelta(hours=8))
    assert Counter(name for name, _ in recorder.calls)["put_item"] < 40


def test_a_rate_of_zero_writes_nothing() -> None:
    recorder = Recorder()
    assert Writer(recorder, "news", Newsroom(1), 0).write(NOW) > NOW + timedelta(days=365)
    assert recorder.calls == []


def test_the_oldest_go_when_there_are_too_many(table: Tables) -> None:
    writer = Writer(table.client, table.sentiments, Newsroom(5), 20.0, most=100)
    writer.seed(NOW, 100)
    oldest = min(everything(table).values(), key=moment)
    due = NOW
    while due < NOW + timedelta(seconds=20):
        due = writer.write(due)
    analysed = [item for item in everything(table).values() if "sentiment" in item]
    assert 90 < len(analysed) <= 110
    assert min(map(moment, analysed)) > moment(oldest)


def test_seeding_writes_every_item_analysed(table: Tables, writer: Writer) -> None:
    writer.seed(NOW, 130)
    items = everything(table)
    assert len(items) == 130
    assert all(item["sentiment"]["S"] in SENTIMENTS for item in items.values())


def test_what_was_seeded_is_analysed_again_and_deleted_too(table: Tables, writer: Writer) -> None:
    writer.seed(NOW, 50)
    before = everything(table)
    due = NOW
    while due < NOW + timedelta(seconds=60):
        due = writer.write(due)
    after = everything(table)
    assert any(after.get(source_id, item) != item for source_id, item in before.items())
    assert all(key_of(item) == key_of(before[source_id]) for source_id, item in after.items() if source_id in before)
