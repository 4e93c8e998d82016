"""DynamoDB for the tests: two implementations over real HTTP, and tables with the verbs of those who write to them."""

import asyncio
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import batched, count
from pathlib import Path
from typing import Any
from uuid import uuid4

from quartsse.tools import emulator
from quartsse.tools.emulator import Client
from quartsse.tools.news import Record, Verdict, attributes_of
from quartsse.tools.tables import create_sentiments, create_users
from tests.processes import clean_environment, free_port

DYNALITE = Path(__file__).parent / "node_modules" / ".bin" / "dynalite"
SECRET = "must never leave the service"
"""Part of every headline, text and address that the tests write."""

_numbers = count(1)


@contextmanager
def moto_server() -> Iterator[str]:
    """Moto's server in its own process; gives its address. It ends with this process, however that ends."""
    with subprocess.Popen(
        emulator.COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment()
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@contextmanager
def dynalite_server() -> Iterator[str]:
    """Dynalite in its own process; gives its address. It has neither streams nor expiry."""
    port = free_port()
    command = [str(DYNALITE), "--host", "127.0.0.1", "--port", str(port), "--createTableMs", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=clean_environment()) as process:
        assert process.stdout is not None
        try:
            assert "listening" in process.stdout.readline()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def record(
    source_id: str | None = None,
    *tickers: str,
    published: datetime | str | None = None,
    age: float = 1.0,
    sentiment: str | None = None,
    score: float = 0.8,
    confidence: float | None = None,
    sources: Sequence[str] = (),
    **more: dict[str, Any],
) -> Record:
    """An item in DynamoDB's own JSON: without a sentiment as it is first written, or else as it is once analysed.

    `published` is when, or exactly what is written as the timestamp; without it, `age` seconds ago. `more` adds
    attributes or replaces them.
    """
    moment = published or datetime.now(UTC) - timedelta(seconds=age)
    made: Record = {
        "source_id": {"S": source_id or f"tiingo:{next(_numbers)}"},
        "timestamp": {"S": moment if isinstance(moment, str) else moment.isoformat()},
        "status": {"S": "pending"},
        "matched_tickers": {"L": [{"S": ticker} for ticker in tickers or ("AAPL",)]},
        "headline": {"S": f"A headline that {SECRET}"},
        "text": {"S": f"A text that {SECRET}"},
        "url": {"S": f"https://news.example/{SECRET.replace(' ', '-')}"},
    }
    if sources:
        made["sources"] = {"L": [{"S": source} for source in sources]}
    if sentiment is not None:
        made |= {"status": {"S": "analyzed"}} | attributes_of(Verdict(sentiment, score, confidence))
    return made | more


def key_of(item: Record) -> Record:
    """The key of an item in the sentiment table."""
    return {name: item[name] for name in ("source_id", "timestamp")}


def configuration(user: str, config_id: str, *tickers: str, name: str = "Mine", **more: dict[str, Any]) -> Record:
    """An active configuration in DynamoDB's own JSON; `more` adds attributes or replaces them."""
    return {
        "PK": {"S": f"USER#{user}"},
        "SK": {"S": f"CONFIG#{config_id}"},
        "config_id": {"S": config_id},
        "name": {"S": name},
        "tickers": {"L": [{"M": {"symbol": {"S": ticker}}} for ticker in tickers]},
        "status": {"S": "active"},
        **more,
    }


@dataclass(frozen=True, slots=True)
class Tables:
    """A sentiment table and a users table of one test's own, and what the real system does to them.

    boto3 blocks; the verbs do it in a thread, so that a test's loop goes on.
    """

    endpoint: str
    sentiments: str
    users: str
    client: Client

    async def put(self, *source_id_and_tickers: str, **attributes: Any) -> Record:
        """Write the item that `record` makes of the same arguments; gives its key."""
        item = record(*source_id_and_tickers, **attributes)
        await asyncio.to_thread(self.client.put_item, TableName=self.sentiments, Item=item)
        return key_of(item)

    async def fill(self, items: Sequence[Record]) -> None:
        """Write many items, in batches."""
        for chunk in batched(items, 25, strict=False):
            requests = {self.sentiments: [{"PutRequest": {"Item": item}} for item in chunk]}
            answer = await asyncio.to_thread(self.client.batch_write_item, RequestItems=requests)
            assert not answer["UnprocessedItems"]

    async def analyse(
        self, key: Record, sentiment: str = "positive", score: float = 0.8, confidence: float | None = None
    ) -> None:
        """Set an item's sentiment, for the first time or again: only then is it in the index."""
        attributes = {"status": {"S": "analyzed"}} | attributes_of(Verdict(sentiment, score, confidence))
        await asyncio.to_thread(
            self.client.update_item,
            TableName=self.sentiments,
            Key=key,
            UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in attributes),
            ExpressionAttributeNames={f"#{name}": name for name in attributes},
            ExpressionAttributeValues={f":{name}": value for name, value in attributes.items()},
        )

    async def delete(self, key: Record) -> None:
        """Delete an item."""
        await asyncio.to_thread(self.client.delete_item, TableName=self.sentiments, Key=key)

    async def configure(self, user: str, config_id: str, *tickers: str, **attributes: Any) -> None:
        """Write a configuration, new or changed."""
        item = configuration(user, config_id, *tickers, **attributes)
        await asyncio.to_thread(self.client.put_item, TableName=self.users, Item=item)

    async def unconfigure(self, user: str, config_id: str) -> None:
        """Delete a configuration."""
        key = {"PK": {"S": f"USER#{user}"}, "SK": {"S": f"CONFIG#{config_id}"}}
        await asyncio.to_thread(self.client.delete_item, TableName=self.users, Key=key)

    def environment(self) -> dict[str, str]:
        """The variables with which a process finds these tables."""
        return {
            **emulator.environment(self.endpoint),
            "SENTIMENTS_TABLE": self.sentiments,
            "USERS_TABLE": self.users,
        }


@contextmanager
def tables_at(endpoint: str, *, expiry: str | None = "ttl") -> Iterator[Tables]:
    """Freshly named tables, deleted at the end."""
    run = uuid4().hex[:8]
    client = emulator.connect(endpoint)
    tables = Tables(endpoint, f"sentiments-{run}", f"users-{run}", client)
    create_sentiments(client, tables.sentiments, expiry=expiry)
    create_users(client, tables.users)
    yield tables
    for name in (tables.sentiments, tables.users):
        client.delete_table(TableName=name)
    client.close()
