"""The feed against two implementations of DynamoDB's API, over HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from tests.dynamodb import SECRET, Tables, record
from tests.feed.rig import rig


@pytest.fixture(params=["moto", "dynalite"])
def tables(request: pytest.FixtureRequest) -> Tables:
    return cast("Tables", request.getfixturevalue("table" if request.param == "moto" else "dynalite_table"))


async def test_an_item_is_told_when_it_is_analysed_and_not_when_it_is_written(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tables, monkeypatch) as feed:
        key = await tables.put("tiingo:1", "AAPL")
        await feed.polls(2)
        assert feed.said == []
        await tables.analyse(key, "positive", 0.7)
        await feed.polls(1)
        assert feed.said == [("AAPL", "positive")]
        assert (feed.told[0]["score"], feed.told[0]["confidence"], feed.told[0]["source"]) == (0.7, 0.7, "tiingo")


@pytest.mark.parametrize("hours", [6, 23])
async def test_an_item_that_comes_hours_late_is_told_like_any_other(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    async with rig(tables, monkeypatch) as feed:
        await tables.analyse(await tables.put("a:1", "AAPL"), "positive")
        await feed.polls(1)
        await tables.analyse(await tables.put("a:2", "MSFT", age=hours * 3600), "negative")
        await feed.polls(1)
        assert feed.said == [("AAPL", "positive"), ("MSFT", "negative")]


@pytest.mark.parametrize("budget", [100.0, 4.0])
@pytest.mark.parametrize("minutes", [5, -5])
async def test_writers_whose_clocks_differ_are_all_heard(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, minutes: int, budget: float
) -> None:
    """Read whole and swept; five minutes are the hot end, so the one behind it may be the sweep's."""
    await tables.fill([record(f"old:{n}", "OLD", age=n * 2000, sentiment="neutral") for n in range(40)])
    async with rig(tables, monkeypatch, budget=budget) as feed:
        await tables.analyse(await tables.put("a:1", age=60 * minutes))
        assert await feed.until(lambda: feed.said == [("AAPL", "positive")])
        await feed.polls(3)
        assert feed.said == [("AAPL", "positive")]
        assert len(feed.poller.window) == 41


async def test_a_changed_sentiment_is_one_update_and_moves_the_counts(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await tables.put("a:1", sentiment="positive")
    async with rig(tables, monkeypatch) as feed:
        await tables.analyse(key, "negative", 0.6)
        await feed.polls(4)
        assert feed.said == [("AAPL", "negative")]
        metrics = feed.poller.window.metrics(0)
        assert (metrics.total, metrics.positive, metrics.negative) == (1, 0, 1)


async def test_a_deleted_item_leaves_within_three_polls(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await tables.put("a:1", sentiment="positive")
    async with rig(tables, monkeypatch) as feed:
        await tables.delete(key)
        await feed.polls(3)
        assert len(feed.poller.window) == 0
        assert feed.totals == [1, 0]


async def test_a_window_of_many_pages_is_read_whole(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page ends at 1 MB, and an item may have 400 KB."""
    items = [record(f"a:{n}", f"T{n}", age=n, sentiment="positive", body={"S": "x" * 380_000}) for n in range(12)]
    for one in items:
        await tables.fill([one])
    await tables.fill([record(f"b:{n}", "B", age=n, sentiment="neutral") for n in range(300)])
    async with rig(tables, monkeypatch) as feed:
        assert len(feed.poller.window) == 312
        await tables.analyse(await tables.put("a:12", "LAST"), "negative")
        await feed.polls(1)
        assert feed.said == [("LAST", "negative")]


MALFORMED: list[dict[str, Any]] = [
    {"matched_tickers": {"L": [{"S": f"T{n}"} for n in range(1000)]}},
    {"matched_tickers": {"S": "AAPL"}},
    {"matched_tickers": {"L": [{"S": "a\nevent: admin"}]}},
    {"score": {"S": "high"}},
    {"score": {"N": "17"}},
    {"confidence": {"BOOL": True}},
    {"timestamp": {"S": "yesterday"}},
    {"timestamp": {"S": "9999-12-31T23:59:59Z"}},
    {"timestamp": {"S": (datetime.now(UTC) + timedelta(days=2)).isoformat()}},
    {"sources": {"M": {}}},
]


async def test_malformed_items_of_every_kind_stop_nothing(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    for n, misfit in enumerate(MALFORMED):
        await tables.fill([record(f"bad:{n}", sentiment="positive") | misfit])
    async with rig(tables, monkeypatch) as feed:
        await tables.analyse(await tables.put("a:1", "AAPL"), "positive")
        await feed.polls(1)
        assert feed.said == [("AAPL", "positive")]
        assert len(feed.poller.window) == 1


async def test_neither_texts_nor_addresses_are_fetched(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig(tables, monkeypatch) as feed:
        await tables.analyse(await tables.put("a:1", "AAPL"))
        await feed.polls(1)
        assert feed.listener.updates
        assert all(SECRET.encode() not in one.data for one in (*feed.listener.updates, *feed.listener.totals))


async def test_a_window_beyond_the_budget_tells_fresh_items_at_once_and_late_ones_within_a_sweep(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tables.fill([record(f"a:{n}", age=n * 80, sentiment="neutral") for n in range(1000)])
    async with rig(tables, monkeypatch, budget=20) as feed:
        sweep = feed.poller
        await tables.analyse(await tables.put("fresh:1", "NEW"))
        await feed.polls(1)
        assert ("NEW", "positive") in feed.said
        await tables.analyse(await tables.put("late:1", "LATE", age=20 * 3600), "negative")
        assert await feed.until(lambda: ("LATE", "negative") in feed.said, 10)
        assert len(feed.said) == 2
        assert sweep.status().hot_seconds is not None
        assert len(feed.poller.window) == 1002
