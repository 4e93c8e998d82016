"""QuerySource: what it asks, what that costs, and what it may say about the answer."""

import asyncio
import random
import re
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, NoRegionError
from hypothesis import given, settings
from hypothesis import strategies as st

from quartsse.errors import SourceError
from quartsse.feed.poller import Poller
from quartsse.feed.query import COLDEST_HOT, HOT_SECONDS, QuerySource, query_request
from quartsse.feed.source import FOREVER, Batch
from quartsse.feed.window import Window
from quartsse.hub.clock import Clock, iso
from tests.feed.arithmetic import Index
from tests.feed.feeding import NOW, Listener, Time

if TYPE_CHECKING:
    from quartsse.feed.items import Item

HOUR = 3600.0
LOW = NOW - 24 * HOUR
LABELS = ("positive", "neutral", "negative")


class Reading:
    """A source over an index, and a window that takes in what it reads, as the poller would."""

    def __init__(self, index: Any, budget: float = 100.0) -> None:
        self.time = Time()
        self.window = Window()
        self.pauses: list[float] = []
        self.source = QuerySource(
            lambda: index, "news", "by_sentiment", budget=budget, population=self.window, clock=self.time.clock,
            sleep=self._pause,
        )  # fmt: skip
        self.reads = 0
        self.removed: list[Item] = []

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def read(self, *, whole: bool = False, after: float = 2.0) -> list[Batch]:
        self.time.elapsed += after
        self.window.expire(self.time.wall(), 10**6)
        self.reads += 1
        batches = []
        async for batch in self.source.read(self.window.low, whole=whole):
            batches.append(batch)
            self.window.apply(batch.items, self.reads, self.time.wall())
            self.window.touch(batch.unsettled, self.reads)
            if batch.span is not None:
                gone = self.window.missed(batch.span, self.reads)
                self.removed += gone
                self.window.remove(gone)
        return batches


def crowd(count: int, *, hours: float = 23.9, item_bytes: int = 1200, seed: int = 1) -> Index:
    index, chance = Index(item_bytes), random.Random(seed)
    for n in range(count):
        index.put(f"tiingo:{n}", iso(NOW - chance.random() * hours * HOUR), LABELS[n % 3])
    return index


def test_every_attribute_is_named_by_a_placeholder_and_no_text_is_asked_for() -> None:
    request = query_request("news", "by_sentiment", "positive", NOW, FOREVER)
    words = re.findall(r"[#:]?\w+", request["KeyConditionExpression"] + " " + request["ProjectionExpression"])
    assert all(word[0] in "#:" for word in words if word not in {"AND", "BETWEEN"})
    assert {word for word in words if word[0] == "#"} == set(request["ExpressionAttributeNames"])
    assert set(request["ExpressionAttributeNames"].values()) == {
        "source_id",
        "timestamp",
        "sentiment",
        "score",
        "confidence",
        "matched_tickers",
        "sources",
    }


@pytest.mark.parametrize("fraction", ["", "Z", "+00:00", ".000Z", ".999999+00:00"])
def test_the_lower_bound_lets_in_a_second_however_its_fractions_are_written(fraction: str) -> None:
    request = query_request("news", "by_sentiment", "neutral", NOW + 0.7, FOREVER)
    assert request["ExpressionAttributeValues"] == {
        ":label": {"S": "neutral"},
        ":low": {"S": "2025-12-02T10:30:00"},
    }
    assert request["ExpressionAttributeValues"][":low"]["S"] <= "2025-12-02T10:30:00" + fraction


def test_only_a_slice_has_an_upper_bound() -> None:
    request = query_request("news", "by_sentiment", "neutral", NOW, NOW + 60)
    assert request["KeyConditionExpression"] == "#sentiment = :label AND #timestamp BETWEEN :low AND :high"
    assert request["ExpressionAttributeValues"][":high"] == {"S": "2025-12-02T10:31:00"}


async def test_the_first_load_is_newest_first_and_says_that_it_is_complete_with_its_last_batch() -> None:
    index = crowd(5000)
    reading = Reading(index)
    batches = await reading.read(whole=True)
    assert len(reading.window) == 5000
    assert [batch.watermark for batch in batches] == [None] * (len(batches) - 1) + [NOW + 2.0]
    assert [batch.span for batch in batches][:-1] == [None] * (len(batches) - 1)
    assert median(one.time for one in batches[0].items) > max(one.time for one in batches[-1].items)
    assert sum(batch.units for batch in batches) == index.units


