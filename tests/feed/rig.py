"""The whole feed in one process, as the service puts it together, over a real DynamoDB API, by real time."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from quartsse.feed.dynamodb import client, lazily
from quartsse.feed.poller import Poller
from quartsse.feed.query import QuerySource
from quartsse.feed.window import Window
from tests.dynamodb import Tables
from tests.feed.feeding import Listener

INTERVAL = 0.05


class Rig:
    """A poller over a table, and what it publishes."""

    def __init__(self, poller: Poller, listener: Listener) -> None:
        self.poller = poller
        self.listener = listener

    @property
    def told(self) -> list[dict[str, Any]]:
        """The updates so far."""
        return [json.loads(update.data) for update in self.listener.updates]

    @property
    def said(self) -> list[tuple[str, str]]:
        """The ticker and the label of each update so far."""
        return [(one["ticker"], one["label"]) for one in self.told]

    @property
    def totals(self) -> list[int]:
        """The total of each `metrics` so far."""
        return [json.loads(totals.data)["total"] for totals in self.listener.totals]

    async def polls(self, count: int) -> None:
        """Wait for so many reads that begin after now, good or bad."""
        for _ in range(count + 1):
            await asyncio.wait_for(self.poller._tried.wait(), 15)

    @staticmethod
    async def until(true: Callable[[], object], seconds: float = 10.0) -> bool:
        """Whether something comes true within some seconds."""
        end = time.monotonic() + seconds
        while not true() and time.monotonic() < end:
            await asyncio.sleep(0.01)
        return bool(true())


@asynccontextmanager
async def rig(
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
    *,
    endpoint: str | None = None,
    table: str | None = None,
    index: str = "by_sentiment",
    budget: float = 100.0,
    interval: float = INTERVAL,
    patience: float = 5.0,
    loaded: bool = True,
) -> AsyncGenerator[Rig]:
    """The feed at work over a table, `endpoint` being what stands between the two, once it has been loaded.

    `patience` is how long a read may take, in seconds: short where a test is about reads that never end.
    """
    for name, value in Tables(endpoint or tables.endpoint, "", "", None).environment().items():
        monkeypatch.setenv(name, value)
    get = lazily(lambda: client(patience=patience))
    window, listener = Window(), Listener()
    source = QuerySource(get, table or tables.sentiments, index, budget=budget, population=window)
    poller = Poller(source, window, listener, interval=interval)
    poller.attend()
    task = asyncio.create_task(poller.run())
    made = Rig(poller, listener)
    try:
        if loaded:
            assert await made.until(lambda: poller.loaded, 30)
        yield made
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        get().close()
