"""Configurations: which tickers a user has saved, and what becomes of that while streams are open."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Any, Protocol

from quartsse.errors import SourceError
from quartsse.feed.blocking import blocking
from quartsse.feed.dynamodb import Client
from quartsse.hub.filters import TICKER

logger = logging.getLogger(__name__)

CALL_SECONDS = 6.0
MOST_CALLS = 8
"""Reads of the users table at the same time; a crowd that connects at once waits its turn."""

BATCH = 100
"""Keys of one BatchGetItem: DynamoDB's own limit."""

MOST_ROUNDS = 5
LONGEST_ID = 512
MOST_TICKERS = 1000

type Key = tuple[str, str]
"""A user's id and a configuration's."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A configuration as its user saved it: the tickers that can be some, each once, in their order."""

    config_id: str
    name: str
    tickers: tuple[str, ...]


class Store(Protocol):
    """Where configurations are kept."""

    async def get(self, key: Key) -> Saved | None:
        """The active configuration of a key; None for unknown, inactive and another user's. Raises SourceError."""
        ...

    async def get_all(self, keys: Sequence[Key]) -> dict[Key, Saved]:
        """The active ones among some keys, in as few calls as may be. Raises SourceError."""
        ...


class UsersTable:
    """The users table, read by key. `keys` are the names of its hash and range key."""

    def __init__(self, client: Callable[[], Client], table: str, keys: Sequence[str] = ("PK", "SK")) -> None:
        self._client = client
        self._table = table
        self._hash, self._range = keys
        self._calls = asyncio.Semaphore(MOST_CALLS)

    async def get(self, key: Key) -> Saved | None:
        """One GetItem, whatever the answer: so that nobody can tell unknown from foreign by the time it takes."""
        if len(key[1].encode()) > LONGEST_ID:
            return None
        answer = await self._ask("get_item", TableName=self._table, Key=self._key(key), **_PROJECTION)
        return saved_in(answer.get("Item"))

    async def get_all(self, keys: Sequence[Key]) -> dict[Key, Saved]:
        """BatchGetItem, a hundred keys a call; what DynamoDB leaves over is asked for again, a few times."""
        found: dict[Key, Saved] = {}
        for some in batched(keys, BATCH, strict=False):
            found.update(await self._get_batch(some))
        return found

    async def _get_batch(self, keys: Sequence[Key]) -> dict[Key, Saved]:
        by_name = {(f"USER#{user}", f"CONFIG#{config}"): (user, config) for user, config in keys}
        found: dict[Key, Saved] = {}
        wanted = [self._key(key) for key in keys]
        for attempt in range(MOST_ROUNDS):
            if attempt:
                await asyncio.sleep(0.05 * 2**attempt)
            request = {self._table: {"Keys": wanted, **self._projection_with_keys()}}
            answer = await self._ask("batch_get_item", RequestItems=request)
            for record in answer["Responses"].get(self._table, []):
                saved = saved_in(record)
                if saved is not None:
                    found[by_name[record[self._hash]["S"], record[self._range]["S"]]] = saved
            wanted = answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", [])
            if not wanted:
                return found
        raise SourceError(f"cannot read {self._table}: DynamoDB left {len(wanted)} keys over {MOST_ROUNDS} times")

    async def _ask(self, operation: str, **request: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        def call() -> Any:
            try:
                return getattr(self._client(), operation)(**request)
            except (BotoCoreError, ClientError) as error:
                raise SourceError(f"cannot read {self._table}: {error}") from error

        async with self._calls:
            try:
                return await blocking(call, CALL_SECONDS)
            except TimeoutError as error:
                raise SourceError(f"cannot read {self._table}: no answer within {CALL_SECONDS:g} s") from error

    def _key(self, key: Key) -> dict[str, dict[str, str]]:
        return {self._hash: {"S": f"USER#{key[0]}"}, self._range: {"S": f"CONFIG#{key[1]}"}}

    def _projection_with_keys(self) -> dict[str, Any]:
        names = {**_NAMES, "#hash": self._hash, "#range": self._range}
        return {"ProjectionExpression": ", ".join(names), "ExpressionAttributeNames": names}


_NAMES = {f"#{name}": name for name in ("config_id", "name", "tickers", "status", "is_active")}
_PROJECTION: dict[str, Any] = {"ProjectionExpression": ", ".join(_NAMES), "ExpressionAttributeNames": _NAMES}


def saved_in(record: Mapping[str, Mapping[str, Any]] | None) -> Saved | None:
    """The configuration in a record of the users table; None if there is none or it is not active.

    `status` decides where it is there, `is_active` in older items; without either it is not active. What is no
    ticker among the tickers is left out.
    """
    if record is None or not _active(record) or not isinstance(record.get("config_id", {}).get("S"), str):
        return None
    symbols = (_symbol(element) for element in record.get("tickers", {}).get("L", ())[:MOST_TICKERS])
    tickers = tuple(dict.fromkeys(symbol for symbol in symbols if symbol is not None))
    return Saved(record["config_id"]["S"], str(record.get("name", {}).get("S", "")), tickers)


def _active(record: Mapping[str, Mapping[str, Any]]) -> bool:
    if "status" in record:
        return record["status"].get("S") == "active"
    return record.get("is_active", {}).get("BOOL") is True


def _symbol(element: Mapping[str, Any]) -> str | None:
    text = element.get("M", {}).get("symbol", {}).get("S") if "M" in element else element.get("S")
    if not isinstance(text, str) or not text.isascii() or not TICKER.fullmatch(text.upper()):
        return None
    return text.upper()


class Configurations:
    """The configurations that open streams follow: all read again by one task, every `interval` seconds.

    A follower is called with the configuration when it has changed, and with None when it is gone. When the store
    cannot be read, everyone keeps what they have.
    """

    def __init__(self, store: Store, interval: float = 5.0) -> None:
        self._store = store
        self._interval = interval
        self._known: dict[Key, Saved] = {}
        self._followers: dict[Key, dict[Callable[[Saved | None], None], None]] = {}
        self._unreadable = False

    async def get(self, key: Key) -> Saved | None:
        """The configuration as it is now. Raises SourceError."""
        return await self._store.get(key)

    def follow(self, key: Key, saved: Saved, changed: Callable[[Saved | None], None]) -> Callable[[], None]:
        """Tell `changed` of every change from `saved` on; call what is returned to stop that."""
        known = self._known.setdefault(key, saved)
        self._followers.setdefault(key, {})[changed] = None
        if known != saved:  # it has changed since the last look at it: everyone hears of it now
            self._tell(key, saved)

        def stop() -> None:
            followers = self._followers.get(key, {})
            followers.pop(changed, None)
            if not followers:
                self._followers.pop(key, None)
                self._known.pop(key, None)

        return stop

    async def run(self) -> None:
        """Look at the open configurations again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            if self._followers:
                await self._look()

    async def _look(self) -> None:
        keys = list(self._followers)
        try:
            found = await self._store.get_all(keys)
        except SourceError as error:
            if not self._unreadable:
                logger.warning("configurations: %s", error)
            self._unreadable = True
            return
        self._unreadable = False
        for key in keys:
            if key in self._followers and self._known[key] != found.get(key):
                self._tell(key, found.get(key))

    def _tell(self, key: Key, saved: Saved | None) -> None:
        if saved is not None:
            self._known[key] = saved
        for changed in list(self._followers[key]):
            changed(saved)
