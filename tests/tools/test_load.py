"""`quartsse load`: the judge by itself, and the whole against a service that sends, and one that loses."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from click.testing import CliRunner

from quartsse.client import ServerEvent
from quartsse.tools.load import Judge, Load, LoadOptions, Reader, load, made_at
from tests.web.serving import item, serving


def event(id_: str, data: str = "{}") -> ServerEvent:
    return ServerEvent("message", data, id_)


def judged(*sequences: str) -> tuple[int, int]:
    """Gaps and repeats, of readers who got these events, a letter each."""
    judge, readers = Judge(), [Reader() for _ in sequences]
    for place in range(max(map(len, sequences))):
        for reader, sequence in zip(readers, sequences, strict=True):
            if place < len(sequence):
                judge.take(reader, event(sequence[place]), 0.0)
    return judge.gaps(readers), judge.repeats


@pytest.mark.parametrize(
    ("sequences", "gaps", "repeats"),
    [
        (("abcd", "abcd", "abcd"), 0, 0),
        (("abcd", "abcd", "abd"), 1, 0),
        (("abcd", "abcd", "abbcd"), 0, 1),
        (("abcd", "bcd", "cd"), 0, 0),  # came later
        (("abcd", "abc", "ab"), 0, 0),  # has not had the last ones yet
        (("abxcd", "abcd", "abcd"), 0, 0),  # one reader's own event
        (("abcabc", "abc", "abc"), 0, 3),
    ],
)
def test_what_most_have_and_one_has_not_is_a_gap_and_what_one_has_twice_a_repeat(
    sequences: tuple[str, ...], gaps: int, repeats: int
) -> None:
    assert judged(*sequences) == (gaps, repeats)


def test_an_event_without_an_id_of_its_own_is_counted_and_not_judged() -> None:
    judge, reader = Judge(), Reader()
    for one in (event(""), event("a", "1"), event("a", "2")):
        judge.take(reader, one, 0.0)
    assert (judge.events, judge.unjudged, judge.repeats) == (3, 2, 0)


@pytest.mark.parametrize(
    ("data", "made"),
    [
        ('{"timestamp":"1970-01-01T00:16:39.500Z"}', 999.5),
        ('{"ts":999.5}', 999.5),
        ('{"timestamp":"1970-01-01T00:01:00Z"}', None),  # when it happened, not when it was sent
        ('{"timestamp":"1970-01-01T01:00:00Z"}', None),  # not yet
        ('{"timestamp":true}', None),
        ('{"timestamp":"soon"}', None),
        ("[1]", None),
        ("hello", None),
    ],
)
def test_an_events_own_time_counts_if_it_can_have_been_just_now(data: str, made: float | None) -> None:
    assert made_at(event("a", data), 1000.0) == made


async def test_against_a_service_that_sends_there_is_no_gap_and_the_latency_is_told() -> None:
    async with serving(SSE_METRICS_INTERVAL="0.1") as service:
        options = LoadOptions(f"http://127.0.0.1:{service.port}/api/v2/stream?tickers=*", 20, 1.0)
        running = asyncio.create_task(Load(options).run(lambda _: None))
        for number in range(12):
            await asyncio.sleep(0.1)
            service.source.put(item(f"a:{number}", "AAPL", at=time.time()))
        report = await running
    assert report.well
    assert (report.opened, report.gaps, report.repeats, report.ended) == (20, 0, 0, 0)
    assert report.events >= 100
    assert report.latency_ms is not None
    assert 0 <= report.latency_ms.p50 <= report.latency_ms.p99 <= report.latency_ms.max < 1000
    assert report.complete_ms is not None


@asynccontextmanager
async def forgetful() -> AsyncIterator[int]:
    """A server that keeps the third event from its second reader; its port."""
    readers = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal readers
        await reader.readuntil(b"\r\n\r\n")
        mine, readers = readers, readers + 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await asyncio.sleep(0.8)
        for number in range(5):
            if (mine, number) != (1, 2):
                writer.write(b"id: %d\ndata: {}\n\n" % number)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_reader_who_is_left_out_is_found() -> None:
    async with forgetful() as port:
        report = await Load(LoadOptions(f"http://127.0.0.1:{port}/", 4, 3.0)).run(lambda _: None)
    assert (report.opened, report.ended, report.events, report.gaps, report.repeats) == (4, 4, 19, 1, 0)
    assert not report.well


async def test_refusals_are_told_with_their_reason() -> None:
    async with serving(SSE_MAX_CONNECTIONS="3") as service:
        options = LoadOptions(f"http://127.0.0.1:{service.port}/api/v2/stream", 5, 0.2)
        report = await Load(options).run(lambda _: None)
    assert (report.opened, report.refused) == (3, 2)
    assert report.problems == {"503: Connection limit reached. Try again later.": 2}


def test_the_command_reports_in_json_and_ends_with_status_1_when_nobody_is_there() -> None:
    result = CliRunner().invoke(load, ["http://127.0.0.1:1/", "-n", "3", "-s", "0.1", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["failed"] == 3
    result = CliRunner().invoke(load, ["nonsense", "-n", "1", "-s", "0.1"])
    assert result.exit_code == 1
    assert "problem" in result.stdout


def test_more_streams_than_files_are_refused() -> None:
    result = CliRunner().invoke(load, ["http://127.0.0.1:1/", "-n", "100000000"])
    assert result.exit_code == 2
    assert "may open" in result.output