async def test_a_window_that_fits_the_budget_is_read_whole_every_time() -> None:
    reading = Reading(crowd(300), budget=100)
    await reading.read(whole=True)
    (batch,) = await reading.read()
    assert (batch.span, batch.watermark) == ((LOW + 4, FOREVER), NOW + 4)
    assert batch.units <= 100


async def test_an_empty_poll_costs_three_queries_of_half_a_unit() -> None:
    index = Index()
    reading = Reading(index)
    (batch,) = await reading.read()
    assert (batch.units, len(index.requests)) == (1.5, 3)


@pytest.mark.parametrize(("count", "budget"), [(3000, 20), (3000, 100), (20_000, 100), (2000, 5)])
async def test_a_sweep_keeps_to_its_budget_covers_everything_once_and_then_gives_its_watermark(
    count: int, budget: float
) -> None:
    reading = Reading(crowd(count), budget=budget)
    await reading.read(whole=True)
    spent, spans, watermark, start = [], [], None, reading.time.wall() + 2.0
    while watermark is None:
        batches = await reading.read()
        spent.append(sum(batch.units for batch in batches))
        spans += [batch.span for batch in batches[1:] if batch.span]
        watermark = batches[-1].watermark
        assert len(spent) < 2000
    assert watermark == start
    assert all(later[1] == earlier[0] for earlier, later in pairwise(spans))
    assert spans[-1][0] <= reading.window.low
    assert sum(spent) / len(spent) <= budget * 1.05
    assert max(spent) <= budget * 1.2
    hot_and_rounding = count * 1200 / 8192 * 300 / 86_400 + 3
    assert len(spent) <= 1.3 * count * 1200 / 8192 / (budget - hot_and_rounding) + 2
    assert not reading.removed


async def test_fresh_items_are_seen_by_the_next_read_however_large_the_window_is() -> None:
    index = crowd(20_000)
    reading = Reading(index, budget=50)
    await reading.read(whole=True)
    index.put("fresh:1", iso(reading.time.wall()), "positive")
    assert "fresh:1" in {one.key.split("\n")[0] for one in (await reading.read())[0].items}


async def test_late_items_are_seen_within_one_sweep() -> None:
    index = crowd(20_000)
    reading = Reading(index, budget=100)
    await reading.read(whole=True)
    while (await reading.read())[-1].watermark is None:
        pass
    index.put("late:1", iso(NOW - 20 * HOUR), "negative")
    found = False
    for _ in range(1000):
        batches = await reading.read()
        found = found or any(one.key.startswith("late:1") for batch in batches for one in batch.items)
        if batches[-1].watermark is not None:
            break
    assert found


async def test_a_sweep_takes_as_long_as_the_metric_says_and_a_late_item_comes_no_later() -> None:
    """Seen from the index: from one query that reaches the window's lower edge to the next one."""
    index, reached = crowd(6000), list[float]()
    window, listener = Window(), Listener()
    since = time.time() - NOW
    behind = Clock(wall=lambda: time.time() - since)

    def note(request: dict[str, Any]) -> None:
        values = {name: value["S"] for name, value in request["ExpressionAttributeValues"].items()}
        if values[":low"] <= iso(window.low + 1) and values[":label"] == "neutral":
            reached.append(time.monotonic())

    index.before = note
    source = QuerySource(lambda: index, "news", "by_sentiment", budget=40, population=window, clock=behind)
    poller = Poller(source, window, listener, interval=0.05, clock=behind)
    poller.attend()
    polling = asyncio.create_task(poller.run())
    try:
        while not poller.loaded:
            await asyncio.sleep(0.01)
        reached.clear()
        while len(reached) < 3:
            covered = listener.place.watermark
            await asyncio.sleep(0.005)
        while listener.place.watermark == covered:
            await asyncio.sleep(0.005)
        said = poller.status().sweep_seconds
        index.put("late:1", iso(NOW - 20 * HOUR), "negative")
        written = time.monotonic()
        while not listener.updates:
            await asyncio.sleep(0.005)
        late = time.monotonic() - written
    finally:
        polling.cancel()
        with suppress(asyncio.CancelledError):
            await polling
    assert said is not None
    assert said == pytest.approx(reached[2] - reached[1], rel=0.2)
    assert late <= 1.2 * max(b - a for a, b in pairwise(reached)) + 0.5


