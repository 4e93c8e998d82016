"""`quartsse tail`: what it shows, and how it ends."""

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE

import pytest

from quartsse.client import ServerEvent
from quartsse.hub.events import PAYLOADS
from quartsse.tools.reference import EXAMPLES
from quartsse.tools.tail import line, stream_url
from tests.web.serving import Service, item, serving


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "quartsse", "tail", *arguments]


async def tail(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run it as a user does; its status and both outputs."""
    process = await asyncio.create_subprocess_exec(
        *command(*arguments), stdout=PIPE, stderr=PIPE, env={**os.environ, **environment}
    )
    async with asyncio.timeout(20):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


def address(service: Service, path: str = "") -> str:
    return f"http://127.0.0.1:{service.port}{path}"


@pytest.mark.parametrize("name", PAYLOADS)
def test_every_event_is_one_line_with_its_name(name: str) -> None:
    event = ServerEvent(name, EXAMPLES[name][1].model_dump_json(), "evt_1")
    shown = line(event, event.json(), colour=False)
    assert name in shown
    assert "{" not in shown, "it is told in words"


@pytest.mark.parametrize("data", ["hello\x1b[2Jworld", '{"ticker":"A\\u001b[2J"}', "[1]"])
def test_what_another_server_sends_is_shown_as_it_is_and_moves_no_cursor(data: str) -> None:
    shown = line(ServerEvent("sentiment_update", data), {}, colour=True)
    assert "\x1b" not in shown
    assert data[:5] in shown


def test_colour_says_good_or_bad_and_only_where_it_is_wanted() -> None:
    event = ServerEvent("sentiment_update", EXAMPLES["sentiment_update"][1].model_dump_json())
    assert "\x1b[32m" in line(event, event.json(), colour=True)
    assert "\x1b" not in line(event, event.json(), colour=False)


@pytest.mark.parametrize(
    ("url", "configuration", "expected"),
    [
        ("http://h", None, "http://h/api/v2/stream"),
        ("http://h/", None, "http://h/api/v2/stream"),
        ("http://h?tickers=A", None, "http://h/api/v2/stream?tickers=A"),
        ("http://h/elsewhere", None, "http://h/elsewhere"),
        ("http://h", "my one", "http://h/api/v2/configurations/my%20one/stream"),
        ("http://h/base/api/v2/stream", "one", "http://h/base/api/v2/configurations/one/stream"),
    ],
)
def test_a_base_is_enough_of_an_address(url: str, configuration: str | None, expected: str) -> None:
    assert stream_url(url, configuration) == expected


async def test_json_lines_are_what_came() -> None:
    async with serving(item("a:1", "AAPL", at=time.time())) as service:
        status, out, err = await tail(address(service), "--tickers", "aapl", "--json", "--for", "1", "--stats")
    events = {event["event"]: event for event in map(json.loads, out.splitlines())}
    assert status == 0
    assert set(events) == {"heartbeat", "sentiment_update", "metrics"}
    assert events["sentiment_update"]["data"]["ticker"] == "AAPL"
    assert all(event["id"].startswith("evt_") for event in events.values())
    assert "1 metrics, 1 sentiment_update" in err


async def test_it_ends_after_as_many_as_it_has_shown() -> None:
    async with serving(item("a:1", "AAPL", at=time.time())) as service:
        status, out, _ = await tail(address(service), "--tickers", "*", "--json", "--quiet", "--count", "1")
    assert (status, [json.loads(each)["event"] for each in out.splitlines()]) == (0, ["sentiment_update"])


async def test_it_ends_when_its_time_is_over() -> None:
    async with serving(item("a:1", "AAPL", at=time.time())) as service:
        status, out, _ = await tail(address(service), "--for", "0.5", "--tickers", "*", "--quiet")
    assert status == 0
    assert [each.split()[1] for each in out.splitlines()] == ["sentiment_update"]


async def test_a_stream_that_ends_is_read_on_from_where_it_stopped() -> None:
    async with serving(SSE_MAX_STREAM_AGE="0.2", SSE_RETRY_MS="50") as service:
        status, out, err = await tail(address(service), "--for", "3", "--stats", "--json")
    names = [json.loads(each)["event"] for each in out.splitlines()]
    assert status == 0
    assert "resume" in names
    assert "ended by the server: max_age; back in" in err
    assert " 0 gaps" in err


async def test_an_id_of_elsewhere_is_a_gap_and_strictly_that_is_the_end() -> None:
    async with serving() as service:
        lenient = await tail(address(service), "--since", "evt_0-0.a.0.0", "--count", "3")
        strict = await tail(address(service), "--since", "evt_0-0.a.0.0", "--strict")
    assert (lenient[0], strict[0]) == (0, 4)
    assert "gap: " in lenient[2]


async def test_a_refusal_is_told_and_ends_it() -> None:
    async with serving(saved={}) as service:
        nobody = await tail(address(service), "--configuration", "one")
        stranger = await tail(address(service), "--configuration", "one", "--user", "ann")
        wrong = await tail(address(service), "--tickers", "?")
    assert [nobody[0], stranger[0], wrong[0]] == [2, 2, 2]
    assert "Missing user identification" in nobody[2]
    assert "Configuration not found" in stranger[2]
    assert "tickers" in wrong[2]


async def test_who_is_not_there_is_tried_as_often_as_asked() -> None:
    status, out, err = await tail("http://127.0.0.1:1", "--attempts", "1")
    assert (status, out) == (3, "")
    assert "gave up after 1 attempts" in err


async def test_an_address_that_is_none_is_a_wrong_command_line() -> None:
    status, _, err = await tail("nonsense")
    assert status == 2
    assert "Traceback" not in err


async def test_a_reader_of_the_pipe_who_leaves_ends_it_quietly() -> None:
    reading, writing = os.pipe()
    async with serving(SSE_HEARTBEAT_INTERVAL="0.05") as service:
        process = await asyncio.create_subprocess_exec(
            *command(address(service), "--json"), stdout=writing, stderr=PIPE
        )
        os.close(writing)
        first = await asyncio.to_thread(os.read, reading, 65536)
        os.close(reading)
        async with asyncio.timeout(20):
            _, err = await process.communicate()
    assert json.loads(first.partition(b"\n")[0])["event"] == "heartbeat"
    assert (process.returncode, err) == (0, b"quartsse: connected\n")


async def test_a_token_comes_from_the_environment() -> None:
    async with serving(saved={}, SSE_AUTH="jwt", SSE_JWT_KEY="a" * 32, SSE_JWT_ALGORITHMS="HS256") as service:
        status, _, err = await tail(address(service), "--configuration", "one", "--token-env", "MINE", MINE="a.b.c")
    assert status == 2
    assert "Invalid token" in err, "it was sent, and looked at"
