"""StreamsSource: follows the table's change stream, shard by shard, after the window has been read by query."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from quartsse.errors import SourceError
from quartsse.feed.blocking import blocking
from quartsse.feed.dynamodb import THROTTLING, Client, kind_of, source_error, throttled
from quartsse.feed.items import Item, MalformedItem, item_in, key_of
from quartsse.feed.source import Batch, Source
from quartsse.hub.clock import Clock

logger = logging.getLogger(__name__)

CALL_SECONDS = 8.0
"""The longest that one call may take, retries included."""

ITERATOR_SECONDS = 600.0
"""How long iterators are trusted; DynamoDB keeps them for 15 minutes (API reference, GetShardIterator)."""

SETTLING = 5.0
"""Seconds that the index may lag behind the stream: usually well below one."""

MOST_ROUNDS = 20
"""Pages of one shard that one read takes: 20,000 records; what is left comes with the next."""

THROTTLED_ATTEMPTS = 4
_ACTIONS = "dynamodb:ListStreams, DescribeStream, GetShardIterator and GetRecords"
_LOST = {"ExpiredIteratorException", "TrimmedDataAccessException"}

type StreamRecord = dict[str, Any]


class LostThread(SourceError):
    """An iterator is no longer good, or records were trimmed before they were read: the window must be read again."""


@dataclass(slots=True)
class Changes:
    """What some records changed, at most one change of each item, so that all of it can be applied at once."""

    items: dict[str, Item] = field(default_factory=dict)
    gone: dict[str, None] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)

    def __contains__(self, key: str) -> bool:
        return key in self.items or key in self.gone

    def take(self, key: str, item: Item | None) -> None:
        """Note an item's state; None is that it left the index. An earlier one is forgotten."""
        self.items.pop(key, None)
        self.gone.pop(key, None)
        if item is None:
            self.gone[key] = None
        else:
            self.items[key] = item

    def batch(self) -> Batch:
        """All of it as a batch."""
        return Batch(list(self.items.values()), gone=tuple(self.gone), skipped=dict(self.skipped), ordered=True)


