"""Streams of one's own over real sockets: whose they are, what is in them, and how they follow their configuration."""

import asyncio
import io
import json
import logging
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quartsse.feed.configurations import Saved
from quartsse.hub.clock import iso
from quartsse.telemetry.logs import JsonLines
from tests.processes import free_port
from tests.web.serving import Reply, Service, item, serving

NOW = time.time()
ONE = "/api/v2/configurations/one/stream"
SNAPSHOT = "/api/v2/configurations/one/snapshot"
TICKETS = "/api/v2/stream/tickets"
SECRET = "a secret of at least thirty-two bytes"
ANN = ("ann", "one")
SAVED = {ANN: Saved("one", "Ann's", ("AAPL", "MSFT")), ("bob", "his"): Saved("his", "Bob's", ("TSLA",))}
JWT: dict[str, Any] = {"SSE_AUTH": "jwt", "SSE_JWT_KEY": SECRET}

ITEMS = (
    item("tiingo:1", "AAPL", at=NOW - 60),
    item("tiingo:2", "MSFT", "TSLA", at=NOW - 30, sentiment="negative"),
    item("tiingo:3", "NVDA", at=NOW - 20),
)


def token(seconds: float, user: str = "ann") -> str:
    """A token that expires in so many seconds."""
    return jwt.encode({"sub": user, "exp": time.time() + seconds}, SECRET, "HS256")


def news(events: list[dict[str, str]]) -> list[tuple[str, object]]:
    """Names and what matters, without heartbeats."""
    matters = {"sentiment_update": "ticker", "configuration": "tickers", "stream_end": "reason", "resume": "mode"}
    return [
        (event["event"], json.loads(event["data"])[matters[event["event"]]])
        for event in events
        if event["event"] != "heartbeat"
    ]


async def opened(service: Service, path: str = ONE, **headers: str) -> Reply:
    """Ann's stream, its opening read."""
    reply = await service.get(path, **{"X_User_ID": "ann", **headers})
    await reply.until("configuration")
    return reply


async def following(reply: Reply, count: int) -> list[dict[str, str]]:
    """The next events that are no heartbeats."""
    found: list[dict[str, str]] = []
    while len(found) < count:
        found += [event for event in await reply.events(1) if event["event"] != "heartbeat"]
    return found


# What is in them


async def test_an_opening_has_the_last_updates_of_its_tickers_and_then_the_configuration() -> None:
    async with serving(*ITEMS, saved=SAVED) as service:
        reply = await service.get(ONE, X_User_ID="ann")
        assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        everything = await reply.until("configuration")
        assert everything[0]["event"] == "heartbeat"
        events = [event for event in everything if event["event"] != "heartbeat"]
        assert [event["event"] for event in events] == ["sentiment_update", "sentiment_update", "configuration"]
        assert [json.loads(event["data"])["ticker"] for event in events[:2]] == ["AAPL", "MSFT"]
        assert json.loads(events[2]["data"]) == {"config_id": "one", "name": "Ann's", "tickers": ["AAPL", "MSFT"]}
        assert [event["id"].endswith(".~") for event in everything] == [True] * (len(everything) - 1) + [False]


async def test_live_updates_are_those_of_its_tickers_and_totals_are_none_of_them() -> None:
    async with serving(*ITEMS, saved=SAVED, SSE_METRICS_INTERVAL="0.1") as service:
        reply = await opened(service)
        service.source.put(item("tiingo:4", "TSLA", "NVDA", at=NOW))
        service.source.put(item("tiingo:5", "TSLA", "MSFT", at=NOW))
        service.source.put(item("tiingo:6", "AAPL", at=NOW))
        assert news(await following(reply, 2)) == [("sentiment_update", "MSFT"), ("sentiment_update", "AAPL")]


