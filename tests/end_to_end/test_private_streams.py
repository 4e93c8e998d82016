"""Streams of one's own, whole: nobody else's data, changes in time, and the served process over a real DynamoDB API."""

import asyncio
import json
import math
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

import jwt
import pytest

from quartsse.feed.configurations import Key, Saved, UsersTable
from quartsse.feed.dynamodb import client, lazily
from quartsse.hub.clock import iso
from quartsse.web.server import event_loop
from tests.dynamodb import Tables
from tests.end_to_end.counting_proxy import proxy
from tests.served import Served
from tests.web.serving import Reply, Service, item, leave_all, request, serving

type Serve = Callable[..., Served]

ONE = "/api/v2/configurations/one/stream"
SECRET = "a secret of at least thirty-two bytes"


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run on the loop that the service has: streams are handed over."""

    async def and_leave() -> None:
        try:
            await main
        finally:
            leave_all()
            await asyncio.sleep(0)

    with event_loop() as runner:
        runner.run(and_leave())


# Nobody else's data

USERS = 50
ROUNDS = 50
ITEMS_A_ROUND = 100
BEGAN = math.floor(time.time()) - 7200
TICKERS = [f"T{number}" for number in range(60)]


class Viewer:
    """A user who watches a stream and looks at everything in it: whose name, which tickers."""

    def __init__(self, service: Service, number: int, tickers: list[str]) -> None:
        self.key: Key = (f"user{number:02}", "one")
        self.service = service
        self.seen: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.foreign: list[object] = []
        self.events = 0
        self._task: asyncio.Task[None] | None = None
        self._reply: Reply | None = None
        self.save(tickers)

    def save(self, tickers: list[str]) -> None:
        """Save the configuration."""
        self.service.store.saved[self.key] = Saved("one", f"only for {self.key[0]}", tuple(tickers))

    async def open(self, last_event_id: str | None) -> None:
        """Open the stream, or open it again."""
        await self.leave()
        headers = {"X_User_ID": self.key[0]} | ({"Last_Event_ID": last_event_id} if last_event_id else {})
        self._reply = await request(
            self.service.port, ONE, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        assert self._reply.status == 200
        self._task = asyncio.create_task(self._watch(self._reply))

    async def leave(self) -> None:
        """Cut the connection, wherever it is."""
        if self._task is not None and self._reply is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._reply.close()

    async def snapshot(self) -> None:
        """Look at a snapshot."""
        reply = await request(
            self.service.port, "/api/v2/configurations/one/snapshot", headers={"X-User-ID": self.key[0]}
        )
        state: Any = await reply.json()
        allowed = set(state["configuration"]["tickers"])
        shown = {update["ticker"] for update in state["sentiment_updates"]}
        shown |= {ticker for quarter in state["history"] for ticker in quarter["tickers"]}
        self.foreign += shown - allowed
        self._look_at_name(state["configuration"])
        self.ids.append(state["id"])

    async def _watch(self, reply: Reply) -> None:
        """In the opening updates come before the configuration that they belong to, later behind it."""
        allowed: set[str] | None = None
        opening: set[str] = set()
        while True:
            event = (await reply.events(1, 60))[0]
            data = json.loads(event["data"])
            self.events += 1
            self.ids.append(event["id"])
            if event["event"] == "configuration":
                self._look_at_name(data)
                allowed = set(data["tickers"])
                self.foreign += opening - allowed
                opening = set()
            elif event["event"] == "sentiment_update":
                self.seen.append((data["ticker"], data["timestamp"]))
                opening.add(data["ticker"])
                if allowed is not None:
                    self.foreign += opening - allowed
                    opening = set()
            elif event["event"] not in {"heartbeat", "resume"}:
                self.foreign.append(event)

    def _look_at_name(self, configuration: dict[str, Any]) -> None:
        if configuration["name"] != f"only for {self.key[0]}":
            self.foreign.append(configuration["name"])


def test_fifty_users_see_all_that_is_theirs_and_not_one_event_of_another() -> None:
    run(_fifty_users())


async def _fifty_users() -> None:
    chance = random.Random(50)
    settings: dict[str, Any] = {"SSE_POLL_INTERVAL": "0.1", "SSE_CONFIG_INTERVAL": "0.1", "SSE_LOG_EVENTS": "3000"}
    async with serving(saved={}, **settings) as service:
        viewers = [Viewer(service, number, _some(chance)) for number in range(USERS)]
        steady, restless = viewers[: USERS // 2], viewers[USERS // 2 :]
        await asyncio.gather(*(viewer.open(None) for viewer in viewers))
        published: set[tuple[str, str]] = set()
        for number in range(ROUNDS):
            published |= _publish(service, chance, number)
            for viewer in chance.sample(restless, 5):
                viewer.save(_some(chance))
            for viewer in chance.sample(restless, 3):
                await viewer.open(chance.choice(chance.choice(viewers).ids))
            for viewer in chance.sample(steady, 3):
                await viewer.open(viewer.ids[-1])
            await chance.choice(viewers).snapshot()
            await asyncio.sleep(0.1)
        async with asyncio.timeout(20):
            while service.parts.hub.place.number < len(published):
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        assert all(stream.handed_over for stream in service.parts.streams.open)
        assert [viewer.foreign for viewer in viewers] == [[]] * USERS
        for viewer in steady:
            expected = {update for update in published if update[0] in service.store.saved[viewer.key].tickers}
            assert set(viewer.seen) == expected, "not one is missing"
            assert len(viewer.seen) == len(expected), "and each came once"
        assert len(published) == 10_000
        assert sum(viewer.events for viewer in viewers) > 40_000
        for viewer in viewers:
            await viewer.leave()


def _some(chance: random.Random) -> list[str]:
    return chance.sample(TICKERS, chance.randrange(1, 11))


def _publish(service: Service, chance: random.Random, number: int) -> set[tuple[str, str]]:
    """Put a round's items where the service reads them; their tickers and timestamps."""
    published = set()
    for index in range(ITEMS_A_ROUND):
        at = round(BEGAN + number * 60 + index / 10, 3)
        made = item(f"tiingo:{number}-{index}", *chance.sample(TICKERS, 2), at=at)
        service.source.put(made)
        published |= {(ticker, iso(at)) for ticker in made.tickers}
    return published