class StreamsSource:
    """The other source: every change in its order, well below a second, at a cost that the window does not change.

    For one or two processes, since a shard bears two readers (Developer Guide, "Reading and processing a stream").
    `window` reads the window, by query, after the iterators have been taken: what happens meanwhile is in the stream
    too and comes after it. It is read once more some seconds later, for what had happened shortly before but was not
    in the index yet, and because an item is removed only when two reads have missed it. Where the two differ, the
    stream is right. `client` is a client of `dynamodbstreams`, called in a thread.
    """

    def __init__(
        self,
        client: Callable[[], Client],
        table: str,
        window: Source,
        *,
        arn: str | None = None,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._table = table
        self._window = window
        self._given_arn = arn
        self._arn = arn
        self._clock = clock or Clock()
        self._sleep = sleep
        self._iterators: dict[str, str] = {}
        self._known: set[str] = set()
        self._childless: set[str] = set()
        self._read_at: float | None = None
        self._settled_at = float("inf")
        self._recent: dict[str, float] = {}
        """What the stream said in the last seconds, and when: the index may not know it yet."""
        self._units = 0.0

    async def read(self, low: float, *, whole: bool) -> AsyncIterator[Batch]:
        """Read what the stream has; the window too if this is the first read or the thread was lost.

        `whole` alone is no reason: as long as its iterators are good, the stream has missed nothing.
        """
        now = self._clock.monotonic()
        following = self._read_at is not None and (not whole or now - self._read_at < ITERATOR_SECONDS)
        if following:
            try:
                async for batch in self._follow():
                    yield batch
                if now >= self._settled_at:
                    async for batch in self._window_and_since(low):
                        yield batch
                    self._settled_at = float("inf")
            except LostThread as error:
                logger.warning("feed: %s; reading the window again", error)
                following = False
        if not following:
            async for batch in self._begin(low):
                yield batch
        self._read_at = now

    async def _begin(self, low: float) -> AsyncIterator[Batch]:
        """Iterators first, then the window."""
        started = self._clock.wall()
        self._read_at = None
        await self._take_iterators()
        async for batch in self._window_and_since(low):
            yield batch
        yield Batch(watermark=started)
        self._settled_at = self._clock.monotonic() + SETTLING

    async def _window_and_since(self, low: float) -> AsyncIterator[Batch]:
        """The window, and then what has happened meanwhile: of each item only its last state.

        Its earlier ones may be older than what the window said, and would be told as if they were news.
        """
        async for batch in self._window.read(low, whole=True):
            self._forget_recent()
            late = {item.key for item in batch.items if item.key in self._recent}
            items = [item for item in batch.items if item.key not in late]
            unsettled = batch.unsettled | frozenset(self._recent) if batch.span else batch.unsettled | late
            yield replace(batch, items=items, unsettled=unsettled, watermark=None)
        last = Changes()
        for _ in range(MOST_ROUNDS):
            records, _ = await self._round(set(self._iterators))
            for key, item in self._changes_in(records, last.skipped):
                last.take(key, item)
            if not records:
                break
        yield replace(last.batch(), units=self._spent())

    def _forget_recent(self) -> None:
        """Forget what was said so long ago that the index knows it."""
        before = self._clock.monotonic() - SETTLING
        while self._recent and next(iter(self._recent.values())) < before:
            del self._recent[next(iter(self._recent))]

    async def _follow(self) -> AsyncIterator[Batch]:
        """Every change since the last read, as far as `MOST_ROUNDS` pages of a shard reach."""
        started = self._clock.wall()
        self._forget_recent()
        going = set(self._iterators)
        for _ in range(MOST_ROUNDS):
            going |= await self._find_children()
            records, going = await self._round(going)
            for batch in self._batches_of(records):
                yield replace(batch, units=self._spent(), changed_at=_oldest(records))
            if not going:
                yield Batch(watermark=started, units=self._spent())
                return

    async def _round(self, shards: set[str]) -> tuple[list[StreamRecord], set[str]]:
        """One page of each of some shards, side by side; and the shards that had something and so may have more.

        Nothing that can fail comes after an iterator has moved: what one shard said is read again if another fails.
        """
        asked = [shard for shard in self._iterators if shard in shards]
        answers = await asyncio.gather(*(self._page(shard) for shard in asked), return_exceptions=True)
        pages = [answer for answer in answers if not isinstance(answer, BaseException)]
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        for failure in sorted(failures, key=lambda failure: not isinstance(failure, LostThread)):
            raise failure
        more = set()
        for shard, page in zip(asked, pages, strict=True):
            following = page.get("NextShardIterator")
            if page["Records"] or following is None:
                more.add(shard)
            if following is None:
                del self._iterators[shard]
                self._childless.add(shard)
            else:
                self._iterators[shard] = following
        return [record for page in pages for record in page["Records"]], more

    async def _page(self, shard: str) -> dict[str, Any]:
        """One GetRecords; while it is throttled, some attempts: a third reader of a shard has to be patient."""
        for attempt in range(1, THROTTLED_ATTEMPTS):
            try:
                return await self._records(shard)
            except SourceError as error:
                if not throttled(error):
                    raise
            await self._sleep(random.uniform(0, 0.2 * 2**attempt))  # noqa: S311 (full jitter)
        return await self._records(shard)

    async def _records(self, shard: str) -> dict[str, Any]:
        self._units += 1
        return await self._ask("get_records", ShardIterator=self._iterators[shard], Limit=1000)

    def _spent(self) -> float:
        """The read units since this was asked last: one for each GetRecords."""
        spent, self._units = self._units, 0.0
        return spent

    def _batches_of(self, records: Iterable[StreamRecord]) -> Iterator[Batch]:
        """The changes in their order; a batch ends where an item would be in it twice."""
        changes = Changes()
        for key, item in self._changes_in(records, skipped := Counter[str]()):
            if key in changes:
                yield changes.batch()
                changes = Changes()
            changes.take(key, item)
        changes.skipped = skipped
        if changes.items or changes.gone or skipped:
            yield changes.batch()

    def _changes_in(self, records: Iterable[StreamRecord], skipped: Counter[str]) -> Iterator[tuple[str, Item | None]]:
        """What records say of items that are or were in the index. One that does not fit is as good as gone."""
        for record in records:
            change = record["dynamodb"]
            image, before = change.get("NewImage"), change.get("OldImage")
            if image is None and record["eventName"] != "REMOVE":
                raise SourceError(f"cannot follow {self._what}: it carries no new images; enable it with NEW_IMAGE")
            if image is not None and "sentiment" not in image and _never_had_one(record["eventName"], before):
                continue
            key = self._key(change["Keys"])
            self._recent.pop(key, None)
            self._recent[key] = self._clock.monotonic()
            try:
                yield key, item_in(image) if image is not None and "sentiment" in image else None
            except MalformedItem as misfit:
                skipped[str(misfit)] += 1
                yield key, None

    def _key(self, keys: dict[str, dict[str, str]]) -> str:
        try:
            return key_of(keys["source_id"]["S"], keys["timestamp"]["S"])
        except KeyError:
            raise SourceError(f"cannot follow {self._what}: its table has other keys") from None

    async def _take_iterators(self) -> None:
        """The end of every shard that is open."""
        shards = await self._shards()
        parents = {shard.get("ParentShardId") for shard in shards}
        self._iterators = {}
        self._known = {shard["ShardId"] for shard in shards}
        closed = {shard["ShardId"] for shard in shards if "EndingSequenceNumber" in shard["SequenceNumberRange"]}
        self._childless = closed - parents
        for shard in sorted(self._known - closed):
            self._iterators[shard] = await self._iterator(shard, "LATEST")

    async def _find_children(self) -> set[str]:
        """Follow the children of shards that have ended, from their beginning: parents before children."""
        if not self._childless:
            return set()
        shards = await self._shards()
        found = {shard["ShardId"] for shard in shards if shard.get("ParentShardId") in self._childless} - self._known
        iterators = {shard: await self._iterator(shard, "TRIM_HORIZON") for shard in sorted(found)}
        self._iterators |= iterators
        self._known |= found
        self._childless -= {shard.get("ParentShardId") for shard in shards if shard["ShardId"] in found}
        return found

    async def _iterator(self, shard: str, kind: str) -> str:
        answer = await self._ask("get_shard_iterator", StreamArn=self._arn, ShardId=shard, ShardIteratorType=kind)
        return str(answer["ShardIterator"])

    async def _shards(self) -> list[dict[str, Any]]:
        """Every shard of the stream that DynamoDB still knows."""
        if self._arn is None:
            self._arn = await self._find_stream()
        shards: list[dict[str, Any]] = []
        more: dict[str, str] = {}
        while True:
            stream = (await self._ask("describe_stream", StreamArn=self._arn, **more))["StreamDescription"]
            if stream["StreamStatus"] not in {"ENABLED", "ENABLING"}:
                self._arn = self._given_arn
                raise SourceError(f"cannot follow {self._what}: it is disabled; enable it, or set SSE_SOURCE=query")
            shards += stream["Shards"]
            if stream.get("LastEvaluatedShardId") is None:
                return shards
            more = {"ExclusiveStartShardId": stream["LastEvaluatedShardId"]}

    async def _find_stream(self) -> str:
        """The ARN of the table's newest stream."""
        streams = (await self._ask("list_streams", TableName=self._table))["Streams"]
        if not streams:
            raise SourceError(f"cannot follow {self._what}: there is none; enable it, or set SSE_SOURCE=query")
        return str(max(streams, key=lambda stream: str(stream["StreamLabel"]))["StreamArn"])

    async def _ask(self, operation: str, **request: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        def call() -> dict[str, Any]:
            try:
                answer: dict[str, Any] = getattr(self._client(), operation)(**request)
            except (BotoCoreError, ClientError) as error:
                raise self._failure(error) from error
            return answer

        try:
            return await blocking(call, CALL_SECONDS)
        except TimeoutError as error:
            raise SourceError(f"cannot follow {self._what}: no answer within {CALL_SECONDS:g} s") from error
        except SourceError as error:
            if kind_of(error.__cause__) == "ResourceNotFoundException":  # perhaps another one has taken its place
                self._arn, self._read_at = self._given_arn, None
            raise

    def _failure(self, error: Exception) -> SourceError:
        kind = kind_of(error)
        if kind in _LOST:
            return LostThread(f"lost the thread of {self._what} ({kind})")
        if kind in THROTTLING:
            advice = "throttled; a shard bears two readers, with more of them set SSE_SOURCE=query"
            return SourceError(f"cannot follow {self._what}: {advice} ({kind})")
        return source_error(self._what, _ACTIONS, error)

    @property
    def _what(self) -> str:
        return f"the stream of {self._table}"


def _oldest(records: Iterable[StreamRecord]) -> float | None:
    """When the first of some changes was made: whole seconds, cut off (API reference, StreamRecord)."""
    times = (record["dynamodb"].get("ApproximateCreationDateTime") for record in records)
    return min((at for at in times if at is not None), default=None)


def _never_had_one(event: str, before: dict[str, Any] | None) -> bool:
    """Whether an item without a sentiment had none before either, and so was never in the index."""
    return event == "INSERT" if before is None else "sentiment" not in before
