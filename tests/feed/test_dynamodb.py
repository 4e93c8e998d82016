"""DynamoDB's client, against a real API: the short way through its answers says the same as botocore's."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from quartsse.feed.dynamodb import Client, client, lazily
from quartsse.feed.items import item_in
from quartsse.feed.query import query_request
from quartsse.feed.source import FOREVER
from quartsse.tools.emulator import connect
from tests.dynamodb import Tables, record


@pytest.fixture
def plain(table: Tables, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    for name, value in table.environment().items():
        monkeypatch.setenv(name, value)
    made = client()
    yield made
    made.close()


async def test_plain_json_is_what_botocore_makes_of_it(table: Tables, plain: Client) -> None:
    await table.fill(
        [
            record("a:1", "AAPL", "MSFT", sentiment="positive", sources=["finnhub", "tiingo"]),
            record("a:2", sentiment="positive", score=0.3, confidence=0.9),
            record("a:ü\u2028", sentiment="positive", matched_tickers={"SS": ["A", "B"]}),
            record("a:4", sentiment="positive", sources_are_odd={"L": [{"M": {"a": {"NULL": True}}}, {"BOOL": False}]}),
        ]
    )
    request = query_request(table.sentiments, "by_sentiment", "positive", 0, FOREVER)
    parsed, short = table.client.query(**request), plain.query(**request)
    assert short["Items"] == parsed["Items"]
    assert len(short["Items"]) == 4
    assert [item_in(one) for one in short["Items"]] == [item_in(one) for one in parsed["Items"]]
    for name in ("Count", "ScannedCount", "ConsumedCapacity"):
        assert short[name] == parsed[name]


async def test_pages_go_on_where_the_last_one_ended(table: Tables, plain: Client) -> None:
    await table.fill([record(f"a:{n}", age=n, sentiment="neutral") for n in range(5)])
    request = query_request(table.sentiments, "by_sentiment", "neutral", 0, FOREVER) | {"Limit": 2}
    seen = []
    while True:
        answer = plain.query(**request)
        seen += [one["source_id"]["S"] for one in answer["Items"]]
        if "LastEvaluatedKey" not in answer:
            break
        request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
    assert seen == [f"a:{n}" for n in range(5)]


def test_errors_are_botocores_own(plain: Client) -> None:
    with pytest.raises(ClientError) as caught:
        plain.query(**query_request("no-such-table", "by_sentiment", "neutral", 0, FOREVER))
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"


@contextmanager
def answering(status: int, body: bytes, *, crc: str | None = None) -> Iterator[tuple[str, list[float]]]:
    """A server that gives everyone the same answer; its address, and a list that grows with each request."""
    asked: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(0)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if crc is not None:
                self.send_header("x-amz-crc32", crc)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Client]]:
    """A client of the feed's for an address."""
    made: list[Client] = []

    def get(endpoint: str, **more: Any) -> Client:
        for name, value in Tables(endpoint, "s", "u", None).environment().items():
            monkeypatch.setenv(name, value)
        made.append(client(**more))
        return made[-1]

    yield get
    for one in made:
        one.close()


REQUEST = query_request("news", "by_sentiment", "neutral", 0, FOREVER)


@pytest.mark.parametrize(
    "body", [b"", b"<html>captive portal</html>", b"\xff\xfe", b"{}", b"[]", b'"x"', b'{"Items": null}', b'{"Items": [']
)
def test_an_answer_that_is_not_dynamodbs_is_a_failure(at: Callable[..., Client], body: bytes) -> None:
    with answering(200, body) as (endpoint, _), pytest.raises(BotoCoreError, match="not a whole answer"):
        at(endpoint).query(**REQUEST)


@pytest.mark.parametrize("body", [b"<html>bad gateway</html>", b"\xff\xfe", b"[]"])
def test_a_failure_that_is_not_dynamodbs_is_a_failure_too(at: Callable[..., Client], body: bytes) -> None:
    with answering(502, body) as (endpoint, _), pytest.raises(ClientError):
        at(endpoint).query(**REQUEST)


def test_a_failing_server_is_asked_twice_and_no_more(at: Callable[..., Client]) -> None:
    with answering(500, b'{"__type":"InternalServerError"}') as (endpoint, asked):
        with pytest.raises(ClientError):
            at(endpoint).query(**REQUEST)
        assert len(asked) == 2


@pytest.mark.parametrize(("code", "told"), [("ThrottlingException", 2), ("InternalServerError", 0)])
def test_each_answer_that_asks_for_patience_is_told_of_also_those_that_botocore_tries_again(
    at: Callable[..., Client], code: str, told: int
) -> None:
    throttles: list[int] = []
    with answering(400 if told else 500, json.dumps({"__type": code}).encode()) as (endpoint, asked):
        with pytest.raises(ClientError):
            at(endpoint, on_throttle=lambda: throttles.append(1)).query(**REQUEST)
        assert (len(asked), len(throttles)) == (2, told)


def test_a_damaged_answer_is_asked_for_again(at: Callable[..., Client]) -> None:
    body = json.dumps({"Items": [], "Count": 0, "ScannedCount": 0}).encode()
    with answering(200, body, crc="1") as (endpoint, asked):
        at(endpoint).query(**REQUEST)
        assert len(asked) == 2


def test_nobody_at_the_address_is_an_error_within_seconds(at: Callable[..., Client]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(BotoCoreError):
        at(f"http://127.0.0.1:{port}").query(**REQUEST)


def test_a_client_is_made_when_it_is_first_wanted_and_once() -> None:
    made: list[int] = []

    def make() -> Client:
        made.append(1)
        return object()

    get = lazily(make)
    assert made == []
    assert get() is get()
    assert made == [1]


def test_other_answers_are_left_alone(table: Tables, plain: Client) -> None:
    described = plain.describe_table(TableName=table.sentiments)["Table"]
    again = connect(table.endpoint)
    assert (
        described["CreationDateTime"] == again.describe_table(TableName=table.sentiments)["Table"]["CreationDateTime"]
    )
    again.close()


def test_threads_that_come_at_once_get_one_client() -> None:
    made: list[object] = []

    def make() -> object:
        time.sleep(0.05)
        made.append(object())
        return made[-1]

    get = lazily(make)
    with ThreadPoolExecutor(8) as threads:
        clients = {id(client) for client in threads.map(lambda _: get(), range(8))}
    assert len(made) == len(clients) == 1
