"""Whatever an event holds, parsers that nobody here wrote find in our bytes exactly the events that were meant."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import httpx_sse
import pytest
import sseclient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from quartsse.client import Parser
from quartsse.hub.events import Configuration, Event, SentimentUpdate, event, retry_field
from quartsse.hub.ids import NOWHERE, digest, own_place

type Found = list[tuple[str, str, str]]
"""Name, id and data of each event."""
type Parse = Callable[[bytes], Found]

TESTS = Path(__file__).parents[1]
PROGRAM = TESTS / "eventsource_parser.mjs"

hostile = st.text(max_size=60) | st.sampled_from(
    ["\n\nevent: admin\ndata: x\n\n", "\r\r", "\u2028\u2029\x85", "\0", "\ufeff", "\ud800", ":", "\x0b\x0c\x1c\x1d\x1e"]
)


def ours(content: bytes) -> Found:
    return [(found.event, found.id, found.data) for found in Parser().feed(content)]


def sseclients(content: bytes) -> Found:
    """With what it makes of a comment left out: an event without data, which by the standard is none."""
    found = sseclient.SSEClient(iter([content])).events()
    return [(one.event, one.id or "", one.data) for one in found if one.data]


def httpx_sses(content: bytes) -> Found:
    """The same."""
    response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=content)
    found = httpx_sse.EventSource(response).iter_sse()
    return [(one.event, one.id, one.data) for one in found if one.data]


@pytest.fixture(scope="module")
def npms() -> Iterator[Parse]:
    """The npm package's parser, in a process that stays."""
    if shutil.which("node") is None or not (TESTS / "node_modules" / "eventsource-parser").exists():
        pytest.skip("eventsource-parser is not installed: npm ci --prefix tests")
    with subprocess.Popen(
        ["node", str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TESTS
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def parse(content: bytes) -> Found:
            print(json.dumps(content.decode()), file=process.stdin, flush=True)
            return [(name, of, data) for name, of, data in json.loads(process.stdout.readline())]  # type: ignore[union-attr]

        yield parse
        process.kill()


def update(text: str, number: int) -> Event:
    """An update that holds a text wherever one can stand."""
    payload = SentimentUpdate(
        ticker=_sendable(text), score=0.5, label="positive", confidence=0.5, source=_sendable(text),
        timestamp=_sendable(text), count=number, mean_score=0.1,
    )  # fmt: skip
    return event("sentiment_update", f"{digest(text, 8)}-{digest(str(number), 5)}", payload)


def configuration(text: str, number: int) -> Event:
    """A configuration that does."""
    payload = Configuration(config_id=_sendable(text), name=_sendable(text), tickers=[_sendable(text)])
    return event("configuration", f"h{number}", payload)


def _sendable(text: str) -> str:
    """As the feed takes it in: half a surrogate pair cannot be sent."""
    return text.encode("utf-8", "replace").decode()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(hostile, min_size=1, max_size=4), last_event_id=hostile)
@example(texts=["\r\n\r\nevent: admin\r\ndata: {}\r\n\r\n"], last_event_id="evt_a.b\n\nevent: x")
def test_every_parser_finds_the_events_that_were_meant(texts: list[str], last_event_id: str, npms: Parse) -> None:
    place = own_place(last_event_id)
    events = [made(text, number) for number, text in enumerate(texts) for made in (update, configuration)]
    meant = [(one.name, one.id_at(place), one.data.decode()) for one in events]
    content = retry_field(3000) + b"\n:\n\n" + b"".join(one.frame(place) + b":\n\n" for one in events)
    for parse in (ours, sseclients, httpx_sses, npms):
        assert parse(content) == meant
    assert [json.loads(data)["config_id"] for name, _, data in meant if name == "configuration"] == [
        _sendable(text) for text in texts
    ]


def test_a_parser_would_tell_an_event_that_was_forged(npms: Parse) -> None:
    content = Event("sentiment_update", "a", b"{}\n\nevent: admin\ndata: 1").frame(NOWHERE)
    for parse in (ours, sseclients, httpx_sses, npms):
        assert [name for name, _, _ in parse(content)] == ["sentiment_update", "admin"]
