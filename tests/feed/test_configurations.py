"""Configurations, and the users table over DynamoDB's real HTTP API."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import batched
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quartsse.errors import SourceError
from quartsse.feed import configurations as module
from quartsse.feed.configurations import BATCH, Configurations, Key, Saved, UsersTable, saved_in
from quartsse.feed.dynamodb import client, lazily
from quartsse.hub.events import Configuration, event
from quartsse.hub.filters import TICKER
from tests.dynamodb import Tables, configuration
from tests.feed import fault_proxy as faults

ANN = ("ann", "one")
MINE = Saved("one", "Mine", ("AAPL",))
TABLE = "users"


@pytest.fixture
def users(table: Tables, monkeypatch: pytest.MonkeyPatch) -> Iterator[UsersTable]:
    """The users table as the service reads it."""
    for name, value in table.environment().items():
        monkeypatch.setenv(name, value)
    get = lazily(client)
    yield UsersTable(get, table.users)
    get().close()


class Client:
    """Answers as it is told, and keeps what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    def batch_get_item(self, **request: Any) -> Any:
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer(request) if callable(answer) else answer

    get_item = batch_get_item


class Store:
    """A store in memory; `before` is awaited within each read of many, after it has been answered."""

    def __init__(self, saved: dict[Key, Saved]) -> None:
        self.saved = saved
        self.asked: list[int] = []
        self.broken = False
        self.before: Callable[[], object] = lambda: None

    async def get(self, key: Key) -> Saved | None:
        return self.saved.get(key)

    async def get_all(self, keys: Sequence[Key]) -> dict[Key, Saved]:
        self.asked.append(len(keys))
        if self.broken:
            raise SourceError("it is broken")
        found = {key: self.saved[key] for key in keys if key in self.saved}
        self.before()
        return found


# The table


async def test_a_configuration_is_read_as_its_user_saved_it(table: Tables, users: UsersTable) -> None:
    await table.configure("ann", "one", "aapl", "MSFT", "AAPL", "not a ticker", "")
    assert await users.get(ANN) == Saved("one", "Mine", ("AAPL", "MSFT"))


async def test_unknown_inactive_and_foreign_ones_are_none_and_each_takes_one_read(
    table: Tables, users: UsersTable
) -> None:
    await table.configure("ann", "off", "AAPL", status={"S": "inactive"})
    await table.configure("bob", "his", "AAPL")
    asked: list[str] = []
    users._client().meta.events.register(
        "before-send.dynamodb.*",
        lambda request, **_: asked.append(request.headers["X-Amz-Target"].decode()),  # and None, so that it is sent
    )
    for key in (("ann", "unknown"), ("ann", "off"), ("ann", "his")):
        asked.clear()
        assert await users.get(key) is None
        assert [target.split(".")[1] for target in asked] == ["GetItem"]


async def test_a_hundred_configurations_are_one_call_and_every_one_of_them_is_there(
    table: Tables, users: UsersTable
) -> None:
    keys = [(f"user {number}", "c") for number in range(250)]
    await asyncio.gather(*(table.configure(*key, f"T{index}") for index, key in enumerate(keys)))
    await table.configure(*keys[7], "X", status={"S": "deleted"})
    found: dict[Key, Saved] = {}
    for some in batched([*keys, ("nobody", "c")], BATCH, strict=False):
        found |= await users.get_all(some)
    assert found == {key: Saved("c", "Mine", (f"T{index}",)) for index, key in enumerate(keys) if index != 7}


@pytest.mark.parametrize(
    "key", [("a\nevent: x", "b\r\n\r\n"), ("a\0b", "\0"), ("USER#ann", "CONFIG#one"), ("é" * 128, "ü" * 256)]
)
async def test_a_hostile_key_is_a_key_like_any_other(table: Tables, users: UsersTable, key: Key) -> None:
    assert await users.get(key) is None
    await table.configure(*key, "AAPL")
    assert (await users.get(key)) == Saved(key[1], "Mine", ("AAPL",))
    assert list(await users.get_all([key])) == [key]


async def test_an_id_longer_than_any_key_can_be_is_unknown_without_asking() -> None:
    stub = Client({})
    assert await UsersTable(lambda: stub, TABLE).get(("ann", "x" * 5000)) is None
    assert stub.asked == []


async def test_a_table_that_is_not_there_cannot_be_read(users: UsersTable) -> None:
    gone = UsersTable(users._client, "gone")
    with pytest.raises(SourceError, match="cannot read gone"):
        await gone.get(ANN)
    with pytest.raises(SourceError, match="cannot read gone"):
        await gone.get_all([ANN])


