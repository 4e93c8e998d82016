"""The feed while DynamoDB, or what lies between, fails: through a proxy that makes it so."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from tests.dynamodb import Tables, record
from tests.feed import fault_proxy as faults
from tests.feed.fault_proxy import Fault, FaultProxy, Request, fault_proxy
from tests.feed.rig import Rig, rig

REFUSALS = {
    "throttled": (faults.throttling, "SSE_READ_BUDGET"),
    "access denied": (faults.access_denied, "allow this role dynamodb:Query"),
    "no table": (faults.missing_table, "does not exist in this region"),
    "no index": (faults.missing_index, "check SSE_INDEX"),
    "server error": (faults.server_error, "InternalServerError"),
    "someone else": (faults.someone_else, "not DynamoDB"),
    "another language": (faults.another_language, "not DynamoDB"),
    "gibberish": (faults.gibberish, "refused or failed"),
    "time-out": (faults.hanging, "took too long"),
    "broken": (faults.breaking, "broke off"),
    "half an answer": (faults.half_an_answer, "broke off"),
}


@pytest.fixture
async def proxy(table: Tables) -> AsyncGenerator[FaultProxy]:
    async with fault_proxy(table.endpoint) as one:
        yield one


async def written_meanwhile(table: Tables) -> None:
    """Three things that happen while nobody can see them."""
    await table.analyse(await table.put("fresh:1", "FRESH"), "positive")
    await table.analyse(await table.put("late:1", "LATE", age=9 * 3600), "neutral")


WRITTEN = [("FRESH", "positive"), ("LATE", "neutral")]


async def recovers(feed: Rig) -> None:
    """After the fault: everything once, within two good polls."""
    assert await feed.until(lambda: feed.poller.status().reason is None, 15)
    await feed.polls(1)
    assert sorted(feed.said) == WRITTEN
    await feed.polls(2)
    assert sorted(feed.said) == WRITTEN
    assert 0 not in feed.totals


@pytest.mark.parametrize("name", REFUSALS)
async def test_while_it_fails_nothing_is_told_but_why_and_after_it_everything_once(
    name: str, table: Tables, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault, advice = REFUSALS[name]
    await table.put("old:1", "OLD", sentiment="positive", age=7200)
    async with rig(table, monkeypatch, endpoint=proxy.endpoint, patience=0.3) as feed:
        proxy.fault = fault
        await written_meanwhile(table)
        await feed.polls(2)
        reason = feed.poller.status().reason
        assert reason is not None
        assert advice in reason
        assert "123456789012" not in reason
        assert feed.said == []
        assert proxy.most_under_way <= 3
        proxy.fault = None
        await recovers(feed)
        assert proxy.most_under_way <= 3


async def test_a_refused_connection_is_told_and_recovered_from(
    table: Tables, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    await table.put("old:1", "OLD", sentiment="positive", age=7200)
    async with rig(table, monkeypatch, endpoint=proxy.endpoint, patience=0.3) as feed:
        await proxy.refuse()
        await written_meanwhile(table)
        await feed.polls(2)
        assert "does not accept connections" in str(feed.poller.status().reason)
        await proxy.accept()
        await recovers(feed)


async def test_half_open_connections_cost_one_time_out_and_lose_nothing(
    table: Tables, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    await table.put("old:1", "OLD", sentiment="positive", age=7200)
    async with rig(table, monkeypatch, endpoint=proxy.endpoint, patience=0.3) as feed:
        proxy.lose_connections()
        await written_meanwhile(table)
        await recovers(feed)


@pytest.mark.parametrize("held", ["positive", "negative"])
async def test_an_item_that_moves_while_it_is_read_is_told_once_and_never_missing(
    held: str, table: Tables, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One partition is read before the move and one after it: the read finds it in neither, or in both."""
    waits, moved = asyncio.Event(), asyncio.Event()

    async def wait(_: Request) -> None:
        waits.set()
        await moved.wait()

    key = await table.put("moving:1", "MOVING", sentiment="positive")
    await table.put("other:1", "OTHER", sentiment="neutral")
    async with rig(table, monkeypatch, endpoint=proxy.endpoint) as feed:
        proxy.fault = faults.of_label(held, wait)
        await waits.wait()
        assert await feed.until(lambda: proxy.under_way == 1)
        await table.analyse(key, "negative", 0.4)
        proxy.fault = None
        moved.set()
        await feed.polls(4)
        assert feed.said == [("MOVING", "negative")]
        assert set(feed.totals) == {2}


async def test_a_failure_in_the_middle_of_a_pagination_takes_nothing_away(
    table: Tables, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(9):
        await table.fill([record(f"a:{n}", age=60 * n, sentiment="positive", body={"S": "x" * 300_000})])
    async with rig(table, monkeypatch, endpoint=proxy.endpoint, patience=3) as feed:
        proxy.fault = faults.later_pages(faults.breaking)
        await written_meanwhile(table)
        await feed.polls(4)
        assert feed.poller.status().reason is not None
        assert len(feed.poller.window) >= 9
        proxy.fault = None
        await recovers(feed)
        assert len(feed.poller.window) == 11


async def test_a_first_load_that_fails_in_the_middle_tells_nothing_until_it_is_whole(
    table: Tables, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(9):
        await table.fill([record(f"a:{n}", age=60 * n, sentiment="positive", body={"S": "x" * 300_000})])
    proxy.fault = faults.later_pages(faults.access_denied)
    async with rig(table, monkeypatch, endpoint=proxy.endpoint, patience=3, loaded=False) as feed:
        await feed.polls(3)
        assert (feed.said, feed.totals, feed.poller.loaded) == ([], [], False)
        assert feed.poller.state in {"starting", "stale"}
        proxy.fault = None
        assert await feed.until(lambda: feed.poller.loaded)
        await feed.polls(1)
        assert (feed.said, feed.totals) == ([], [9])


@pytest.mark.parametrize("fault", [faults.breaking, faults.server_error, faults.throttling])
async def test_a_fault_now_and_then_is_got_over(
    table: Tables, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    await table.put("old:1", "OLD", sentiment="positive", age=7200)
    async with rig(table, monkeypatch, endpoint=proxy.endpoint, patience=0.3) as feed:
        proxy.fault = faults.every(3, fault)
        await written_meanwhile(table)
        assert await feed.until(lambda: len(feed.said) == 2, 20)
        proxy.fault = None
        await recovers(feed)


async def test_retries_are_bounded(table: Tables, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig(table, monkeypatch, endpoint=proxy.endpoint, patience=0.3, interval=0.2) as feed:
        proxy.fault = faults.server_error
        before = proxy.requests
        await feed.polls(3)
        assert proxy.requests - before <= 5 * 3 * 2


@pytest.mark.parametrize(("table_name", "index"), [("no-such-table", "by_sentiment"), (None, "by_colour")])
@pytest.mark.parametrize("kind", ["table", "dynalite_table"])
async def test_a_table_or_an_index_that_is_not_there_is_told_by_what_to_mend(
    kind: str,
    table_name: str | None,
    index: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tables: Tables = request.getfixturevalue(kind)
    async with rig(tables, monkeypatch, table=table_name, index=index, loaded=False) as feed:
        await feed.polls(1)
        assert ("check its name" if table_name else "check SSE_INDEX") in str(feed.poller.status().reason)