@pytest.mark.parametrize(
    ("query", "tickers"),
    [("", ["AAPL", "MSFT"]), ("?tickers=*", ["AAPL", "MSFT"]), ("?tickers=MSFT,TSLA", ["MSFT"]), ("?tickers=TSLA", [])],
)
async def test_what_is_asked_for_narrows_a_configuration_and_never_widens_it(query: str, tickers: list[str]) -> None:
    async with serving(*ITEMS, saved=SAVED) as service:
        events = await (await service.get(ONE + query, X_User_ID="ann")).until("configuration")
        assert [ticker for name, ticker in news(events) if name == "sentiment_update"] == tickers
        state: Any = await (await service.get(SNAPSHOT + query, X_User_ID="ann")).json()
        assert [update["ticker"] for update in state["sentiment_updates"]] == tickers


async def test_a_snapshot_has_the_configuration_and_its_tickers_only() -> None:
    async with serving(*ITEMS, saved=SAVED) as service:
        state: Any = await (await service.get(SNAPSHOT, X_User_ID="ann")).json()
        assert state["configuration"] == {"config_id": "one", "name": "Ann's", "tickers": ["AAPL", "MSFT"]}
        assert [update["ticker"] for update in state["sentiment_updates"]] == ["AAPL", "MSFT"]
        assert {ticker for quarter in state["history"] for ticker in quarter["tickers"]} == {"AAPL", "MSFT"}
        reply = await service.get(ONE, X_User_ID="ann", Last_Event_ID=state["id"])
        assert news(await reply.until("configuration")) == [("resume", "exact"), ("configuration", ["AAPL", "MSFT"])]


async def test_who_comes_from_another_instance_gets_the_state_and_each_item_in_its_order() -> None:
    async with serving(*ITEMS, saved=SAVED, SSE_RESUME_MARGIN="0") as service:
        reply = await opened(service)
        place = f"evt_h1.elsewhere.1.{int(time.time() * 1000) + 1}"
        for score in (0.1, 0.2):
            service.source.put(item("tiingo:9", "AAPL", at=NOW, score=score))
            await following(reply, 1)
        reply = await service.get(ONE, X_User_ID="ann", Last_Event_ID=place)
        events = [json.loads(one["data"]) for one in await reply.until("configuration") if one["event"] != "heartbeat"]
        assert events[0] == {"mode": "overlap", "replayed": 2}
        assert [(one["ticker"], one["score"]) for one in events[1:-1]] == [("MSFT", -0.8), ("AAPL", 0.1), ("AAPL", 0.2)]


# Whose they are


@pytest.mark.parametrize("kind", ["stream", "snapshot"])
async def test_unknown_inactive_and_foreign_ones_are_answered_alike_after_one_read_each(kind: str) -> None:
    async with serving(*ITEMS, saved=SAVED) as service:
        answers = []
        for config_id, user in (("unknown", "ann"), ("his", "ann"), ("one", "bob"), ("one", "nobody")):
            before = service.store.reads
            reply = await service.get(f"/api/v2/configurations/{config_id}/{kind}", X_User_ID=user)
            reply.headers.pop("date", None)
            answers.append((reply.status, reply.headers, await reply.body(), service.store.reads - before))
        assert answers == [answers[0]] * 4
        assert answers[0][0] == 404
        assert answers[0][2:] == (b'{"detail":"Configuration not found"}', 1)
        assert service.parts.slots.taken == 0


@pytest.mark.parametrize("path", [ONE, SNAPSHOT])
async def test_a_store_that_cannot_be_read_is_503_and_never_404(path: str) -> None:
    async with serving(*ITEMS, saved=SAVED) as service:
        service.store.broken = True
        reply = await service.get(path, X_User_ID="ann")
        assert (reply.status, reply.headers["retry-after"]) == (503, "5")
        assert await reply.body() == b'{"detail":"Configuration store unavailable","retry_after":5}'
        assert service.parts.slots.taken == 0