@pytest.mark.parametrize(
    "fault",
    [faults.half_an_answer, faults.someone_else, faults.someone_s_json, faults.another_language, faults.gibberish],
)
async def test_an_answer_that_is_not_dynamodbs_is_a_failure_and_never_that_there_is_none(
    fault: faults.Fault, table: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await table.configure(*ANN, "AAPL")
    async with faults.fault_proxy(table.endpoint) as proxy:
        for name, value in replace(table, endpoint=proxy.endpoint).environment().items():
            monkeypatch.setenv(name, value)
        get = lazily(client)
        users = UsersTable(get, table.users)
        assert await users.get_all([ANN]) == {ANN: MINE}
        proxy.fault = fault
        with pytest.raises(SourceError):
            await users.get(ANN)
        with pytest.raises(SourceError):
            await users.get_all([ANN])
        get().close()


async def test_keys_of_the_table_may_have_the_names_of_what_is_read() -> None:
    stub = Client({})
    await UsersTable(lambda: stub, TABLE, ("name", "status")).get(ANN)
    assert list(stub.asked[0]["ExpressionAttributeNames"].values()) == ["name", "tickers", "status", "is_active"]


async def test_what_dynamodb_leaves_over_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "sleep", _no_sleep)
    keys = [(f"user{number}", "c") for number in range(100)]

    def thirty(request: Any) -> Any:
        wanted = request["RequestItems"][TABLE]["Keys"]
        people = [(key["PK"]["S"].removeprefix("USER#"), "c") for key in wanted]
        left = {TABLE: {**request["RequestItems"][TABLE], "Keys": wanted[30:]}} if wanted[30:] else {}
        return {"Responses": {TABLE: [configuration(*key, "AAPL") for key in people[:30]]}, "UnprocessedKeys": left}

    stub = Client(thirty)
    assert set(await UsersTable(lambda: stub, TABLE).get_all(keys)) == set(keys)
    assert [len(request["RequestItems"][TABLE]["Keys"]) for request in stub.asked] == [100, 70, 40, 10]


async def test_what_dynamodb_leaves_over_for_ever_could_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "sleep", _no_sleep)
    stub = Client(lambda request: {"Responses": {}, "UnprocessedKeys": request["RequestItems"]})
    with pytest.raises(SourceError, match="left 1 keys over 5 times"):
        await UsersTable(lambda: stub, TABLE).get_all([ANN])
    assert len(stub.asked) == 5


