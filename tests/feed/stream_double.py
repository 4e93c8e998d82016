"""A double of the Streams API, for what the emulators lack: shards that split, records that are trimmed, throttling."""

import hashlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from quartsse.feed.items import Item, item_in
from quartsse.feed.source import FOREVER, Batch, Source
from quartsse.hub.clock import iso
from tests.feed.feeding import NOW

STAMP = iso(NOW)
ARN = "arn:aws:dynamodb:eu-west-1:000000000000:table/news/stream/2025-12-02T00:00:00.000"

type Record = dict[str, dict[str, Any]]


@dataclass
class Shard:
    """A shard; `low` and `high` bound the hashes of the items whose changes it holds."""

    name: str
    parent: str | None
    low: int
    high: int
    records: list[dict[str, Any]] = field(default_factory=list)
    closed: bool = False
    trimmed: int = 0


def failure(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "as told"}}, operation)


class StreamDouble(Source):
    """A table with its stream: what is written to it, the four operations of a client, and a source for its window."""

    def __init__(self, *, page: int = 1000, describe_page: int = 100) -> None:
        self.items: dict[str, Record] = {}
        self.shards: dict[str, Shard] = {"shard-0": Shard("shard-0", None, 0, 256)}
        self.fail: dict[str, list[str]] = {}
        """Codes with which the next calls of an operation fail."""
        self.asked: list[str] = []
        self.whole_reads = 0
        self.lags = False
        """Whether the index has stopped to follow the table."""
        self.index: dict[str, Record] = {}
        self.during_the_window: Callable[[], None] = lambda: None
        self.status = "ENABLED"
        self.images = True
        self._page = page
        self._describe_page = describe_page
        self._generation = 0

    def write(self, source_id: str, sentiment: str | None = None, score: str = "0.8", **more: dict[str, Any]) -> None:
        """Put an item."""
        made: Record = {"source_id": {"S": source_id}, "timestamp": {"S": STAMP}}
        if sentiment is not None:
            made |= {"sentiment": {"S": sentiment}, "score": {"N": score}}
        made |= {"matched_tickers": {"L": [{"S": "AAPL"}]}, **more}
        old = self.items.get(source_id)
        self.items[source_id] = made
        self._record("INSERT" if old is None else "MODIFY", source_id, made, old)

    def delete(self, source_id: str) -> None:
        """Delete an item."""
        self._record("REMOVE", source_id, None, self.items.pop(source_id))

    def split(self, *, into: int = 2) -> None:
        """Close the widest open shard, and open its children."""
        shard = max((one for one in self.shards.values() if not one.closed), key=lambda one: one.high - one.low)
        shard.closed = True
        width = (shard.high - shard.low) // into
        for n in range(into):
            name = f"shard-{len(self.shards)}"
            high = shard.high if n == into - 1 else shard.low + (n + 1) * width
            self.shards[name] = Shard(name, shard.name, shard.low + n * width, high)

    def expire_iterators(self) -> None:
        """Let all iterators that were given out be too old."""
        self._generation += 1

    def trim(self) -> None:
        """Let all records that are there be older than a day."""
        for shard in self.shards.values():
            shard.trimmed = len(shard.records)

    def list_streams(self, **request: Any) -> dict[str, Any]:
        self._ask("list_streams")
        return {"Streams": [{"StreamArn": ARN, "StreamLabel": "2025"}] if self.status else []}

    def describe_stream(self, **request: Any) -> dict[str, Any]:
        self._ask("describe_stream")
        assert request["StreamArn"] == ARN
        names = list(self.shards)
        start = names.index(request["ExclusiveStartShardId"]) + 1 if "ExclusiveStartShardId" in request else 0
        page = names[start : start + self._describe_page]
        described: dict[str, Any] = {
            "StreamStatus": self.status,
            "Shards": [self._described(self.shards[name]) for name in page],
        }
        if page and page[-1] != names[-1]:
            described["LastEvaluatedShardId"] = page[-1]
        return {"StreamDescription": described}

    def get_shard_iterator(self, **request: Any) -> dict[str, Any]:
        self._ask("get_shard_iterator")
        shard = self.shards[request["ShardId"]]
        position = len(shard.records) if request["ShardIteratorType"] == "LATEST" else shard.trimmed
        return {"ShardIterator": f"{shard.name}|{position}|{self._generation}"}

    def get_records(self, **request: Any) -> dict[str, Any]:
        self._ask("get_records")
        name, start, generation = request["ShardIterator"].split("|")
        shard, position = self.shards[name], int(start)
        if int(generation) != self._generation:
            raise failure("ExpiredIteratorException", "GetRecords")
        if position < shard.trimmed:
            raise failure("TrimmedDataAccessException", "GetRecords")
        records = shard.records[position : position + min(self._page, request["Limit"])]
        position += len(records)
        answer: dict[str, Any] = {"Records": records}
        if not shard.closed or position < len(shard.records):
            answer["NextShardIterator"] = f"{name}|{position}|{generation}"
        return answer

    async def read(self, low: float, *, whole: bool) -> AsyncGenerator[Batch]:
        """The window by query, of the index."""
        assert whole
        self.whole_reads += 1
        if not self.lags:
            self.index = dict(self.items)
        items = [item_in(record) for record in self.index.values() if "sentiment" in record]
        self.during_the_window()
        yield Batch(items=items, span=(low, FOREVER), watermark=NOW, units=1.5)

    def in_the_index(self) -> dict[str, Item]:
        """What a query finds when the index has caught up."""
        return {name: item_in(record) for name, record in self.items.items() if "sentiment" in record}

    def _ask(self, operation: str) -> None:
        self.asked.append(operation)
        if self.fail.get(operation):
            raise failure(self.fail[operation].pop(0), operation)

    def _record(self, event: str, source_id: str, new: Record | None, old: Record | None) -> None:
        change: dict[str, Any] = {"Keys": {"source_id": {"S": source_id}, "timestamp": {"S": STAMP}}}
        if new is not None and self.images:
            change["NewImage"] = new
        if old is not None and self.images:
            change["OldImage"] = old
        place = hashlib.sha256(source_id.encode()).digest()[0]
        shard = next(one for one in self.shards.values() if not one.closed and one.low <= place < one.high)
        shard.records.append({"eventName": event, "dynamodb": change})

    @staticmethod
    def _described(shard: Shard) -> dict[str, Any]:
        numbers = {"StartingSequenceNumber": "0"} | ({"EndingSequenceNumber": "9"} if shard.closed else {})
        parent = {"ParentShardId": shard.parent} if shard.parent else {}
        return {"ShardId": shard.name, "SequenceNumberRange": numbers, **parent}
