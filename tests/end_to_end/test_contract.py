"""The contract, from outside: what any client may rely on, whatever stands in front.

`QUARTSSE_URL=https://… pytest tests/end_to_end/test_contract.py` holds a deployment to it; nothing is written. What it
needs to know of a deployment with users: `QUARTSSE_HEADERS`, a JSON object that says who the user is
(`{"Authorization": "Bearer …"}`), and `QUARTSSE_CONFIGURATION`, the id of one of that user's configurations.
Without these variables the service is started here, alone and behind whatever stands in front elsewhere.
"""

import asyncio
import http.client
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests import schemas
from tests.dynamodb import Tables, tables_at
from tests.end_to_end import targets

ID = re.compile(r"evt_[A-Za-z0-9._~-]{1,124}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
FEEDS = {"starting", "live", "stale", "idle"}
STREAM = "/api/v2/stream"
EVERYTHING = f"{STREAM}?tickers=*"
FIELDS = {
    "heartbeat": {"timestamp", "connections", "uptime_seconds", "feed", "feed_age_seconds"},
    "metrics": {
        "total",
        "positive",
        "neutral",
        "negative",
        "by_tag",
        "rate_last_hour",
        "rate_last_24h",
        "timestamp",
    },
    "sentiment_update": {
        "ticker",
        "score",
        "label",
        "confidence",
        "source",
        "timestamp",
        "count",
        "mean_score",
    },
    "configuration": {"config_id", "name", "tickers"},
    "resume": {"mode", "replayed"},
}
OPENING_SECONDS = 20.0
PLACES: Mapping[str, Callable[..., Any]] = {
    "service": targets.served,
    "nginx": targets.behind_nginx,
    "haproxy": targets.behind_haproxy,
    "adapter": targets.behind_the_adapter,
}
HERE = {
    "SSE_AUTH": "header",
    "SSE_POLL_INTERVAL": "0.25",
    "SSE_HEARTBEAT_INTERVAL": "0.5",
    "SSE_TICKET_SECRET": "thirty-two-bytes-and-a-few-more-for-tickets",
    "SSE_CORS_ORIGINS": "https://app.example.com",
    "SSE_ALLOWED_HOSTS": "*",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One event, and when it arrived."""

    name: str
    id: str
    data: Any
    at: float


@dataclass
class Answer:
    """An answer whose body is still being read."""

    status: int
    headers: Mapping[str, str]
    response: http.client.HTTPResponse

    def json(self) -> Any:
        """The whole body."""
        return json.loads(self.response.read())

    def events(self) -> Iterator[Event]:
        """The events, as they come."""
        fields: dict[str, str] = {}
        while line := self.response.readline().decode():
            name, _, value = line.rstrip("\n").partition(": ")
            if value:
                assert name not in fields, f"{name} twice in one event"
                fields[name] = value
            elif "event" in fields:
                yield Event(fields["event"], fields["id"], json.loads(fields["data"]), time.time())
                fields = {}

    def until(self, name: str) -> list[Event]:
        """The events up to the next one of a name."""
        found: list[Event] = []
        for event in self.events():
            found.append(event)
            if event.name == name:
                return found
        raise AssertionError(f"the stream ended without {name}: {found}")


@dataclass
class Target:
    """Where the contract is held: an address, who we are there, and the tables if they are ours."""

    url: str
    user: Mapping[str, str]
    configuration: str | None
    tables: Tables | None = None
    silence: float = 60.0
    """Seconds without a byte after which a stream is given up here."""
    opened: list[http.client.HTTPConnection] = field(default_factory=list)
    """A stream's connection closes with the last word of its Answer, so a test that wants it open keeps that."""

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Send a request. `Last_Event_ID` is `Last-Event-ID`."""
        address = urlsplit(self.url)
        secure = address.scheme == "https"
        make = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = make(address.hostname or "", address.port, timeout=self.silence)
        self.opened.append(connection)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, address.path.rstrip("/") + path, headers=named)
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, response)

    def stream(self, path: str = STREAM, **headers: str) -> Answer:
        """Open a stream."""
        answer = self.ask(path, **headers)
        assert answer.status == 200
        return answer


@contextmanager
def _here(place: str, dynamodb: str, folder: Path) -> Iterator[Target]:
    """The service here, with a few items and a configuration in its tables."""
    with tables_at(dynamodb) as tables:
        asyncio.run(_fill(tables))
        with PLACES[place](tables.environment() | HERE, folder) as url:
            yield Target(url, {"X_User_ID": "ann"}, "one", tables, silence=5)


async def _fill(tables: Tables) -> None:
    await tables.put("tiingo:1", "AAPL", "MSFT", sentiment="positive", score=0.9)
    await tables.put("tiingo:2", "AAPL", sentiment="negative", score=0.7, age=60)
    await tables.put("finnhub:3", "BRK.B", sentiment="neutral", score=0.6, age=3600)
    await tables.configure("ann", "one", "AAPL", "BRK.B", name="Mine")


@pytest.fixture(scope="module", params=["deployment"] if os.environ.get("QUARTSSE_URL") else list(PLACES))
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Each place in turn."""
    if request.param == "deployment":
        user = json.loads(os.environ.get("QUARTSSE_HEADERS", "{}"))
        yield Target(os.environ["QUARTSSE_URL"], user, os.environ.get("QUARTSSE_CONFIGURATION"))
        return
    dynamodb = request.getfixturevalue("dynamodb")
    with _here(request.param, dynamodb, tmp_path_factory.mktemp(request.param)) as target:
        yield target


@pytest.fixture
def target(place: Target) -> Iterator[Target]:
    """The place, with every connection of the test closed afterwards."""
    yield place
    for connection in place.opened:
        connection.close()
    place.opened.clear()


@pytest.fixture
def private(target: Target) -> str:
    """The path of the configuration, where it is known."""
    if target.configuration is None:
        pytest.skip("set QUARTSSE_CONFIGURATION and QUARTSSE_HEADERS")
    return f"/api/v2/configurations/{target.configuration}"


@pytest.fixture
def tables(target: Target) -> Tables:
    """The tables, where they may be written to."""
    if target.tables is None:
        pytest.skip("a deployment's tables are not written to")
    return target.tables


def check(event: Event) -> None:
    """Hold one event to what the contract says of its kind."""
    schemas.validate(event.name, {"event": event.name, "id": event.id, "data": json.dumps(event.data)})
    assert ID.fullmatch(event.id)
    assert set(event.data) == FIELDS[event.name]
    if "timestamp" in event.data:
        assert TIME.fullmatch(event.data["timestamp"])
    match event.name:
        case "heartbeat":
            assert event.data["feed"] in FEEDS
            assert event.data["connections"] >= 1
            assert event.data["uptime_seconds"] >= 0
        case "metrics":
            totals = event.data
            assert totals["total"] == totals["positive"] + totals["neutral"] + totals["negative"]
            assert totals["rate_last_hour"] >= 0
            assert len(totals["by_tag"]) <= 200
        case "sentiment_update":
            assert event.data["label"] in {"positive", "neutral", "negative"}
            assert -1 <= event.data["score"] <= 1
            assert 0 <= event.data["confidence"] <= 1
            assert event.data["count"] >= 1


def test_health_is_two_hundred(target: Target) -> None:
    answer = target.ask("/health")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    answer.json()


def test_the_feeds_health_says_its_state(target: Target) -> None:
    answer = target.ask("/health/feed")
    state = answer.json()["state"]
    assert answer.status == (503 if state == "stale" else 200)
    assert state in FEEDS


def test_a_streams_head_is_one_that_no_proxy_holds_back(target: Target) -> None:
    headers = target.stream().headers
    assert headers["content-type"].replace(" ", "") in {"text/event-stream", "text/event-stream;charset=utf-8"}
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-content-type-options"] == "nosniff"
    assert "content-encoding" not in headers
    assert "content-length" not in headers


def test_a_stream_begins_with_retry_and_a_heartbeat_and_its_opening_ends_with_metrics(target: Target) -> None:
    answer = target.stream(EVERYTHING)
    assert re.fullmatch(rb"retry: \d+\n", answer.response.readline())
    events = answer.until("metrics")
    assert events[0].name == "heartbeat"
    for event in events:
        check(event)
    tickers = [event.data["ticker"] for event in events if event.name == "sentiment_update"]
    assert len(tickers) == len(set(tickers)), "the last update of every ticker, once"


def test_without_a_filter_there_are_no_updates(target: Target) -> None:
    assert "sentiment_update" not in {event.name for event in target.stream().until("metrics")}


def test_a_filter_is_whatever_its_case(target: Target, tables: Tables) -> None:
    events = target.stream(f"{STREAM}?tickers=aapl,brk.b").until("metrics")
    updates = {event.data["ticker"]: event.data for event in events if event.name == "sentiment_update"}
    assert set(updates) == {"AAPL", "BRK.B"}
    assert (updates["AAPL"]["label"], updates["AAPL"]["score"], updates["AAPL"]["count"]) == ("positive", 0.9, 2)
    assert (updates["BRK.B"]["source"], updates["BRK.B"]["score"]) == ("finnhub", 0.0)


def test_heartbeats_come_by_themselves_and_at_once(target: Target) -> None:
    answer = target.stream()
    answer.until("metrics")
    beats = [answer.until("heartbeat")[-1] for _ in range(2 if target.tables else 1)]
    for beat in beats:
        check(beat)
        made = datetime.fromisoformat(beat.data["timestamp"]).timestamp()
        assert beat.at - made < (0.5 if target.tables else 10), "held back on the way"


def test_what_is_written_is_on_the_stream_within_a_poll(target: Target, tables: Tables) -> None:
    answer = target.stream(f"{STREAM}?tickers=NVDA")
    answer.until("metrics")
    key = asyncio.run(tables.put("tiingo:new", "NVDA", sentiment="positive", score=0.8))
    written = time.time()
    update = answer.until("sentiment_update")[-1]
    check(update)
    assert update.at - written < 1
    asyncio.run(tables.delete(key))


def test_a_reader_who_comes_back_misses_nothing(target: Target, tables: Tables) -> None:
    path = f"{STREAM}?tickers=TSLA"
    last = target.stream(path).until("metrics")[-1]
    key = asyncio.run(tables.put("tiingo:away", "TSLA", sentiment="negative", score=0.8))
    watching = target.stream(path)
    events: list[Event] = []
    while not any(event.name == "sentiment_update" for event in events):
        events = watching.until("heartbeat")
    again = target.stream(path, Last_Event_ID=last.id).until("metrics")
    resume = next(event for event in again if event.name == "resume")
    assert resume.data == {"mode": "exact", "replayed": 1}
    replayed = [event for event in again if event.name == "sentiment_update"]
    seen = next(event for event in events if event.name == "sentiment_update")
    assert [event.id.partition(".")[0] for event in replayed] == [seen.id.partition(".")[0]]
    asyncio.run(tables.delete(key))


def test_an_id_may_come_as_header_or_in_the_query_and_the_header_wins(target: Target) -> None:
    last = target.stream().until("metrics")[-1]
    by_query = target.stream(f"{STREAM}?last_event_id={last.id}").until("resume")[-1]
    assert by_query.data["mode"] in {"exact", "overlap", "snapshot"}
    by_both = target.stream(f"{STREAM}?last_event_id=evt_nonsense", Last_Event_ID=last.id).until("resume")[-1]
    check(by_both)
    if target.tables:
        assert by_both.data["mode"] == "exact"


@pytest.mark.parametrize("nonsense", ["evt_nonsense", "x" * 300, "evt_0-0.a.0.0"])
def test_an_id_that_says_nothing_gives_the_current_state(target: Target, nonsense: str) -> None:
    events = target.stream(EVERYTHING, Last_Event_ID=nonsense).until("metrics")
    assert next(event for event in events if event.name == "resume").data["mode"] == "snapshot"


def test_a_head_request_takes_no_slot(target: Target) -> None:
    before = target.ask(f"{STREAM}/status").json()["connections"]
    answers = [target.ask(STREAM, "HEAD") for _ in range(3)]
    assert {answer.status for answer in answers} == {200}
    assert {answer.headers["content-type"].partition(";")[0] for answer in answers} == {"text/event-stream"}
    if target.tables:
        assert target.ask(f"{STREAM}/status").json()["connections"] <= before


def test_the_status_adds_up(target: Target) -> None:
    watching = target.stream()
    watching.until("heartbeat")
    status = target.ask(f"{STREAM}/status").json()
    schemas.validator({"$ref": "#/components/schemas/Status"}).validate(status)
    watching.response.close()
    assert status["connections"] >= (1 if target.tables else 0), "behind one address there may be many instances"
    assert status["connections"] + status["available"] == status["max_connections"]
    assert {"uptime_seconds", "version", "instance", "feed"} <= set(status)
    assert set(status["feed"]) >= {
        "state",
        "age_seconds",
        "items",
        "sweep_seconds",
        "read_units_per_minute",
        "lateness_seconds",
    }


def test_a_snapshot_can_be_resumed_from_and_asked_for_again(target: Target) -> None:
    answer = target.ask(f"{STREAM}/snapshot?tickers=*")
    assert answer.status == 200
    snapshot = answer.json()
    schemas.validator({"$ref": "#/components/schemas/Snapshot"}).validate(snapshot)
    assert set(snapshot) == {"id", "feed", "metrics", "sentiment_updates", "history"}
    assert ID.fullmatch(snapshot["id"])
    assert set(snapshot["metrics"]) == FIELDS["metrics"]
    assert all(set(update) == FIELDS["sentiment_update"] for update in snapshot["sentiment_updates"])
    quarters = snapshot["history"]
    assert all(set(quarter) == {"start", "positive", "neutral", "negative", "tickers"} for quarter in quarters)
    assert all(datetime.fromisoformat(quarter["start"]).astimezone(UTC).minute % 15 == 0 for quarter in quarters)
    assert answer.headers["etag"]
    resumed = target.stream(EVERYTHING, Last_Event_ID=snapshot["id"]).until("resume")[-1]
    assert resumed.data["mode"] in ({"exact"} if target.tables else {"exact", "overlap", "snapshot"})


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("tickers=", "tickers"),
        ("tickers=A;B", "tickers"),
        ("tickers=" + "A," * 50 + "A", "tickers"),
        ("tickers=A&tickers=B", "tickers"),
        ("on_limit=never", "on_limit"),
    ],
)
def test_a_parameter_that_cannot_be_is_named(target: Target, query: str, named: str) -> None:
    answer = target.ask(f"{STREAM}?{query}")
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/json"
    assert named in answer.json()["detail"]