# Changes in time

STREAMS = 500
CONFIG_INTERVAL = 1.0


def test_an_edit_is_on_the_stream_in_time_with_five_hundred_open_and_five_calls_an_interval(
    table: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in table.environment().items():
        monkeypatch.setenv(name, value)
    run(_five_hundred_streams(table))


async def _five_hundred_streams(table: Tables) -> None:
    get = lazily(client)
    calls: list[str] = []
    get().meta.events.register(
        "before-send.dynamodb.*", lambda request, **_: calls.append(request.headers["X-Amz-Target"].decode())
    )
    await asyncio.gather(*(table.configure(f"user{number}", "one", "AAPL") for number in range(STREAMS)))
    settings: dict[str, Any] = {"SSE_MAX_CONNECTIONS": "600", "SSE_CONFIG_INTERVAL": str(CONFIG_INTERVAL)}
    async with serving(kept=UsersTable(get, table.users), **settings) as service:
        replies = await asyncio.gather(*(service.get(ONE, X_User_ID=f"user{number}") for number in range(STREAMS)))
        await asyncio.gather(*(reply.until("configuration", 20) for reply in replies))
        assert calls.count("DynamoDB_20120810.GetItem") == STREAMS
        calls.clear()
        began = time.monotonic()
        waits = []
        for number in random.Random(5).sample(range(STREAMS), 6):
            await asyncio.sleep(CONFIG_INTERVAL * number / STREAMS)
            await table.configure(f"user{number}", "one", "MSFT")
            saved = time.monotonic()
            change = (await replies[number].until("configuration", 5))[-1]
            waits.append(time.monotonic() - saved)
            assert json.loads(change["data"])["tickers"] == ["MSFT"]
        intervals = (time.monotonic() - began) / CONFIG_INTERVAL
        print(f"{len(calls)} calls in {intervals:.1f} intervals; seen after {max(waits):.2f} s at most")
        assert max(waits) <= CONFIG_INTERVAL + 0.5
        assert set(calls) == {"DynamoDB_20120810.BatchGetItem"}
        assert len(calls) <= math.ceil(STREAMS / 100) * math.ceil(intervals + 1)
    get().close()


# The served process


async def _open(served: Served, user: str = "ann", path: str = ONE, **headers: str) -> Reply:
    named = {"X-User-ID": user} | {name.replace("_", "-"): value for name, value in headers.items()}
    reply = await request(served.port, path, headers=named)
    assert reply.status == 200, await reply.body()
    return reply


async def _next(reply: Reply, name: str, seconds: float = 3) -> Any:
    return json.loads((await reply.until(name, seconds))[-1]["data"])


@pytest.mark.parametrize("handover", ["1", "0"], ids=["handed-over", "iterator"])
async def test_a_stream_follows_its_configuration_and_ends_with_it(serve: Serve, table: Tables, handover: str) -> None:
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    await table.put("tiingo:2", "TSLA", sentiment="negative")
    await table.configure("ann", "one", "AAPL")
    await table.configure("ann", "two", "TSLA")
    served = await asyncio.to_thread(serve, SSE_CONFIG_INTERVAL="0.5", SSE_POLL_INTERVAL="0.2", SSE_HANDOVER=handover)
    reply, two = await _open(served), await _open(served, path=ONE.replace("one", "two"))
    assert (await _next(reply, "sentiment_update", 5))["ticker"] == "AAPL"
    assert (await _next(reply, "configuration"))["tickers"] == ["AAPL"]
    await table.configure("ann", "one", "TSLA", name="another")
    assert await _next(reply, "configuration") == {"config_id": "one", "name": "another", "tickers": ["TSLA"]}
    assert (await _next(reply, "sentiment_update"))["ticker"] == "TSLA"
    await table.put("tiingo:3", "AAPL", sentiment="positive")
    await table.put("tiingo:4", "TSLA", sentiment="neutral")
    assert (await _next(reply, "sentiment_update"))["label"] == "neutral"
    await table.configure("ann", "one", "TSLA", status={"S": "inactive"})
    await table.unconfigure("ann", "two")
    for ended in (reply, two):
        assert (await _next(ended, "stream_end"))["reason"] == "configuration_removed"
        assert await ended.body() == b""
    for path in (ONE, ONE.replace("one", "two")):
        refused = await request(served.port, path, headers={"X-User-ID": "ann"})
        assert (refused.status, await refused.body()) == (404, b'{"detail":"Configuration not found"}')
    leave_all()


async def test_while_the_table_cannot_be_read_streams_stay_and_new_ones_are_503(serve: Serve, table: Tables) -> None:
    await table.configure("ann", "one", "AAPL")
    async with proxy(table.endpoint) as between:
        served = await asyncio.to_thread(
            serve,
            AWS_ENDPOINT_URL_DYNAMODB=f"http://127.0.0.1:{between.port}",
            SSE_CONFIG_INTERVAL="0.3",
            SSE_HEARTBEAT_INTERVAL="0.5",
        )
        reply = await _open(served)
        await reply.until("configuration")
        for user, config_id in (("ann", "unknown"), ("bob", "one"), ("ann", "off")):
            before = between.calls["GetItem"]
            path = f"/api/v2/configurations/{config_id}/stream"
            refused = await request(served.port, path, headers={"X-User-ID": user})
            assert (refused.status, await refused.body()) == (404, b'{"detail":"Configuration not found"}')
            assert between.calls["GetItem"] == before + 1
        between.refusing = True
        for path in (ONE, "/api/v2/configurations/unknown/stream", "/api/v2/configurations/one/snapshot"):
            refused = await request(served.port, path, headers={"X-User-ID": "ann"})
            assert refused.status == 503
            assert await refused.body() == b'{"detail":"Configuration store unavailable","retry_after":5}'
        await reply.until("heartbeat")
        await reply.until("heartbeat")
        between.refusing = False
        await table.configure("ann", "one", "MSFT")
        assert (await _next(reply, "configuration", 5))["tickers"] == ["MSFT"]
        reply.close()
    leave_all()
    warned = [json.loads(line)["message"] for line in served.output() if "configurations: " in line]
    assert len(warned) == 1, warned


async def test_tickets_and_tokens_open_streams_and_are_in_no_line_of_the_log(serve: Serve, table: Tables) -> None:
    await table.configure("ann", "one", "AAPL")
    served = await asyncio.to_thread(
        serve, SSE_AUTH="jwt", SSE_JWT_KEY=SECRET, SSE_TICKET_SECRET=SECRET, LOG_LEVEL="DEBUG"
    )
    token = jwt.encode({"sub": "ann", "exp": time.time() + 2.5}, SECRET, "HS256")
    forged = jwt.encode({"sub": "ann", "exp": time.time() + 60}, "x" * 32, "HS256")
    unsigned = jwt.encode({"sub": "ann", "exp": time.time() + 60}, "", "none")
    long = jwt.encode({"sub": "ann", "exp": time.time() + 60, "much": "x" * 8192}, SECRET, "HS256")
    for bad in (forged, unsigned, long):
        refused = await request(served.port, ONE, headers={"Authorization": f"Bearer {bad}"})
        assert (refused.status, await refused.body()) == (401, b'{"detail":"Invalid token"}')
    bearer = {"Authorization": f"Bearer {token}"}
    answer = await request(served.port, "/api/v2/stream/tickets", method="POST", headers=bearer)
    ticket = str((await answer.json())["ticket"])
    by_ticket = await request(served.port, f"{ONE}?ticket={ticket}")
    by_token = await request(served.port, ONE, headers=bearer)
    for path in (f"{ONE}?ticket={ticket}", f"{ONE}?ticket={ticket[:-1]}", f"{ONE}?ticket="):
        refused = await request(served.port, path)
        assert (refused.status, await refused.body()) == (401, b'{"detail":"Invalid ticket"}')
    for reply in (by_ticket, by_token):
        assert reply.status == 200
        assert (await _next(reply, "stream_end", 5))["reason"] == "unauthorized"
    status, _ = await asyncio.to_thread(served.terminate)
    assert status == 0
    lines = served.output()
    for line in lines:
        assert line.isprintable()
        assert set(json.loads(line)) >= {"time", "level", "message"}
    whole = "\n".join(lines)
    for secret in (ticket, token, forged, long, SECRET, unsigned.split(".")[1]):
        assert secret not in whole
    assert whole.count("a token was refused") == 3
    leave_all()


HOSTILE = ["a\n\nevent: x\ndata: y", "a\r\nb", "nul\0nul", "\u2028\u2029\x85", '"}\n{"level":"CRITICAL"', "\x1b[2J"]


async def test_hostile_names_ids_and_places_are_one_event_and_one_line_each(serve: Serve, table: Tables) -> None:
    for text in HOSTILE:
        await table.configure("ann", text, "AAPL", text, name=text)
    served = await asyncio.to_thread(serve, LOG_LEVEL="DEBUG", SSE_CONFIG_INTERVAL="0.3")
    for text in HOSTILE:
        path = f"/api/v2/configurations/{quote(text, safe='')}/stream?last_event_id={quote(text, safe='')}"
        reply = await _open(served, path=path)
        events = await reply.until("configuration")
        assert {event["event"] for event in events} <= {"heartbeat", "resume", "configuration"}
        assert json.loads(events[-1]["data"]) == {"config_id": text, "name": text, "tickers": ["AAPL"]}
        await table.configure("ann", text, "MSFT", name=text + text)
        assert await _next(reply, "configuration") == {"config_id": text, "name": text + text, "tickers": ["MSFT"]}
        reply.close()
    await asyncio.to_thread(served.terminate)
    for line in served.output():
        assert line.isprintable()
        assert json.loads(line)["level"] in {"DEBUG", "INFO"}
    leave_all()