@pytest.mark.parametrize("headers", [{}, {"X_User_ID": ""}, {"X_User_ID": "x" * 257}])
async def test_without_a_user_there_is_nothing(headers: dict[str, str]) -> None:
    async with serving(*ITEMS, saved=SAVED, SSE_TICKET_SECRET=SECRET) as service:
        for path, method in ((ONE, "GET"), (SNAPSHOT, "GET"), (TICKETS, "POST")):
            reply = await service.get(path, method=method, **headers)
            assert (reply.status, await reply.body()) == (401, b'{"detail":"Missing user identification"}')
            assert "www-authenticate" not in reply.headers
        assert service.store.reads == 0


async def test_with_tokens_the_header_is_nobody_and_a_refusal_says_what_is_wanted() -> None:
    async with serving(*ITEMS, saved=SAVED, SSE_TICKET_SECRET=SECRET, **JWT) as service:
        for path, method in ((ONE, "GET"), (SNAPSHOT, "GET"), (TICKETS, "POST")):
            reply = await service.get(path, method=method, X_User_ID="ann")
            assert (reply.status, await reply.body()) == (401, b'{"detail":"Missing user identification"}')
            assert reply.headers["www-authenticate"] == "Bearer"
            reply = await service.get(path, method=method, Authorization=f"Bearer {token(-60)}")
            assert (reply.status, await reply.body()) == (401, b'{"detail":"Invalid token"}')
            assert reply.headers["www-authenticate"] == "Bearer"
        reply = await service.get(ONE, X_User_ID="bob", Authorization=f"Bearer {token(60)}")
        assert news(await reply.until("configuration"))[-1] == ("configuration", ["AAPL", "MSFT"])


async def test_without_a_users_table_or_a_ticket_secret_both_are_said_to_be_off() -> None:
    off = b'{"detail":"Configuration streams are not enabled on this server."}'
    no_tickets = b'{"detail":"Tickets are not enabled on this server."}'
    async with serving(*ITEMS) as service:
        for path, method, body in (
            (ONE, "GET", off),
            (SNAPSHOT, "GET", off),
            (TICKETS, "POST", no_tickets),
            (f"{ONE}?ticket=x", "GET", no_tickets),
        ):
            reply = await service.get(path, method=method, X_User_ID="ann")
            assert (reply.status, await reply.body()) == (501, body)


async def test_keys_that_cannot_be_had_are_503_and_for_an_event_source_that_asks_for_it_a_polite_end() -> None:
    keys = f"http://127.0.0.1:{free_port()}/keys"
    async with serving(*ITEMS, saved=SAVED, SSE_AUTH="jwt", SSE_JWT_JWKS_URL=keys) as service:
        headers = {"Authorization": f"Bearer {jwt.encode({'sub': 'ann'}, _private_key(), 'ES256', {'kid': 'x'})}"}
        reply = await service.get(ONE, **headers)
        assert (reply.status, reply.headers["retry-after"]) == (503, "5")
        assert await reply.body() == b'{"detail":"Token keys unavailable","retry_after":5}'
        reply = await service.get(f"{ONE}?on_limit=retry", **headers)
        assert reply.status == 200
        body = (await reply.body()).decode()
        assert body.startswith("retry: 5000\n\n")
        assert '"reason":"unavailable","retry_ms":5000' in body
        assert body.count("event: ") == 1


async def test_a_store_that_cannot_be_read_may_be_a_polite_end_too() -> None:
    async with serving(*ITEMS, saved=SAVED) as service:
        service.store.broken = True
        reply = await service.get(f"{ONE}?on_limit=retry", X_User_ID="ann")
        assert reply.status == 200
        assert b'"reason":"unavailable","retry_ms":5000' in await reply.body()


# Tickets


