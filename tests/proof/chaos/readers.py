"""Those who read: clients as anybody would use them, each of which writes down what it hears."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from quartsse.client import ServerEvent, State, StreamError, StreamOptions, stream
from tests.proof.chaos.history import SCALE, Connection, History, Update
from tests.proof.chaos.news import TICKERS

PATIENCE = StreamOptions(max_backoff=4.0, connect_timeout=5.0, idle_timeout=10.0)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a reader asks for: everything, some tickers, or the configuration of a user; plain or as gzip."""

    tickers: tuple[str, ...] | None
    user: str | None
    gzip: bool

    @property
    def path(self) -> str:
        """Of the stream."""
        if self.user is not None:
            return f"/api/v2/configurations/{self.user}/stream"
        return f"/api/v2/stream?tickers={'*' if self.tickers is None else ','.join(self.tickers)}"


def wishes(count: int, seed: int) -> list[Wish]:
    """Those of so many readers: half want everything, the others a few tickers, a third of them by a configuration."""
    chance, made = random.Random(seed), []
    for number in range(count):
        some = None if chance.random() < 0.5 else tuple(chance.sample(TICKERS, chance.randint(1, 6)))
        private = some is not None and chance.random() < 0.33
        made.append(Wish(some, f"user-{number}" if private else None, chance.random() < 0.33))
    return made


class Reader:
    """One client, and its history."""

    def __init__(self, name: str, origin: str, wish: Wish) -> None:
        self.history = History(name, None if wish.tickers is None else frozenset(wish.tickers))
        self._url = origin + wish.path
        self._headers = {} if wish.user is None else {"X-User-ID": wish.user}
        self._options = replace(PATIENCE, compression=wish.gzip)
        self._asked = 0.0
        self._has_id = False

    async def read(self, delay: float) -> None:
        """Read until cancelled."""
        await asyncio.sleep(delay)
        try:
            async with stream(self._url, headers=self._headers, on_state=self._state, options=self._options) as events:
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
async def readers(origins: Sequence[str], asked: Sequence[Wish], per_second: float = 50) -> AsyncIterator[list[Reader]]:
    """A reader for each wish, spread over some addresses, who come one after another and stay."""
    made = [Reader(f"reader {number}", origins[number % len(origins)], wish) for number, wish in enumerate(asked)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(reader.read(number / per_second)) for number, reader in enumerate(made)]
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()