async def test_a_crowd_before_a_table_that_hangs_is_told_within_one_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALL_SECONDS", 0.1)
    monkeypatch.setattr(module, "blocking", lambda _, seconds: asyncio.wait_for(asyncio.Event().wait(), seconds))
    hanging = UsersTable(Client, TABLE)
    loop = asyncio.get_running_loop()
    began = loop.time()
    answers = await asyncio.gather(*(hanging.get(ANN) for _ in range(200)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {SourceError}
    assert loop.time() - began < 0.4, "and not after 25 turns of eight"


# Records


@pytest.mark.parametrize(
    ("more", "active"),
    [
        ({"status": {"S": "active"}}, True),
        ({"status": {"S": "inactive"}}, False),
        ({"status": {"S": "active"}, "is_active": {"BOOL": False}}, True),
        ({"status": {"S": "deleted"}, "is_active": {"BOOL": True}}, False),
        ({"status": {"NULL": True}, "is_active": {"BOOL": True}}, False),
        ({"is_active": {"BOOL": True}}, True),
        ({"is_active": {"BOOL": False}}, False),
        ({"is_active": {"S": "true"}}, False),
        ({}, False),
    ],
)
def test_only_what_says_that_it_is_active_is(more: dict[str, Any], active: bool) -> None:
    bare = {name: value for name, value in configuration(*ANN, "AAPL").items() if name != "status"}
    assert (saved_in({**bare, **more}, "one") is not None) == active


def test_tickers_may_be_maps_or_strings() -> None:
    symbols = [{"S": "aapl"}, {"M": {"symbol": {"S": "MSFT"}}}, {"M": {}}, {"N": "5"}, {"S": "\u017f"}, {"S": "A\n"}]
    saved = saved_in({**configuration(*ANN), "tickers": {"L": symbols}}, "one")
    assert saved == Saved("one", "Mine", ("AAPL", "MSFT")), "and what only becomes a letter in upper case is none"


_any_text = st.text(st.characters(codec=None, exclude_categories=()) | st.sampled_from("\n\r\0\ud800\u2028"))
_value = st.one_of(
    st.builds(lambda text: {"S": text}, _any_text),
    st.just({"NULL": True}),
    st.just({"N": "1"}),
    st.builds(lambda texts: {"L": [{"S": text} for text in texts]}, st.lists(_any_text)),
    st.builds(lambda texts: {"L": [{"M": {"symbol": {"S": text}}} for text in texts]}, st.lists(_any_text)),
)


@example(name={"S": "half a pair: \ud800"}, tickers={"L": []}, config_id="one")
@example(name={"S": "\n\nevent: x\0\r\u2028"}, tickers={"L": [{"S": "A\n\nevent: x"}]}, config_id="\n\nevent: x")
@given(
    name=_value,
    tickers=_value,
    config_id=st.text(st.characters(codec="utf-8") | st.sampled_from("\n\r\0\u2028"), min_size=1),
)
def test_whatever_a_user_has_saved_is_one_well_formed_event(name: Any, tickers: Any, config_id: str) -> None:
    saved = saved_in({**configuration(*ANN), "name": name, "tickers": tickers}, config_id)
    assert saved is not None
    assert all(TICKER.fullmatch(ticker) for ticker in saved.tickers)
    payload = Configuration(config_id=saved.config_id, name=saved.name, tickers=list(saved.tickers))
    frame = event("configuration", "c1", payload).frame("~").decode()
    lines = frame.removesuffix("\n\n").split("\n")
    assert "\r" not in frame
    assert "\0" not in frame
    assert [line.split(": ")[0] for line in lines] == ["id", "event", "data"]
    assert Configuration.model_validate_json(lines[2].removeprefix("data: ")) == payload


# Following


async def test_a_change_is_told_to_everyone_who_follows_and_once() -> None:
    store = Store({ANN: MINE, ("bob", "one"): MINE})
    configurations, heard = Configurations(store), list[Any]()
    for name in ("a", "b"):
        configurations.follow(ANN, MINE, lambda saved, name=name: heard.append((name, saved)))  # type: ignore[misc]
    configurations.follow(("bob", "one"), MINE, lambda saved: heard.append(("bob", saved)))
    await configurations.look()
    assert heard == []
    store.saved[ANN] = other = Saved("one", "Mine", ("MSFT",))
    await configurations.look()
    await configurations.look()
    assert heard == [("a", other), ("b", other)]


async def test_one_that_is_gone_is_told_and_nothing_is_asked_when_nobody_follows() -> None:
    store = Store({ANN: MINE})
    configurations, heard = Configurations(store), list[Any]()
    stop = configurations.follow(ANN, MINE, heard.append)
    del store.saved[ANN]
    await configurations.look()
    assert heard == [None]
    stop()
    stop()
    await configurations.look()
    assert len(store.asked) == 1


async def test_all_open_configurations_are_read_a_hundred_a_call_and_one_for_all_its_streams() -> None:
    keys = [(f"user{number % 250}", "c") for number in range(1000)]
    store = Store(dict.fromkeys(keys, MINE))
    configurations = Configurations(store)
    for key in keys:
        configurations.follow(key, MINE, lambda saved: pytest.fail(f"told of {saved}"))
    await configurations.look()
    assert store.asked == [100, 100, 50]


async def test_when_the_store_cannot_be_read_everyone_keeps_what_they_have_and_the_log_says_it_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store({ANN: MINE})
    configurations, heard = Configurations(store), list[Any]()
    configurations.follow(ANN, MINE, heard.append)
    store.saved[ANN], store.broken = Saved("one", "Mine", ()), True
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await configurations.look()
    assert heard == []
    assert [record.getMessage() for record in caplog.records] == ["configurations: it is broken"]
    store.broken = False
    await configurations.look()
    assert heard == [store.saved[ANN]]


async def test_a_hundred_that_cannot_be_read_keep_no_others_from_their_change() -> None:
    keys = [(f"user{number:03}", "c") for number in range(150)]
    first = keys[0]
    store = Store(dict.fromkeys(keys, MINE))

    async def half(keys: Sequence[Key]) -> dict[Key, Saved]:
        if first in keys:
            raise SourceError("throttled")
        return {}

    store.get_all = half  # type: ignore[method-assign]
    configurations, gone = Configurations(store), list[Key]()
    for key in keys:
        configurations.follow(key, MINE, lambda _, key=key: gone.append(key))  # type: ignore[misc]
    await configurations.look()
    assert gone == keys[100:]


async def test_who_joins_with_a_newer_one_lets_the_others_hear_of_it_at_once() -> None:
    configurations, heard = Configurations(Store({})), list[Any]()
    configurations.follow(ANN, MINE, heard.append)
    other = Saved("one", "renamed", ("AAPL",))
    configurations.follow(ANN, other, heard.append)
    assert heard == [other]


async def test_an_answer_from_before_a_stream_was_opened_does_not_turn_its_filter_back() -> None:
    store = Store({ANN: MINE})
    configurations, heard = Configurations(store), list[Any]()
    newer = Saved("one", "Mine", ("MSFT",))
    configurations.follow(ANN, MINE, lambda saved: None)  # noqa: ARG005

    def meanwhile() -> None:
        store.saved[ANN] = newer
        configurations.follow(ANN, newer, heard.append)
        heard.clear()

    store.before = meanwhile
    await configurations.look()
    assert heard == []
    store.before = lambda: None
    await configurations.look()
    assert heard == []


async def test_the_looks_come_at_the_interval_however_long_each_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    now, pauses = 100.0, list[float]()
    monkeypatch.setattr(loop, "time", lambda: now)
    store = Store({ANN: MINE})

    def slow() -> None:
        nonlocal now
        now += 2.0

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise asyncio.CancelledError

    store.before = slow
    monkeypatch.setattr(asyncio, "sleep", sleep)
    configurations = Configurations(store, interval=5.0)
    configurations.follow(ANN, MINE, lambda saved: None)  # noqa: ARG005
    with pytest.raises(asyncio.CancelledError):
        await configurations.run()
    assert pauses == [3.0, 3.0, 3.0]


async def _no_sleep(seconds: float) -> None:
    pass
