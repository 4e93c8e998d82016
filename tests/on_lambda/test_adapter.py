"""The service on Lambda: behind the real Web Adapter, in front of a double of the Runtime API."""

import asyncio
import gzip
import http.server
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.dynamodb import Tables
from tests.end_to_end.counting_proxy import proxy
from tests.on_lambda.environment import TERM_SECONDS, Environment, environment
from tests.on_lambda.runtime_api import Fields, Invocation
from tests.processes import children_of
from tests.served import Served
from tests.web.serving import request

STREAM = "/api/v2/stream?tickers=*"
POLL = 0.25
KEY = "a key that is as long as one has to be for tests"

type Start = Callable[..., Any]


@pytest.fixture
def on_lambda(table: Tables, tmp_path: Path) -> Start:
    """Starts an environment over `table`: `async with on_lambda(function_timeout=3, SSE_DEADLINE_MARGIN="1") as it`."""

    numbers = count()

    @asynccontextmanager
    async def start(
        *,
        function_timeout: float = 30.0,
        concurrency: int | None = None,
        command: list[str] | None = None,
        **settings: str,
    ) -> AsyncIterator[Environment]:
        wanted = table.environment() | {"SSE_AUTH": "jwt", "SSE_JWT_KEY": KEY, "SSE_POLL_INTERVAL": str(POLL)}
        logs = tmp_path / str(next(numbers))
        async with environment(
            wanted | settings, logs, function_timeout=function_timeout, concurrency=concurrency, command=command
        ) as made:
            yield made

    return start


def data_of(event: Fields) -> Any:
    """What an event carries."""
    return json.loads(event["data"])


def moment_of(event: Fields) -> float:
    """When an event was made, on the wall clock."""
    return datetime.fromisoformat(data_of(event)["timestamp"]).timestamp()


async def opened(it: Environment, path: str = STREAM, **headers: str) -> Invocation:
    """A stream whose opening has been read."""
    invocation = await it.invoke(path, **headers)
    assert invocation.status == 200
    await invocation.until("metrics")
    return invocation


async def test_every_piece_arrives_when_it_is_sent(on_lambda: Start, table: Tables) -> None:
    async with on_lambda(SSE_HEARTBEAT_INTERVAL="0.4") as it:
        invocation = await opened(it)
        assert invocation.mode == "streaming"
        assert invocation.headers["content-type"].startswith("text/event-stream")
        for _ in range(3):
            beat = (await invocation.until("heartbeat"))[-1]
            assert time.time() - moment_of(beat) < 0.25
        await table.put("tiingo:1", "AAPL", sentiment="positive")
        await invocation.until("sentiment_update", seconds=POLL + 0.5)
        assert invocation.outcome is None
        assert len(invocation.pieces) >= 5
        assert b"heartbeat" in invocation.pieces[0].data


async def test_what_is_compressed_can_be_read_the_moment_it_arrives_and_ends_with_a_true_trailer(
    on_lambda: Start, table: Tables
) -> None:
    async with on_lambda(function_timeout=6, SSE_DEADLINE_MARGIN="2") as it:
        invocation = await opened(it, Accept_Encoding="gzip")
        assert invocation.headers["content-encoding"] == "gzip"
        assert "Accept-Encoding" in invocation.headers["vary"]
        for number in range(3):
            names = [f"T{number}{other}" for other in range(5)]
            await asyncio.gather(*(table.put(f"tiingo:{name}", name, sentiment="positive") for name in names))
            heard: list[str] = []
            while len(heard) < len(names):
                events = await invocation.until("sentiment_update", seconds=2 * POLL + 0.5)
                heard += [data_of(event)["ticker"] for event in events if event["event"] == "sentiment_update"]
            assert sorted(heard) == names
        last = (await invocation.until("stream_end"))[-1]
        assert data_of(last)["reason"] == "deadline"
        await invocation.answered()
        assert invocation.outcome == "ok"
        assert gzip.decompress(invocation.body).count(b"event: sentiment_update") == 15


