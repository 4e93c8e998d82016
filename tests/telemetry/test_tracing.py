"""Spans, as the X-Ray daemon gets them: a UDP socket listens in its place."""

import asyncio
import contextvars
import json
import random
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from quartsse.telemetry.tracing import MOST_WAITING, TRACE, Tracer, XRay, new_trace_id

# The SDK leaves its sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ROOT = "1-6a1b2c3d-0123456789abcdef01234567"
PARENT = "0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_trace_stays() -> Iterator[None]:
    """What a test traces is not in the lines that later ones log."""
    before = TRACE.set(None)
    yield
    TRACE.reset(before)


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(10)
        monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", f"127.0.0.1:{listening.getsockname()[1]}")
        yield listening


class Always(random.Random):
    """Chance that samples everything."""

    def random(self) -> float:
        return 0.0


# AWS, "X-Ray segment documents": what a complete segment, and a subsegment that is sent by itself, may hold.
_COMMON = {
    "name": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": r"^[\w\s.:/%&#=+\\@-]+$"},
    "id": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
    "trace_id": {"type": "string", "pattern": "^1-[0-9a-f]{8}-[0-9a-f]{24}$"},
    "parent_id": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
    "start_time": {"type": "number"},
    "end_time": {"type": "number"},
    "in_progress": {"const": False},
    "error": {"type": "boolean"},
    "throttle": {"type": "boolean"},
    "fault": {"type": "boolean"},
    "http": {"type": "object"},
    "aws": {"type": "object"},
    "metadata": {"type": "object"},
    "annotations": {
        "type": "object",
        "maxProperties": 50,
        "propertyNames": {"pattern": "^[A-Za-z0-9_]+$", "maxLength": 500},
        "additionalProperties": {"type": ["string", "number", "boolean"], "maxLength": 1000},
    },
}
_REQUIRED = ["name", "id", "trace_id", "start_time", "end_time"]
DOCUMENT = {
    "oneOf": [
        {
            "type": "object",
            "required": _REQUIRED,
            "additionalProperties": False,
            "properties": {
                **_COMMON,
                "service": {"type": "object"},
                "user": {"type": "string", "maxLength": 250},
                "origin": {"enum": ["AWS::EC2::Instance", "AWS::ECS::Container", "AWS::ElasticBeanstalk::Environment"]},
            },
        },
        {
            "type": "object",
            "required": [*_REQUIRED, "type", "parent_id"],
            "additionalProperties": False,
            "properties": {
                **_COMMON,
                "type": {"const": "subsegment"},
                "namespace": {"enum": ["aws", "remote", "local"]},
            },
        },
    ]
}


def received(daemon: socket.socket) -> dict[str, Any]:
    """The next document, checked against what X-Ray asks of every one."""
    datagram = daemon.recv(65_536)
    assert len(datagram) <= 64_000
    head, _, body = datagram.partition(b"\n")
    assert json.loads(head) == {"format": "json", "version": 1}
    document: dict[str, Any] = json.loads(body)
    Draft202012Validator(DOCUMENT).validate(document)
    assert document["start_time"] <= document["end_time"] <= time.time()
    return document


def test_a_connect_is_a_segment_with_the_trace_of_the_header(daemon: socket.socket) -> None:
    tracer = XRay(on_lambda=False, chance=Always())
    tracer.start()
    span = tracer.connect(f"Self=1-x;Root={ROOT};Parent={PARENT}")
    tracer.end(span, status=200, mode="exact")
    document = received(daemon)
    assert (document["trace_id"], document["parent_id"]) == (ROOT, PARENT)
    assert document["annotations"] == {"status": 200, "mode": "exact"}
    tracer.close()


def test_on_lambda_it_is_a_subsegment_of_the_functions_own(daemon: socket.socket) -> None:
    tracer = XRay(on_lambda=True)
    tracer.start()
    tracer.end(tracer.connect(f"Root={ROOT};Parent={PARENT};Sampled=1"))
    document = received(daemon)
    assert (document["type"], document["trace_id"], document["parent_id"]) == ("subsegment", ROOT, PARENT)
    tracer.close()


def test_a_failed_poll_is_always_sent_as_a_fault(daemon: socket.socket) -> None:
    tracer = XRay(on_lambda=False, chance=random.Random(1))
    tracer.start()
    for _ in range(5):
        span = tracer.poll()
        assert span is not None
        span.sampled = False
        tracer.end(span, failed=True)
    assert received(daemon)["fault"] is True
    tracer.close()


@pytest.mark.parametrize(("wish", "sampled"), [("0", False), ("1", True), (None, True)])
def test_a_client_may_wish_not_to_be_sampled(wish: str | None, sampled: bool) -> None:
    span = XRay(on_lambda=False, chance=Always()).connect(f"Root={ROOT};Sampled={wish}" if wish else None)
    assert span is not None
    assert span.sampled is sampled


def test_a_clients_wish_to_be_sampled_counts_for_nothing() -> None:
    tracer = XRay(on_lambda=False, chance=random.Random(1))
    spans = [tracer.connect(f"Root={ROOT};Sampled=1") for _ in range(400)]
    assert 5 <= sum(span is not None and span.sampled for span in spans) <= 60


@pytest.mark.parametrize("header", ["", "Root=", "Root=1-zz-zz;Parent=x", "=;=;;" * 200, "Root=" + "1" * 600])
def test_a_header_that_is_none_begins_a_trace_of_its_own(header: str) -> None:
    span = XRay(on_lambda=False).connect(header)
    assert span is not None
    assert re.fullmatch(r"1-[0-9a-f]{8}-[0-9a-f]{24}", span.trace_id)
    assert span.parent is None


def test_without_tracing_nothing_happens() -> None:
    tracer = Tracer()
    tracer.end(tracer.connect("Root=x"))
    tracer.end(tracer.poll())


def test_trace_ids_differ() -> None:
    assert new_trace_id() != new_trace_id()


@pytest.mark.parametrize(
    ("status", "flags"), [(200, set()), (400, {"error"}), (429, {"error", "throttle"}), (503, {"fault"})]
)
def test_a_refusal_is_an_error_a_throttle_or_a_fault(daemon: socket.socket, status: int, flags: set[str]) -> None:
    tracer = XRay(on_lambda=False, chance=Always())
    tracer.start()
    tracer.end(tracer.connect(None), status=status, reason="any")
    document = received(daemon)
    assert {flag for flag in ("error", "throttle", "fault") if document.get(flag)} == flags
    tracer.close()


def test_a_read_is_a_trace_of_its_own(daemon: socket.socket) -> None:
    tracer = XRay(on_lambda=True, chance=Always())
    tracer.start()
    tracer.end(tracer.poll(), items=3)
    document = received(daemon)
    assert (document["name"], document["annotations"]) == ("quartsse poll", {"items": 3})
    assert "parent_id" not in document
    tracer.close()


async def test_spans_that_overlap_are_not_mixed_up(daemon: socket.socket) -> None:
    tracer = XRay(on_lambda=False, chance=Always())
    tracer.start()

    async def connect(number: int) -> None:
        root = f"1-6a1b2c3d-{number:024x}"
        span = tracer.connect(f"Root={root}")
        await asyncio.sleep(0.001 * (number % 7))
        assert TRACE.get() == root, "what this task logs names its own trace"
        tracer.end(span, number=number)

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(connect(number), context=contextvars.copy_context())
    documents = [await asyncio.to_thread(received, daemon) for _ in range(50)]
    assert {document["annotations"]["number"] for document in documents} == set(range(50))
    assert all(document["trace_id"] == f"1-6a1b2c3d-{document['annotations']['number']:024x}" for document in documents)
    assert len({document["id"] for document in documents}) == 50
    tracer.close()


def test_more_spans_than_can_be_sent_are_dropped_and_nobody_waits() -> None:
    tracer = XRay(on_lambda=False, chance=Always())
    for _ in range(MOST_WAITING + 100):
        tracer.end(tracer.poll())
    assert tracer._waiting.qsize() == MOST_WAITING