def test_a_wrong_method_is_told_the_right_ones(target: Target) -> None:
    answer = target.ask(STREAM, "DELETE")
    assert answer.status == 405
    assert "GET" in answer.headers["allow"]
    assert answer.json()["detail"]


def test_who_takes_no_event_streams_gets_none(target: Target) -> None:
    answer = target.ask(STREAM, Accept="application/json")
    assert answer.status == 406
    assert answer.json()["detail"]
    assert target.ask(STREAM, Accept="text/event-stream").status == 200
    assert target.ask(STREAM, Accept="*/*").status == 200


def test_another_path_is_not_there(target: Target) -> None:
    answer = target.ask("/api/v2/nothing")
    assert (answer.status, list(answer.json())) == (404, ["detail"])


def test_a_page_of_a_strange_origin_may_read_nothing(target: Target) -> None:
    assert "access-control-allow-origin" not in target.stream(Origin="https://evil.example").headers
    assert "access-control-allow-origin" not in target.ask("/nowhere", Origin="https://evil.example").headers


def test_a_page_of_an_allowed_origin_may_read_errors_too(target: Target, tables: Tables) -> None:
    for path in (STREAM, "/nowhere"):
        headers = target.ask(path, Origin=HERE["SSE_CORS_ORIGINS"]).headers
        assert headers["access-control-allow-origin"] == HERE["SSE_CORS_ORIGINS"]
        assert headers["access-control-allow-credentials"] == "true"
        assert "Origin" in headers["vary"]