async def test_a_crowd_within_one_second_is_got_past() -> None:
    index = Index()
    for n in range(3000):
        index.put(f"burst:{n}", iso(NOW - 2 * HOUR), LABELS[n % 2])
    reading = Reading(index, budget=10)
    await reading.read(whole=True)
    for _ in range(20):
        batches = await reading.read()
        if batches[-1].watermark is not None:
            break
    assert batches[-1].watermark is not None
    assert len(reading.window) == 3000


async def test_the_hot_end_shrinks_under_a_crowd_and_not_below_half_a_minute() -> None:
    index = Index()
    for n in range(6000):
        index.put(f"hot:{n}", iso(NOW - n * 0.05), LABELS[n % 3])
    reading = Reading(index, budget=20)
    await reading.read(whole=True)
    hot = (await reading.read())[0]
    assert hot.span is not None
    assert NOW + 4 - hot.span[0] == pytest.approx(COLDEST_HOT, abs=3)


async def test_the_hot_end_reaches_back_before_the_last_read_after_a_freeze() -> None:
    reading = Reading(crowd(3000), budget=20)
    await reading.read(whole=True)
    ordinary = (await reading.read())[0]
    frozen = (await reading.read(after=2 * HOUR))[0]
    assert ordinary.span is not None
    assert frozen.span is not None
    assert ordinary.span[0] == NOW + 4 - HOT_SECONDS
    assert frozen.span[0] == NOW + 4 - COLDEST_HOT


async def test_an_item_in_two_partitions_is_unsettled_and_there_is_no_watermark_then() -> None:
    index = Index()
    index.put("a:1", iso(NOW), "positive")
    index.put("a:1", iso(NOW), "negative")
    (batch,) = await Reading(index).read()
    assert (batch.items, batch.watermark) == ([], None)
    assert {key.split("\n")[0] for key in batch.unsettled} == {"a:1"}


async def test_a_slice_with_an_item_on_the_move_is_read_again_once_and_then_the_sweep_goes_on() -> None:
    index = crowd(3000)
    index.put("moving:1", iso(NOW - 3 * HOUR), "positive")
    index.put("moving:1", iso(NOW - 3 * HOUR), "negative")
    reading = Reading(index, budget=30)
    await reading.read(whole=True)
    with_it = 0
    for _ in range(100):
        batches = await reading.read()
        with_it += sum(bool(batch.unsettled) for batch in batches)
        if batches[-1].watermark is not None:
            break
    assert batches[-1].watermark is not None
    assert with_it == 2


async def test_updates_come_old_before_new() -> None:
    (batch,) = await Reading(crowd(200)).read()
    times = [one.time for one in batch.items]
    assert times == sorted(times)
    assert len(times) == 200


async def test_malformed_items_are_counted_by_kind_and_stop_nothing() -> None:
    index = crowd(50)
    index.put("a:1", iso(NOW), "positive", "7")
    index.put("a:2", "yesterday", "positive")
    index.put("a:3", iso(NOW), "positive", "0.5", "not a ticker")
    (batch,) = await Reading(index).read()
    assert len(batch.items) == 50
    assert batch.skipped == {"score": 1, "timestamp": 1, "matched_tickers": 1}


async def test_pages_of_nothing_but_malformed_items_do_not_stop_a_sweep() -> None:
    index = crowd(3000)
    for n in range(2000):
        index.put(f"bad:{n}", iso(NOW - 5 * HOUR + n), "positive", "7")
    reading = Reading(index, budget=30)
    await reading.read(whole=True)
    for _ in range(3000):
        batches = await reading.read()
        if batches[-1].watermark is not None:
            break
    assert batches[-1].watermark is not None
    assert len(reading.window) == 3000
    assert not reading.removed


