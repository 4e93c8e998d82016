"""Spans, as the X-Ray daemon gets them: a UDP socket listens in its place."""

import json
import random
import re
import socket
from collections.abc import Iterator

import pytest

from quartsse.telemetry.tracing import TRACE, Tracer, XRay, new_trace_id

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


def received(daemon: socket.socket) -> dict[str, object]:
    """The next document, checked against what X-Ray's specification asks of every one."""
    head, _, body = daemon.recv(65_536).partition(b"\n")
    assert json.loads(head) == {"format": "json", "version": 1}
    document: dict[str, object] = json.loads(body)
    assert re.fullmatch(r"[0-9a-f]{16}", str(document["id"]))
    assert re.fullmatch(r"1-[0-9a-f]{8}-[0-9a-f]{24}", str(document["trace_id"]))
    assert float(str(document["start_time"])) <= float(str(document["end_time"]))
    assert not document.get("in_progress")
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