async def test_a_ticket_opens_one_stream_of_the_user_who_asked_for_it() -> None:
    async with serving(*ITEMS, saved=SAVED, SSE_TICKET_SECRET=SECRET) as service:
        given_out = await service.get(TICKETS, method="POST", X_User_ID="ann")
        assert (given_out.status, given_out.headers["cache-control"]) == (201, "no-store")
        body: Any = await given_out.json()
        assert list(body) == ["ticket", "expires_in"]
        assert body["expires_in"] == 30
        reply = await service.get(f"{ONE}?ticket={body['ticket']}")
        assert news(await reply.until("configuration"))[-1] == ("configuration", ["AAPL", "MSFT"])
        again = await service.get(f"{ONE}?ticket={body['ticket']}", X_User_ID="ann")
        assert (again.status, await again.body()) == (401, b'{"detail":"Invalid ticket"}')
        body = await (await service.get(TICKETS, method="POST", X_User_ID="bob")).json()
        foreign = await service.get(f"{ONE}?ticket={body['ticket']}", X_User_ID="ann")
        assert foreign.status == 404, "the ticket says who it is, whatever else does"


async def test_the_head_of_a_stream_is_that_of_the_answer_and_uses_no_ticket_up() -> None:
    async with serving(*ITEMS, saved=SAVED, SSE_TICKET_SECRET=SECRET) as service:
        body: Any = await (await service.get(TICKETS, method="POST", X_User_ID="ann")).json()
        for path, status in ((ONE, 200), (ONE.replace("one", "his"), 404), (ONE, 200)):
            assert (await service.get(f"{path}?ticket={body['ticket']}", method="HEAD")).status == status
        assert service.parts.slots.taken == 0
        reply = await service.get(f"{ONE}?ticket={body['ticket']}")
        assert reply.status == 200
        assert (await service.get(f"{ONE}?ticket={body['ticket']}", method="HEAD")).status == 401
        service.store.broken = True
        assert (await service.get(ONE, method="HEAD", X_User_ID="ann")).status == 503


async def test_two_tickets_are_one_too_many() -> None:
    async with serving(*ITEMS, saved=SAVED, SSE_TICKET_SECRET=SECRET) as service:
        body: Any = await (await service.get(TICKETS, method="POST", X_User_ID="ann")).json()
        reply = await service.get(f"{ONE}?ticket={body['ticket']}&ticket=x")
        assert (reply.status, await reply.json()) == (400, {"detail": "ticket: given 2 times, may be given once"})


async def test_a_ticket_is_nothing_for_a_snapshot() -> None:
    async with serving(*ITEMS, saved=SAVED, SSE_TICKET_SECRET=SECRET) as service:
        body: Any = await (await service.get(TICKETS, method="POST", X_User_ID="ann")).json()
        assert (await service.get(f"{SNAPSHOT}?ticket={body['ticket']}")).status == 401


async def test_a_stream_ends_with_its_token_also_when_a_ticket_stood_for_it() -> None:
    async with serving(*ITEMS, saved=SAVED, SSE_TICKET_SECRET=SECRET, **JWT) as service:
        for with_ticket in (False, True):
            expiry = time.time() + 0.6
            headers = {"Authorization": f"Bearer {token(0.6)}"}
            path = ONE
            if with_ticket:
                body: Any = await (await service.get(TICKETS, method="POST", **headers)).json()
                headers, path = {}, f"{ONE}?ticket={body['ticket']}"
            reply = await service.get(path, **headers)
            assert reply.status == 200
            assert news(await reply.until("stream_end"))[-1] == ("stream_end", "unauthorized")
            assert -0.05 < time.time() - expiry < 0.3
            assert await reply.body() == b""


async def test_a_token_that_never_seems_to_end_is_no_trouble() -> None:
    async with serving(*ITEMS, saved=SAVED, **JWT) as service:
        reply = await service.get(ONE, Authorization=f"Bearer {token(2.0**52)}")
        assert news(await reply.until("configuration"))[-1][0] == "configuration"


# Following