def failing(code: str, message: str = "", *, times: int = 10**9) -> Callable[[dict[str, Any]], None]:
    left = [times]

    def fail(request: dict[str, Any]) -> None:
        if left[0] > 0 and request["ExpressionAttributeValues"][":label"]["S"] == "negative":
            left[0] -= 1
            raise ClientError({"Error": {"Code": code, "Message": message}}, "Query")

    return fail


ARN = "arn:aws:sts::123456789012:assumed-role/secret"


@pytest.mark.parametrize(
    ("code", "message", "advice"),
    [
        ("ResourceNotFoundException", "Requested resource not found", "does not exist in this region"),
        ("ValidationException", "The table does not have the specified index: by_sentiment", "check SSE_INDEX"),
        ("AccessDeniedException", f"User: {ARN} is not authorized", "allow this role dynamodb:Query"),
        ("ExpiredTokenException", "expired", "have expired"),
        ("ProvisionedThroughputExceededException", "slow down", "SSE_READ_BUDGET"),
        ("InternalServerError", f"oh {ARN}", "InternalServerError"),
    ],
)
async def test_a_refusal_says_what_to_mend_and_nothing_about_the_account(code: str, message: str, advice: str) -> None:
    index = crowd(10)
    index.before = failing(code, message)
    with pytest.raises(SourceError) as caught:
        await Reading(index).read()
    said = str(caught.value)
    assert advice in said
    assert "news/index/by_sentiment" in said
    assert ARN not in said
    assert isinstance(caught.value.__cause__, ClientError)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (NoCredentialsError(), "no AWS credentials"),
        (NoRegionError(), "set AWS_REGION"),
        (EndpointConnectionError(endpoint_url="http://10.0.0.1"), "does not accept connections"),
    ],
)
async def test_what_botocore_says_by_itself_is_told_too(error: Exception, advice: str) -> None:
    class Broken:
        def query(self, **request: Any) -> Any:
            raise error

    with pytest.raises(SourceError, match=advice) as caught:
        await Reading(Broken()).read()
    assert "10.0.0.1" not in str(caught.value)


async def test_an_answer_that_is_not_dynamodbs_is_an_error() -> None:
    class Odd:
        def query(self, **request: Any) -> Any:
            return {"message": "<html>captive portal</html>"}

    with pytest.raises(SourceError, match="not DynamoDB"):
        await Reading(Odd()).read()


async def test_a_failed_partition_is_told_only_after_the_others_have_answered() -> None:
    index = crowd(10)
    index.before = failing("InternalServerError")
    with pytest.raises(SourceError):
        await Reading(index).read()
    assert len(index.requests) == 2


async def test_a_long_load_is_patient_with_throttling_and_reads_no_page_twice_for_it() -> None:
    index = crowd(6000)
    index.before = failing("ProvisionedThroughputExceededException", times=4)
    reading = Reading(index)
    batches = await reading.read(whole=True)
    assert len(reading.window) == 6000
    assert sum(len(batch.items) for batch in batches) == 6000
    assert len(reading.pauses) == 4


async def test_a_long_load_gives_up_on_throttling_that_does_not_end() -> None:
    index = crowd(10)
    index.before = failing("ThrottlingException")
    reading = Reading(index)
    with pytest.raises(SourceError, match="throttled"):
        await reading.read(whole=True)
    assert len(reading.pauses) == 5


@given(
    st.lists(
        st.tuples(st.integers(0, 86_000), st.sampled_from(LABELS), st.sampled_from(["Z", "+00:00", ".5Z", ""])),
        min_size=1,
        max_size=400,
    ),
    st.sampled_from([3.0, 5.0, 20.0]),
)
@settings(deadline=None, max_examples=40)
async def test_whatever_the_window_looks_like_a_sweep_sees_all_of_it_and_removes_nothing(
    written: list[tuple[int, str, str]], budget: float
) -> None:
    index = Index(item_bytes=3000)
    for n, (ago, label, suffix) in enumerate(written):
        index.put(f"a:{n}", iso(NOW - ago)[:19] + suffix, label)
    reading = Reading(index, budget=budget)
    for _ in range(2):
        for _ in range(1000):
            batches = await reading.read(after=0.1)
            if batches[-1].watermark is not None:
                break
    assert batches[-1].watermark is not None
    assert len(reading.window) == len(index)
    assert not reading.removed
