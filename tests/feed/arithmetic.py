"""An index in memory that pages, and counts read units, as DynamoDB's documentation says it does.

Half a unit for each 4 KB that an eventually consistent Query reads, rounded up; at most 1 MB a page, by the size of
the whole items and not of what is asked for (Amazon DynamoDB Developer Guide, "Capacity unit consumption for reads"
and "Paginating table query results"). The emulators count otherwise.
"""

import math
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Any

from quartsse.feed.items import LABELS, PROJECTION

PAGE_BYTES = 1_048_576

type Record = dict[str, dict[str, Any]]


class Index:
    """The index `sentiment`, `timestamp`, with items of `item_bytes` each; `query` is a client's."""

    def __init__(self, item_bytes: int = 1200) -> None:
        self.item_bytes = item_bytes
        self.requests: list[dict[str, Any]] = []
        self.units = 0.0
        self.before: Callable[[dict[str, Any]], None] = lambda _: None
        """Called before each answer; what it raises is the answer."""
        self._lock = threading.Lock()
        self._partitions: dict[str, list[tuple[str, str, Record]]] = {label: [] for label in LABELS}

    def __len__(self) -> int:
        return sum(map(len, self._partitions.values()))

    def put(self, source_id: str, stamp: str, sentiment: str, score: str = "0.8", *tickers: str) -> None:
        """Add an item."""
        record: Record = {
            "source_id": {"S": source_id},
            "timestamp": {"S": stamp},
            "sentiment": {"S": sentiment},
            "score": {"N": score},
            "matched_tickers": {"L": [{"S": ticker} for ticker in tickers or ("AAPL",)]},
        }
        with self._lock:
            entries = self._partitions[sentiment]
            entries.insert(
                bisect_left(entries, (stamp, source_id), key=lambda entry: (entry[0], entry[1])),
                (stamp, source_id, record),
            )

    def take(self, source_id: str, stamp: str) -> None:
        """Take an item away, wherever it is."""
        with self._lock:
            for label, entries in self._partitions.items():
                self._partitions[label] = [entry for entry in entries if entry[:2] != (stamp, source_id)]

    def query(self, **request: Any) -> dict[str, Any]:
        """Answer a Query of the feed's shape."""
        self.before(request)
        with self._lock:
            self.requests.append(request)
            return self._answer(request)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        values = {name: value["S"] for name, value in request["ExpressionAttributeValues"].items()}
        entries = self._partitions[values[":label"]]
        low = bisect_left(entries, values[":low"], key=lambda entry: entry[0])
        high = bisect_right(entries, values.get(":high", "~"), key=lambda entry: entry[0])
        start = request.get("ExclusiveStartKey")
        if start is not None:
            last = (start["timestamp"]["S"], start["source_id"]["S"])
            high = bisect_left(entries, last, key=lambda entry: (entry[0], entry[1]))
        most = min(request.get("Limit", PAGE_BYTES), max(1, PAGE_BYTES // self.item_bytes))
        cut = max(low, high - most)
        page = entries[cut:high][::-1]
        units = max(1, math.ceil(len(page) * self.item_bytes / 4096)) / 2
        self.units += units
        wanted = set(PROJECTION)
        answer: dict[str, Any] = {
            "Items": [{name: value for name, value in entry[2].items() if name in wanted} for entry in page],
            "ScannedCount": len(page),
            "ConsumedCapacity": {"CapacityUnits": units},
        }
        if cut > low or (page and len(page) == request.get("Limit")):
            stamp, source_id, record = page[-1]
            answer["LastEvaluatedKey"] = {
                "source_id": {"S": source_id},
                "timestamp": {"S": stamp},
                "sentiment": record["sentiment"],
            }
        return answer