async def test_new_tickers_come_with_their_last_updates_and_old_ones_stop_without_a_reconnect() -> None:
    async with serving(*ITEMS, saved=SAVED, SSE_CONFIG_INTERVAL="0.1") as service:
        reply = await opened(service)
        service.store.saved[ANN] = Saved("one", "Ann's", ("TSLA", "MSFT", "NVDA"))
        change = await following(reply, 3)
        assert news(change) == [
            ("configuration", ["TSLA", "MSFT", "NVDA"]),
            ("sentiment_update", "NVDA"),
            ("sentiment_update", "TSLA"),
        ]
        service.source.put(item("tiingo:4", "AAPL", at=NOW))
        service.source.put(item("tiingo:5", "MSFT", "TSLA", "AAPL", at=NOW))
        assert news(await following(reply, 2)) == [("sentiment_update", "MSFT"), ("sentiment_update", "TSLA")]


async def test_a_new_name_is_told_and_nothing_else() -> None:
    async with serving(*ITEMS, saved=SAVED, SSE_CONFIG_INTERVAL="0.1") as service:
        reply = await opened(service)
        service.store.saved[ANN] = Saved("one", "renamed", ("AAPL", "MSFT"))
        service.source.put(item("tiingo:4", "AAPL", at=NOW))
        found = sorted(news(await following(reply, 2)))
        assert found == [("configuration", ["AAPL", "MSFT"]), ("sentiment_update", "AAPL")]


async def test_a_change_keeps_to_what_the_stream_asked_for() -> None:
    async with serving(*ITEMS, saved=SAVED, SSE_CONFIG_INTERVAL="0.1") as service:
        reply = await opened(service, f"{ONE}?tickers=MSFT,TSLA")
        service.store.saved[ANN] = Saved("one", "Ann's", ("NVDA", "TSLA"))
        assert news(await following(reply, 2)) == [("configuration", ["NVDA", "TSLA"]), ("sentiment_update", "TSLA")]


@pytest.mark.parametrize("read", [0, 1, 2, 3])
async def test_a_reader_cut_off_anywhere_in_a_change_has_all_of_it_after_coming_back(read: int) -> None:
    async with serving(*ITEMS, saved=SAVED, SSE_CONFIG_INTERVAL="0.1") as service:
        reply = await service.get(ONE, X_User_ID="ann")
        seen = await reply.until("configuration")
        other = await opened(service)
        service.store.saved[ANN] = Saved("one", "Ann's", ("MSFT", "NVDA", "TSLA"))
        await following(other, 3)
        seen += await following(reply, read)
        reply.close()
        missed = [item(f"tiingo:9{number}", "MSFT", at=NOW + number) for number in (1, 2)]
        for made in missed:
            service.source.put(made)
            await other.until("sentiment_update")
        back = await service.get(ONE, X_User_ID="ann", Last_Event_ID=seen[-1]["id"])
        seen += await back.until("configuration")
        assert ("resume", "exact") in news(seen)
        updates = [json.loads(event["data"]) for event in seen if event["event"] == "sentiment_update"]
        had = {(update["ticker"], update["timestamp"]) for update in updates}
        assert had >= {("MSFT", iso(made.time)) for made in missed}, "nothing is folded"
        state: Any = await (await service.get(SNAPSHOT, X_User_ID="ann")).json()
        assert had >= {(update["ticker"], update["timestamp"]) for update in state["sentiment_updates"]}


async def test_a_change_while_a_reader_is_away_comes_with_the_new_tickers_last_updates_too() -> None:
    async with serving(*ITEMS, saved=SAVED, SSE_CONFIG_INTERVAL="0.1") as service:
        reply = await service.get(ONE, X_User_ID="ann")
        last = (await reply.until("configuration"))[-1]["id"]
        reply.close()
        await _until_nobody(service)
        service.store.saved[ANN] = Saved("one", "Ann's", ("AAPL", "NVDA"))
        back = await service.get(ONE, X_User_ID="ann", Last_Event_ID=last)
        assert ("sentiment_update", "NVDA") in news(await back.until("configuration"))


