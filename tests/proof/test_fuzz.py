"""A few hundred malformed requests beside a healthy stream; `make fuzz` sends ten thousand."""

import asyncio
import json
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.end_to_end.hosted import Hosted
from tests.end_to_end.readers import open_stream
from tests.proof import fuzz
from tests.web.serving import Reply

type Host = Callable[..., Hosted]

HEARTBEAT = float(fuzz.SETTINGS["SSE_HEARTBEAT_INTERVAL"])


async def listen(reply: Reply, arrived: list[tuple[float, str, str]]) -> None:
    """Note when which event came, for as long as one is let."""
    while True:
        (event,) = await reply.events(1, seconds=60)
        arrived.append((time.monotonic(), event["event"], event["data"]))


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)], ids=["a few", "ten thousand"])
async def test_malformed_requests_do_no_harm_and_a_stream_beside_them_has_everything_in_time(
    host: Host, count: int
) -> None:
    hosted = await asyncio.to_thread(host, **fuzz.SETTINGS)
    reply = await open_stream(hosted)
    arrived: list[tuple[float, str, str]] = []
    listening = asyncio.create_task(listen(reply, arrived))
    sending = asyncio.create_task(hosted.send(100, size=64, seconds=3))
    findings = await fuzz.fuzz(hosted, count, seed=1)
    await sending
    await asyncio.sleep(HEARTBEAT)
    listening.cancel()
    print(f"answers {dict(findings.answers.most_common())}")
    assert not findings.harmful, "\n".join(findings.lines())
    assert findings.answers.total() == count
    updates = [json.loads(data)["sent"] for _, name, data in arrived if name == "sentiment_update"]
    assert len(updates) == 100
    assert updates == sorted(updates)
    beats = [at for at, name, _ in arrived if name == "heartbeat"]
    assert max(later - earlier for earlier, later in pairwise(beats)) < 1.5 * HEARTBEAT
    held = await hosted.held()
    assert held["slots"] <= 1, "theirs are free again"


def test_the_request_of_a_seed_is_always_the_same() -> None:
    known = fuzz.corpus()
    assert [fuzz.malformed(seed, known) for seed in range(200)] == [fuzz.malformed(seed, known) for seed in range(200)]


def test_a_request_that_is_printed_can_be_added_to_the_corpus() -> None:
    known = fuzz.corpus()
    for seed in range(500):
        request = fuzz.malformed(seed, known)
        assert fuzz._bytes_of(fuzz.line_of(request)) == request


def test_a_5xx_counts_unless_the_contract_names_it() -> None:
    assert fuzz.is_a_failure(b"HTTP/1.1 500 \r\n\r\n")
    assert fuzz.is_a_failure(b"HTTP/1.1 503 \r\n\r\n")
    assert not fuzz.is_a_failure(b'HTTP/1.1 503 \r\n\r\n{"detail":"Feed is starting"}')
    assert not fuzz.is_a_failure(b"HTTP/1.1 400 \r\n\r\n")
