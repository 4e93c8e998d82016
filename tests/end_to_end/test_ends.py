"""How streams end: by a signal, by age, by a bug; and what the connections of all of them are set to."""

import asyncio
import json
import os
import time
from collections.abc import Callable
from statistics import mean

import pytest

from quartsse.web.server import SEND_BUFFER, USER_TIMEOUT_MS
from tests.end_to_end.hosted import Hosted
from tests.end_to_end.namespaces import Elsewhere
from tests.end_to_end.readers import ASK, ending, open_stream, pipelining_reader, stopped_reader
from tests.processes import eventually

type Host = Callable[..., Hosted]

WITHIN = 1.0
"""Seconds that a process may take to end: it needs 0.36 where nothing else runs."""


async def test_every_connection_has_the_servers_options(host: Host) -> None:
    hosted = await asyncio.to_thread(host)
    await open_stream(hosted)
    found = [options for options in await hosted.ask("options") if options]
    assert found == [
        {
            "SO_SNDBUF": 2 * SEND_BUFFER,  # Linux doubles it, for its own book-keeping (socket(7))
            "SO_KEEPALIVE": 1,
            "TCP_NODELAY": 1,
            "TCP_USER_TIMEOUT": USER_TIMEOUT_MS,
        }
    ]


@pytest.mark.parametrize("handover", ["1", "0"], ids=["handed-over", "iterator"])
async def test_sigterm_ends_everyone_in_time_whoever_else_is_there(
    host: Host, away: Elsewhere, handover: str, record_property: Callable[[str, object], None]
) -> None:
    hosted = await asyncio.to_thread(host, HOST="0.0.0.0", SSE_HANDOVER=handover, SSE_MAX_CONNECTIONS="500")
    healthy = [await open_stream(hosted) for _ in range(60)]
    pipelined = [await asyncio.to_thread(pipelining_reader, hosted) for _ in range(20)]
    await asyncio.to_thread(away.streams, hosted.port, 20)
    stuck = [stopped_reader(hosted) for _ in range(20)]
    reading = [asyncio.ensure_future(reply.until("stream_end", seconds=20)) for reply in healthy]
    await asyncio.to_thread(away.vanish)
    await hosted.send(100, 2048, 0.5)  # more than the kernels keep, less than the backlog: nobody has been ended yet
    assert (await hosted.held())["slots"] == 120
    status, seconds = await asyncio.to_thread(hosted.terminate)
    record_property("seconds", seconds)
    print(f"120 streams of all kinds, SIGTERM to exit: {seconds:.2f} s")
    assert status == 0, hosted.output()[-20:]
    assert seconds < WITHIN
    told = [json.loads((await reads)[-1]["data"]) for reads in reading]
    for reply in healthy:
        assert (await reply.reader.read()).endswith(b"0\r\n\r\n"), "cut off behind its last event"
    assert {end["reason"] for end in told} == {"draining"}
    assert_spread_evenly([end["retry_ms"] for end in told], 10_000)
    for sock in (*pipelined, *stuck):
        sock.close()


def assert_spread_evenly(waits: list[int], most: int) -> None:
    """Waits in milliseconds that lie evenly between 0 and `most`, so far as half of them can show."""
    assert max(waits) <= most + 1
    assert len(set(waits)) > 0.9 * len(waits), "each has its own"
    assert 0.35 * most < mean(waits) < 0.65 * most
    tenths = [sum(tenth <= 10 * wait / most < tenth + 1 for wait in waits) for tenth in range(10)]
    assert max(tenths) <= 0.25 * len(waits), f"no tenth of the time holds many: {tenths}"


async def test_a_new_stream_is_told_to_come_back_while_the_others_are_ended(host: Host) -> None:
    hosted = await asyncio.to_thread(host)
    stuck = [stopped_reader(hosted) for _ in range(5)]  # they keep it from ending at once
    await hosted.send(100, 4000)
    waiting = [await asyncio.open_connection("127.0.0.1", hosted.port) for _ in range(5)]
    ending_it = asyncio.create_task(asyncio.to_thread(hosted.terminate))
    await asyncio.sleep(0.1)
    for _, writer in waiting:
        writer.write(ASK)
    answers = await asyncio.gather(*(asyncio.wait_for(reader.read(), 5) for reader, _ in waiting))
    for _, writer in waiting:
        writer.close()
    assert all(answer.startswith(b"HTTP/1.1 503") for answer in answers), answers
    assert all(b"retry-after: 1\r\n" in answer.lower() for answer in answers)
    assert all(b"Server is shutting down. Reconnect." in answer for answer in answers)
    assert (await ending_it)[0] == 0
    for sock in stuck:
        sock.close()


async def test_streams_end_at_their_age_and_not_all_at_once(host: Host) -> None:
    hosted = await asyncio.to_thread(host, SSE_MAX_STREAM_AGE="2", SSE_RETRY_MS="3000")

    async def lifetime() -> tuple[float, dict[str, object]]:
        began = time.monotonic()
        reply = await open_stream(hosted)
        told = await ending(reply)
        return time.monotonic() - began, told

    lives = await asyncio.gather(*(lifetime() for _ in range(60)))
    assert await asyncio.to_thread(eventually, lambda: len(hosted.closings()) == 60, 2)
    ages = [line["seconds"] for line in hosted.closings()]
    assert {told["reason"] for _, told in lives} == {"max_age"}
    assert all(1500 <= int(str(told["retry_ms"])) <= 3000 for _, told in lives)
    assert 1.79 < min(ages) < 1.9, "ten per cent sooner"
    assert 2.1 < max(ages) < 2.2 + 0.5, "ten per cent later, and what the machine takes"
    assert {line["reason"] for line in hosted.closings()} == {"max_age"}


async def test_a_bug_in_the_feed_ends_the_process_and_every_stream_properly(host: Host) -> None:
    hosted = await asyncio.to_thread(host, SSE_POLL_INTERVAL="0.2")
    replies = [await open_stream(hosted) for _ in range(20)]
    await hosted.break_feed()
    told = [await ending(reply) for reply in replies]
    assert {end["reason"] for end in told} == {"draining"}
    status = await asyncio.to_thread(hosted.wait, 5)
    assert status not in (0, None)
    output = "\n".join(hosted.output())
    assert "Traceback" in output
    assert "ZeroDivisionError: a bug in the feed" in output


async def test_a_second_signal_ends_it_at_once(host: Host) -> None:
    hosted = await asyncio.to_thread(host)
    stuck = [stopped_reader(hosted) for _ in range(3)]
    await hosted.send(100, 4000)
    os.kill(hosted.pid, 15)
    await asyncio.sleep(0.1)
    began = time.monotonic()
    assert (await asyncio.to_thread(hosted.terminate))[0] == 128 + 15
    assert time.monotonic() - began < 0.5
    for sock in stuck:
        sock.close()