async def test_a_configuration_that_is_gone_ends_its_streams_and_is_unknown_after_that() -> None:
    async with serving(*ITEMS, saved=SAVED, SSE_CONFIG_INTERVAL="0.1") as service:
        replies = [await opened(service) for _ in range(3)]
        bystander = await service.get("/api/v2/configurations/his/stream", X_User_ID="bob")
        await bystander.until("configuration")
        del service.store.saved[ANN]
        for reply in replies:
            assert news(await reply.until("stream_end")) == [("stream_end", "configuration_removed")]
            assert await reply.body() == b""
        assert (await service.get(ONE, X_User_ID="ann")).status == 404
        service.source.put(item("tiingo:4", "TSLA", at=NOW))
        assert news(await following(bystander, 1)) == [("sentiment_update", "TSLA")]


async def test_a_store_that_cannot_be_read_for_a_while_changes_nothing_for_open_streams() -> None:
    async with serving(*ITEMS, saved=SAVED, SSE_CONFIG_INTERVAL="0.05") as service:
        reply = await opened(service)
        service.store.broken = True
        reads = service.store.reads
        async with asyncio.timeout(3):
            while service.store.reads < reads + 3:
                await asyncio.sleep(0.01)
        service.source.put(item("tiingo:4", "AAPL", at=NOW))
        assert news(await following(reply, 1)) == [("sentiment_update", "AAPL")]
        service.store.saved[ANN], service.store.broken = Saved("one", "Ann's", ("TSLA",)), False
        assert news(await following(reply, 1)) == [("configuration", ["TSLA"])]


# The order of checks


async def test_the_first_of_several_refusals_is_always_the_same_one() -> None:
    """Every request here would be refused for its own reason and for all those below it."""
    async with serving(
        *ITEMS, saved=SAVED, SSE_MAX_CONNECTIONS="2", SSE_MAX_CONNECTIONS_PER_USER="1", SSE_TICKET_SECRET=SECRET
    ) as service:
        nobody = {"Accept": "application/json"}
        bad, good = f"{ONE}?tickers=$", ONE
        foreign = "/api/v2/configurations/unknown/stream"
        first, second = await opened(service), await service.get("/api/v2/stream")
        service.store.broken = service.parts.streams.closing = True
        assert (await service.get(bad, method="POST", **nobody)).status == 405
        assert (await service.get(bad, **nobody)).status == 400
        assert (await service.get(good, **nobody)).status == 406
        assert await _detail(service, good) == (503, "Server is shutting down. Reconnect.")
        service.parts.streams.closing = False
        assert await _detail(service, good) == (401, "Missing user identification")
        assert await _detail(service, f"{good}?ticket=x") == (401, "Invalid ticket")
        assert await _detail(service, good, X_User_ID="ann") == (503, "Connection limit reached. Try again later.")
        second.close()
        await _until_open(service, 1)
        assert await _detail(service, foreign, X_User_ID="ann") == (429, "Too many streams for this client.")
        first.close()
        await _until_open(service, 0)
        assert await _detail(service, foreign, X_User_ID="ann") == (503, "Configuration store unavailable")
        service.store.broken = False
        assert await _detail(service, foreign, X_User_ID="ann") == (404, "Configuration not found")
    async with serving(SSE_MAX_CONNECTIONS="1") as service:
        first = await service.get("/api/v2/stream")
        assert (await _detail(service, ONE, X_User_ID="ann"))[0] == 503
        first.close()
        await _until_open(service, 0)
        assert (await _detail(service, ONE, X_User_ID="ann"))[0] == 501


# Whatever comes from outside


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged, as it is written."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonLines())
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield written
    root.removeHandler(handler)
    root.setLevel(level)