def test_a_private_stream_wants_a_user(target: Target) -> None:
    answer = target.ask("/api/v2/configurations/any/stream")
    body = answer.json()
    if answer.status == 501 and target.tables is None:
        assert body == {"detail": "Configuration streams are not enabled on this server."}
        return
    assert (answer.status, body) == (401, {"detail": "Missing user identification"})


def test_unknown_and_foreign_are_the_same(target: Target, private: str) -> None:
    strange = target.ask("/api/v2/configurations/nobody-has-this/stream", **target.user)
    assert (strange.status, strange.json()) == (404, {"detail": "Configuration not found"})
    if target.tables is not None:
        foreign = target.ask(f"{private}/stream", X_User_ID="bob")
        assert (foreign.status, foreign.json()) == (404, {"detail": "Configuration not found"})


def test_a_private_stream_shows_its_configurations_tickers(target: Target, private: str) -> None:
    events = target.stream(f"{private}/stream", **target.user).until("configuration")
    for event in events:
        check(event)
    wanted = set(events[-1].data["tickers"])
    assert events[-1].data["config_id"] == target.configuration
    assert {event.data["ticker"] for event in events if event.name == "sentiment_update"} <= wanted
    snapshot = target.ask(f"{private}/snapshot", **target.user).json()
    assert set(snapshot["configuration"]["tickers"]) == wanted


def test_a_ticket_opens_one_private_stream(target: Target, private: str) -> None:
    answer = target.ask("/api/v2/stream/tickets", "POST", Content_Length="0", **target.user)
    body = answer.json()
    if answer.status == 501 and target.tables is None:
        assert body == {"detail": "Tickets are not enabled on this server."}
        return
    assert (answer.status, body["expires_in"]) == (201, 30)
    path = f"{private}/stream?ticket={body['ticket']}"
    target.stream(path).until("configuration")
    if target.tables is not None:
        again = target.ask(path)
        assert (again.status, again.json()) == (401, {"detail": "Invalid ticket"})


def test_a_ticket_that_is_none_is_refused(target: Target, private: str) -> None:
    answer = target.ask(f"{private}/stream?ticket=forged")
    assert (answer.status, answer.json()) in (
        (401, {"detail": "Invalid ticket"}),
        (501, {"detail": "Tickets are not enabled on this server."}),
    )