class _NotFound(http.server.BaseHTTPRequestHandler):
    """Answers, but not with health."""

    asked = 0

    def do_GET(self) -> None:
        """404, which the adapter would take for health if the image did not say otherwise."""
        type(self).asked += 1
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing."""


async def test_the_adapter_waits_until_health_says_two_hundred(on_lambda: Start, table: Tables, tmp_path: Path) -> None:
    it = Environment(table.environment() | {"SSE_AUTH": "header"}, tmp_path / "logs")
    other = http.server.ThreadingHTTPServer(("127.0.0.1", it.port), _NotFound)
    thread = threading.Thread(target=other.serve_forever, args=(0.01,))
    thread.start()
    try:
        await it.start()
        async with asyncio.timeout(5):
            while _NotFound.asked < 20:
                await asyncio.sleep(0.01)
        assert not it.api.asked.is_set()
        await asyncio.to_thread(other.shutdown)
        other.server_close()
        await it.start_app()
        await opened(it)
    finally:
        await asyncio.to_thread(other.shutdown)
        other.server_close()
        thread.join()
        await it.stop()


async def test_a_stream_is_ended_before_its_deadline_and_resumed_exactly_in_the_same_environment(
    on_lambda: Start, table: Tables
) -> None:
    async with on_lambda(function_timeout=2.5, SSE_DEADLINE_MARGIN="1") as it:
        first = await opened(it)
        await table.put("tiingo:1", "AAPL", sentiment="positive")
        await first.until("sentiment_update", seconds=POLL + 0.5)
        last = (await first.until("stream_end"))[-1]
        assert data_of(last)["reason"] == "deadline"
        await first.answered()
        assert first.outcome == "ok"
        assert first.deadline - time.time() > 0.5
        await table.put("tiingo:2", "MSFT", sentiment="negative")
        again = await it.invoke(STREAM, Last_Event_ID=last["id"])
        events = await again.until("sentiment_update")
        assert data_of(next(event for event in events if event["event"] == "resume"))["mode"] == "exact"
        assert [data_of(event)["ticker"] for event in events if event["event"] == "sentiment_update"] == ["MSFT"]
        assert (it.app.returncode, it.adapter.returncode) == (None, None)
        await again.until("stream_end")
        await again.answered()
        assert it.ended is None


async def test_a_stream_is_resumed_from_the_current_state_in_a_fresh_environment(
    on_lambda: Start, table: Tables
) -> None:
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    async with on_lambda() as before:
        last = (await (await before.invoke(STREAM)).until("metrics"))[-1]
    await table.put("tiingo:2", "MSFT", sentiment="negative")
    async with on_lambda() as after:
        events = await (await after.invoke(STREAM, Last_Event_ID=last["id"])).until("metrics")
    assert data_of(next(event for event in events if event["event"] == "resume"))["mode"] == "snapshot"
    tickers = [data_of(event)["ticker"] for event in events if event["event"] == "sentiment_update"]
    assert sorted(tickers) == ["AAPL", "MSFT"]


@pytest.mark.parametrize("seconds", [6, pytest.param(20, marks=pytest.mark.slow)])
async def test_after_a_freeze_nothing_old_is_shown_as_new(on_lambda: Start, table: Tables, seconds: float) -> None:
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    settings = {"SSE_HEARTBEAT_INTERVAL": "1", "SSE_KEEPALIVE_INTERVAL": "1"}
    async with on_lambda(function_timeout=2, SSE_DEADLINE_MARGIN="1", **settings) as it:
        first = await opened(it)
        last = (await first.until("stream_end"))[-1]
        await first.answered()
        it.freeze()
        await table.put("tiingo:2", "MSFT", sentiment="negative")
        await asyncio.sleep(seconds)
        thawed = time.time()
        it.thaw()
        again = await it.invoke(STREAM, Last_Event_ID=last["id"])
        beat = (await again.until("heartbeat", seconds=1))[-1]
        assert time.time() - thawed < 1
        assert moment_of(beat) > thawed - 0.1
        totals = (await again.until("metrics", seconds=1))[-1]
        assert (data_of(totals)["total"], moment_of(totals) > thawed) == (2, True)
        beats = [event for event in await again.until("stream_end") if event["event"] == "heartbeat"]
        assert len(beats) <= 2, "no burst of what was due meanwhile"


async def test_one_process_with_one_reader_serves_eight_viewers(on_lambda: Start, table: Tables) -> None:
    async with proxy(table.endpoint) as between:
        address = f"http://127.0.0.1:{between.port}"
        async with on_lambda(concurrency=8, SSE_HEARTBEAT_INTERVAL="0.3", AWS_ENDPOINT_URL_DYNAMODB=address) as it:
            viewers = [await opened(it) for _ in range(8)]
            await table.put("tiingo:1", "AAPL", sentiment="positive")
            for viewer in viewers:
                assert data_of((await viewer.until("sentiment_update"))[-1])["ticker"] == "AAPL"
                assert data_of((await viewer.until("heartbeat"))[-1])["connections"] == 8
            before, began = between.calls["Query"], time.monotonic()
            await asyncio.sleep(2)
            most = 3 * ((time.monotonic() - began) / POLL + 2)
            assert 0 < between.calls["Query"] - before <= most, "three queries a poll, of one poller"
            assert it.api.most_asking > 1, "how many of the eight asked before the first viewer came is chance"
            assert not children_of(it.app.pid)


async def test_without_a_word_of_concurrency_there_is_one_viewer_at_a_time(on_lambda: Start) -> None:
    async with on_lambda() as it:
        await opened(it)
        assert it.api.asking == 0
        assert it.api.most_asking == 1


async def test_the_process_ends_its_stream_and_itself_in_lambdas_time(on_lambda: Start) -> None:
    async with on_lambda() as it:
        viewer = await opened(it)
        assert await it.shut_down() < TERM_SECONDS
        assert it.app.returncode == 0
        assert data_of((await viewer.until("stream_end"))[-1])["reason"] == "draining"


async def test_the_clients_address_is_the_one_that_lambda_saw(on_lambda: Start) -> None:
    forged = json.dumps({"http": {"sourceIp": "198.51.100.1"}})
    async with on_lambda(concurrency=8, SSE_MAX_CONNECTIONS_PER_ADDRESS="1", SSE_TRUSTED_HOPS="1") as it:
        await opened(it, source_ip="203.0.113.7")
        await opened(it, source_ip="203.0.113.8")
        again = await it.invoke(
            STREAM, source_ip="203.0.113.7", X_Forwarded_For="198.51.100.1", X_Amzn_Request_Context=forged
        )
        assert again.status == 429


async def test_a_client_cannot_set_its_own_deadline(on_lambda: Start) -> None:
    forged = json.dumps({"deadline": int(time.time() * 1000)})
    async with on_lambda(SSE_HEARTBEAT_INTERVAL="0.2") as it:
        viewer = await opened(it, X_Amzn_Lambda_Context=forged)
        await viewer.until("heartbeat")
        await viewer.until("heartbeat")


async def test_off_lambda_nothing_of_lambdas_is_believed(serve: Callable[..., Served]) -> None:
    served = await asyncio.to_thread(serve, SSE_HEARTBEAT_INTERVAL="0.2", SSE_MAX_CONNECTIONS_PER_ADDRESS="1")
    forged = {
        "X-Amzn-Lambda-Context": json.dumps({"deadline": int(time.time() * 1000)}),
        "X-Amzn-Request-Context": json.dumps({"http": {"sourceIp": "198.51.100.1"}}),
    }
    viewer = await request(served.port, STREAM, headers=forged)
    await viewer.events(6)
    assert (await request(served.port, STREAM)).status == 429
    viewer.close()


async def test_a_token_has_a_way_around_cloudfronts_signature(on_lambda: Start, table: Tables) -> None:
    await table.configure("ann", "one", "AAPL")
    token = jwt.encode({"sub": "ann", "exp": time.time() + 60}, KEY)
    async with on_lambda(AWS_LWA_AUTHORIZATION_SOURCE="X-App-Authorization") as it:
        path = "/api/v2/configurations/one/stream"
        signed = "AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host, Signature=y"
        refused = await it.invoke(path, Authorization=signed)
        assert (await refused.answered(), json.loads(refused.body)) == (
            401,
            {"detail": "Missing user identification"},
        )
        viewer = await it.invoke(path, Authorization=signed, X_App_Authorization=f"Bearer {token}")
        assert viewer.status == 200
        assert data_of((await viewer.until("configuration"))[-1])["tickers"] == ["AAPL"]


async def test_a_fatal_error_ends_the_process_so_that_the_environment_is_replaced(
    on_lambda: Start, table: Tables
) -> None:
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    broken = "import quartsse.feed.window as w; w.Window.apply = lambda *a, **k: 1 / 0"
    command = [sys.executable, "-c", f"{broken}; from quartsse.__main__ import main; main(['serve'])"]
    async with on_lambda(command=command) as it:
        viewer = await it.invoke(STREAM)
        assert await asyncio.wait_for(it.app.wait(), 3) == 1
        await asyncio.wait_for(viewer.over.wait(), 3)
        assert b"stream_end" in viewer.body
        assert "ZeroDivisionError" in it.output()