_HOSTILE = st.text(st.characters(codec="utf-8") | st.sampled_from('\n\r\0\x7f\u2028"\\')) | st.just("a\n\nevent: x")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=_HOSTILE,
    config_id=_HOSTILE.filter(lambda text: "/" not in text and text not in {"", ".", ".."}),
    seen=_HOSTILE,
)
async def test_whatever_names_and_ids_hold_each_event_and_each_log_line_is_well_formed(
    lines: io.StringIO, name: str, config_id: str, seen: str
) -> None:
    user = "".join(character for character in name if character.isprintable())[:60] or "ann"
    saved = {(user, config_id): Saved(config_id, name, ("AAPL",))}
    path = f"/api/v2/configurations/{quote(config_id, safe='')}/stream?last_event_id={quote(seen, safe='')}"
    async with serving(*ITEMS, saved=saved) as service:
        reply = await service.get(path, X_User_ID=user.strip(" \t").encode().decode("latin-1") or "ann")
        if user != user.strip(" \t") or not user.strip(" \t"):
            assert reply.status == 404
            return
        assert reply.status == 200
        body = b""
        async for chunk in reply.chunks():
            body += chunk
            if b"event: configuration\n" in body and body.endswith(b"\n\n"):
                break
    for block in body.decode().removesuffix("\n\n").split("\n\n")[1:]:
        assert [line.partition(": ")[0] for line in block.split("\n")] == ["id", "event", "data"]
    assert "\r" not in body.decode()
    assert json.loads(body.decode().split("data: ")[-1]) == {"config_id": config_id, "name": name, "tickers": ["AAPL"]}
    for line in lines.getvalue().splitlines():
        assert line.isprintable()
        assert set(json.loads(line)) >= {"time", "level", "message"}


@pytest.mark.parametrize(
    "head",
    [
        b"GET /api/v2/configurations/%0A%0Aevent:%20x/stream HTTP/1.1\r\nX-User-ID: ann\r\n",
        b"GET /api/v2/configurations/%00/stream HTTP/1.1\r\nX-User-ID: ann\r\n",
        b"GET /api/v2/configurations/%ff%fe/stream HTTP/1.1\r\nX-User-ID: ann\r\n",
        b"GET /api/v2/configurations/one/stream%0A{} HTTP/1.1\r\nX-User-ID: ann\r\n",
        b"GET /api/v2/configurations/one/stream HTTP/1.1\r\nX-User-ID: a\0b\r\n",
        b"GET /api/v2/configurations/one/stream HTTP/1.1\r\nX-User-ID: \xff\xfe\r\n",
        b"GET /api/v2/configurations/one/stream HTTP/1.1\r\nX-User-ID: ann\r\nX-User-ID: bob\r\n",
        b"GET /api/v2/configurations/one/stream HTTP/1.1\r\nX-User-ID: ann\r\n event: x\r\n",
        b"GET /api/v2/configurations/one/stream HTTP/1.1\r\nX-User-ID: ann\r\nLast-Event-ID: a\0b\r\n",
        b"GET /api/v2/configurations/one/stream\0 HTTP/1.1\r\nX-User-ID: ann\r\n",
        b"GET /api/v2/configurations/../one/stream HTTP/1.1\r\nX-User-ID: ann\r\n",
        b"GET /api/v2/configurations/" + b"x" * 5000 + b"/stream HTTP/1.1\r\nX-User-ID: ann\r\n",
    ],
    ids=lambda head: head[:70].decode("latin-1"),
)
async def test_a_hostile_request_gets_a_refusal_and_no_line_of_its_own(lines: io.StringIO, head: bytes) -> None:
    async with serving(*ITEMS, saved=SAVED) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(head + b"Host: localhost\r\nConnection: close\r\n\r\n")
        try:
            answer = await asyncio.wait_for(reader.read(), 5)
        finally:
            writer.close()
        assert answer.split(b" ")[1] in {b"400", b"401", b"404"}
        assert b"event: x" not in answer
        assert service.parts.slots.taken == 0
    for line in lines.getvalue().splitlines():
        assert line.isprintable()
        assert json.loads(line)["level"] != "ERROR"


async def _detail(service: Service, path: str, **headers: str) -> tuple[int, object]:
    reply = await service.get(path, **headers)
    return reply.status, (await reply.json())["detail"]


async def _until_open(service: Service, count: int) -> None:
    async with asyncio.timeout(3):
        while service.parts.slots.taken != count:
            await asyncio.sleep(0.01)


async def _until_nobody(service: Service) -> None:
    await _until_open(service, 0)


def _private_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())
