"""Configurations: which tickers a user has saved, and what becomes of that while streams are open."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Any, Protocol

from quartsse.errors import SourceError
from quartsse.feed.blocking import blocking
from quartsse.feed.dynamodb import Client, source_error
from quartsse.hub.filters import TICKER

logger = logging.getLogger(__name__)

CALL_SECONDS = 6.0
"""How long a read may take, its turn in the queue included."""

MOST_CALLS = 8
"""Reads of the users table at the same time; a crowd that connects at once waits its turn."""

BATCH = 100
"""Keys of one BatchGetItem: DynamoDB's own limit."""

MOST_BATCHES = 4
"""Batches that one look reads at the same time; the other calls are left to those who connect meanwhile."""

MOST_ROUNDS = 5
"""How often what DynamoDB leaves over is asked for again, with pauses of 0.1 to 0.8 s."""

LONGEST_ID = 512
"""Bytes of a configuration's id; DynamoDB takes 1024 of a range key."""

LONGEST_NAME = 1000
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
        """The active ones among at most `BATCH` keys. Raises SourceError."""
        ...


class UsersTable:
    """The users table, read by key. `keys` are the names of its hash and range key.

    Reads are consistent: whoever saves a configuration and opens its stream in the same breath must not hear that
    there is none, and a replica that lags behind must not end a stream or turn its filter back.
    """

    def __init__(self, client: Callable[[], Client], table: str, keys: Sequence[str] = ("PK", "SK")) -> None:
        self._client = client
        self._table = table
        self._hash, self._range = keys
        self._calls = asyncio.Semaphore(MOST_CALLS)
        self._what = _what_to_read(keys)

    async def get(self, key: Key) -> Saved | None:
        """One GetItem, whatever the answer: so that nobody can tell unknown from foreign by the time it takes."""
        if len(key[1].encode()) > LONGEST_ID:
            return None
        answer = await self._ask("GetItem", TableName=self._table, Key=self._key(key), **self._what)
        return saved_in(answer.get("Item"), key[1])

    async def get_all(self, keys: Sequence[Key]) -> dict[Key, Saved]:
        """One BatchGetItem; what DynamoDB leaves over is asked for again, a few times."""
        asked = {(f"USER#{user}", f"CONFIG#{config}"): (user, config) for user, config in keys}
        found: dict[Key, Saved] = {}
        wanted = [self._key(key) for key in keys]
        for attempt in range(MOST_ROUNDS):
            if attempt:
                await asyncio.sleep(0.05 * 2**attempt)
            answer = await self._ask("BatchGetItem", RequestItems={self._table: {"Keys": wanted, **self._what}})
            for record in answer.get("Responses", {}).get(self._table, []):
                key = asked[record[self._hash]["S"], record[self._range]["S"]]
                saved = saved_in(record, key[1])
                if saved is not None:
                    found[key] = saved
            wanted = answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", [])
            if not wanted:
                return found
        raise SourceError(f"cannot read {self._table}: DynamoDB left {len(wanted)} keys over {MOST_ROUNDS} times")

    async def _ask(self, action: str, **request: Any) -> Any:
        def call() -> Any:
            from botocore.exceptions import BotoCoreError, ClientError  # in the thread: it takes a while at first

            try:
                return getattr(self._client(), _VERBS[action])(**request)
            except (BotoCoreError, ClientError) as error:
                raise source_error(self._table, f"dynamodb:{action}", error) from error

        try:
            async with asyncio.timeout(CALL_SECONDS), self._calls:
                return await blocking(call, CALL_SECONDS)
        except TimeoutError as error:
            raise SourceError(f"cannot read {self._table}: no answer within {CALL_SECONDS:g} s") from error

    def _key(self, key: Key) -> dict[str, dict[str, str]]:
        return {self._hash: {"S": f"USER#{key[0]}"}, self._range: {"S": f"CONFIG#{key[1]}"}}


_VERBS = {"GetItem": "get_item", "BatchGetItem": "batch_get_item"}


def _what_to_read(keys: Sequence[str]) -> dict[str, Any]:
    """The attributes, each once: DynamoDB refuses a projection that names one twice."""
    attributes = dict.fromkeys(("name", "tickers", "status", "is_active", *keys))
    names = {f"#a{index}": attribute for index, attribute in enumerate(attributes)}
    return {
        "ProjectionExpression": ", ".join(names),
        "ExpressionAttributeNames": names,
        "ConsistentRead": True,
    }


def saved_in(record: Mapping[str, Mapping[str, Any]] | None, config_id: str) -> Saved | None:
    """The configuration in a record of the users table; None if there is none or it is not active.

    `status` decides where it is there, `is_active` in older items; without either it is not active. What is no
    ticker among the tickers is left out. The id is the one that was asked for, which is in the record's key.
    """
    if record is None or not _active(record):
        return None
    elements = record.get("tickers", {}).get("L", ())[:MOST_TICKERS]
    symbols = (_symbol(element) for element in elements)
    tickers = tuple(dict.fromkeys(symbol for symbol in symbols if symbol is not None))
    return Saved(config_id, _name(record), tickers)


def _name(record: Mapping[str, Mapping[str, Any]]) -> str:
    """The name, as text that can be sent: half a surrogate pair cannot, and would fail far from here."""
    name = str(record.get("name", {}).get("S", ""))[:LONGEST_NAME]
    return name.encode("utf-8", "replace").decode()


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

    A follower is called with the configuration when it has changed, and with None when it is gone. Those that cannot
    be read stay as they are.
    """

    def __init__(self, store: Store, interval: float = 5.0) -> None:
        self._store = store
        self._interval = interval
        self._known: dict[Key, Saved] = {}
        self._followers: dict[Key, dict[Callable[[Saved | None], None], None]] = {}
        self._read_meanwhile: set[Key] = set()
        self._unreadable = False

    async def get(self, key: Key) -> Saved | None:
        """The configuration as it is now. Raises SourceError."""
        return await self._store.get(key)

    def follow(self, key: Key, saved: Saved, changed: Callable[[Saved | None], None]) -> Callable[[], None]:
        """Tell `changed` of every change from `saved` on; call what is returned to stop that."""
        known = self._known.setdefault(key, saved)
        self._followers.setdefault(key, {})[changed] = None
        self._read_meanwhile.add(key)
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
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await self.look()
            await asyncio.sleep(max(0.01, self._interval - (loop.time() - began)))

    async def look(self) -> None:
        """Read all that is followed, a hundred a call, and tell of what has changed."""
        self._read_meanwhile.clear()
        batches = list(batched(self._followers, BATCH, strict=False))
        results: list[bool] = []
        for some in batched(batches, MOST_BATCHES, strict=False):
            results += await asyncio.gather(*(self._look_at(keys) for keys in some))
        self._unreadable = not all(results)

    async def _look_at(self, keys: Sequence[Key]) -> bool:
        """Whether they could be read."""
        try:
            found = await self._store.get_all(keys)
        except SourceError as error:
            if not self._unreadable:
                logger.warning("configurations: %s", error)
            self._unreadable = True
            return False
        for key in keys:
            # One that was read for a new stream while this answer was under way may be older here than there.
            if key in self._followers and key not in self._read_meanwhile and self._known[key] != found.get(key):
                self._tell(key, found.get(key))
        return True

    def _tell(self, key: Key, saved: Saved | None) -> None:
        if saved is not None:
            self._known[key] = saved
        for changed in list(self._followers[key]):
            changed(saved)
