"""Those who read: clients as anybody would use them, each of which writes down what it hears."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from quartsse.client import ServerEvent, State, StreamError, StreamOptions, stream
from tests.proof.chaos.history import SCALE, Connection, History, Update
from tests.proof.chaos.news import TICKERS

PATIENCE = StreamOptions(max_backoff=4.0, connect_timeout=5.0, idle_timeout=10.0)


class Reader:
    """One client, and its history."""

    def __init__(self, name: str, url: str, tickers: Sequence[str] | None, *, gzip: bool) -> None:
        self.history = History(name, None if tickers is None else frozenset(tickers))
        self._url = url
        self._tickers = "*" if tickers is None else tickers
        self._options = replace(PATIENCE, compression=gzip)
        self._asked = 0.0
        self._has_id = False

    @property
    def connected(self) -> bool:
        """Whether it has a stream that has brought something."""
        connections = self.history.connections
        return bool(connections) and connections[-1].open and connections[-1].heard > 0

    async def read(self, delay: float) -> None:
        """Read until cancelled."""
        await asyncio.sleep(delay)
        try:
            async with stream(self._url, tickers=self._tickers, on_state=self._state, options=self._options) as events:
                async for event in events:
                    self._take(event)
                    self.history.repeats = events.repeats
        except StreamError as error:
            self.history.failure = repr(error)

    def _state(self, state: State) -> None:
        now = time.monotonic()
        if state.name == "connecting":
            self._asked = now
            self.history.attempts += 1
        elif state.name == "open":
            self.history.connections.append(Connection(self._asked, self._has_id, open=True))
        elif state.name == "closed":
            connection = self.history.connections[-1]
            connection.open, connection.closed, connection.reason = False, now, state.reason

    def _take(self, event: ServerEvent) -> None:
        connection = self.history.connections[-1]
        # What came together with a connection's end is taken after it.
        now = time.monotonic() if connection.closed is None else connection.closed
        self.history.heard.append(now)
        connection.heard = now
        self._has_id = self._has_id or bool(event.id)
        if event.event == "heartbeat":
            if event.json()["feed"] == "live":
                self.history.live.append(now)
            return
        if event.event == "stream_end":
            return
        if not connection.mode:
            connection.mode, connection.began = "opening", now
        if event.event == "resume":
            told = event.json()
            connection.mode, connection.replayed = told["mode"], told["replayed"]
        elif event.event == "metrics":
            self.history.totals = event.json()["total"]
        elif event.event == "sentiment_update":
            connection.updates.append(_update(event, now))


def _update(event: ServerEvent, now: float) -> Update:
    told = event.json()
    return Update(
        at=now,
        number=round(told["confidence"] * SCALE),
        identity=event.id.partition(".")[0],
        ticker=told["ticker"],
        label=told["label"],
        score=told["score"],
        source=told["source"],
        timestamp=told["timestamp"],
    )


@asynccontextmanager
async def readers(urls: Sequence[str], count: int, seed: int, per_second: float = 50) -> AsyncIterator[list[Reader]]:
    """So many readers, spread over some addresses: half of everything, half of a few tickers; a third take gzip."""
    chance = random.Random(seed)
    made = [
        Reader(
            f"reader {number}",
            urls[number % len(urls)],
            None if chance.random() < 0.5 else chance.sample(TICKERS, chance.randint(1, 6)),
            gzip=chance.random() < 0.33,
        )
        for number in range(count)
    ]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(reader.read(number / per_second)) for number, reader in enumerate(made)]
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()
