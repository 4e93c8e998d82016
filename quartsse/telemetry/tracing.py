"""Traces: one short span per connect and per sampled poll, sent to X-Ray, or nothing.

Never one per stream or event: a segment is sent when it ends, and a stream may live for an hour. The SDK is used for
its documents and its way to the daemon only. Its recorder keeps the current segment in a context that breaks under
`create_task(context=…)`, and throws everything away behind the Lambda Web Adapter; our spans know who they are.
"""

import contextvars
import logging
import queue
import random
import re
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import override

logger = logging.getLogger(__name__)

MOST_WAITING = 1000
"""Spans that may wait to be sent; beyond that they are dropped: a trace is worth less than the stream it tells of."""

TRACE: contextvars.ContextVar[str | None] = contextvars.ContextVar("trace", default=None)
"""The id of the trace that the current task works in: a request's, or that of a read of the source."""

POLL_SHARE = 0.02
CONNECT_SHARE = 0.05
_TRACE_ID = re.compile(r"1-[0-9a-f]{8}-[0-9a-f]{24}")
_SPAN_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(slots=True)
class Span:
    """Something that takes time, and what is to be known of it. `parent` is the id of the span above, if there is."""

    name: str
    trace_id: str
    parent: str | None
    sampled: bool
    started: float
    ended: float = 0.0
    failed: bool = False
    notes: dict[str, str | int | float | bool] = field(default_factory=dict)


class Tracer:
    """Who is told of spans: here nobody. Every verb returns at once and raises nothing."""

    def connect(self, header: str | None) -> Span | None:  # noqa: ARG002
        """A request for a stream begins; `header` is its `X-Amzn-Trace-Id`."""
        return None

    def poll(self) -> Span | None:
        """A read of the source begins."""
        return None

    def end(self, span: Span | None, *, failed: bool = False, **notes: str | float | bool) -> None:
        """A span is over."""


class XRay(Tracer):
    """Sends spans to the X-Ray daemon, from a thread of its own that imports the SDK: 0.3 s that nobody waits for.

    On Lambda the function's own segment stands above ours, and its sampling decision is taken over. Elsewhere the
    header is the client's: its trace id is kept and its wish not to be sampled honoured, but not its wish to be: that
    would let anyone run up the bill.
    """

    def __init__(self, *, on_lambda: bool, chance: random.Random | None = None) -> None:
        self._on_lambda = on_lambda
        self._chance = chance or random.Random()  # noqa: S311 - sampling
        self._waiting: queue.Queue[Span | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._send_all, daemon=True, name="quartsse-xray")

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def close(self, seconds: float = 0.2) -> None:
        """Send what waits, for at most so long."""
        if self._thread.is_alive():
            try:
                self._waiting.put_nowait(None)
            except queue.Full:
                return
            self._thread.join(seconds)

    @override
    def connect(self, header: str | None) -> Span | None:
        """A span below the header's, with its trace id."""
        fields = dict(part.strip().partition("=")[::2] for part in (header or "")[:500].split(";"))
        root, parent = fields.get("Root", ""), fields.get("Parent", "")
        trace_id = root if _TRACE_ID.fullmatch(root) else new_trace_id()
        sampled = fields.get("Sampled") == "1" if self._on_lambda else self._samples(fields.get("Sampled"))
        above = parent if _SPAN_ID.fullmatch(parent) and trace_id == root else None
        return self._begin(Span("connect", trace_id, above, sampled, time.time()))

    @override
    def poll(self) -> Span | None:
        """A span in a trace of its own."""
        return self._begin(Span("poll", new_trace_id(), None, self._chance.random() < POLL_SHARE, time.time()))

    @override
    def end(self, span: Span | None, *, failed: bool = False, **notes: str | float | bool) -> None:
        """Send a span, if it is sampled; a poll that failed always is."""
        if span is None:
            return
        span.ended, span.failed = time.time(), failed
        span.notes.update(notes)
        if span.sampled or (failed and span.name == "poll"):
            try:
                self._waiting.put_nowait(span)
            except queue.Full:
                logger.debug("a span was dropped")

    def _begin(self, span: Span) -> Span:
        TRACE.set(span.trace_id)
        return span

    def _samples(self, wish: str | None) -> bool:
        return wish != "0" and self._chance.random() < CONNECT_SHARE

    def _send_all(self) -> None:
        span = self._waiting.get()  # before the import, which would share the interpreter with the first stream's start
        if span is None:
            return
        from aws_xray_sdk.core import xray_recorder
        from aws_xray_sdk.core.emitters.udp_emitter import UDPEmitter

        logging.getLogger("aws_xray_sdk").setLevel(logging.ERROR)
        emitter = UDPEmitter()
        while span is not None:
            emitter.send_entity(document(span, on_lambda=self._on_lambda))
            span = self._waiting.get()
        for one in (emitter, xray_recorder.emitter):  # the SDK closes neither, and makes the second at its import
            one._socket.close()


def document(span: Span, *, on_lambda: bool) -> object:
    """The SDK's segment for a span; on Lambda a subsegment of the function's own segment, which is not ours to send."""
    from aws_xray_sdk.core.models.facade_segment import FacadeSegment
    from aws_xray_sdk.core.models.segment import Segment
    from aws_xray_sdk.core.models.subsegment import Subsegment

    if on_lambda and span.parent is not None:
        above = FacadeSegment("quartsse", span.parent, span.trace_id, span.sampled)
        entity = Subsegment(f"quartsse {span.name}", "local", above)
        entity.parent_id = span.parent
    else:
        entity = Segment(f"quartsse {span.name}", traceid=span.trace_id, parent_id=span.parent)
    entity.start_time = span.started
    for name, value in span.notes.items():
        entity.put_annotation(name, value)
    status = span.notes.get("status")
    if isinstance(status, int):
        entity.apply_status_code(status)  # whether it is an error, a throttle or a fault
    if span.failed:
        entity.add_fault_flag()
    entity.in_progress = False
    entity.end_time = span.ended
    return entity


def new_trace_id() -> str:
    """A trace id as X-Ray has it: a version, the time, and 96 random bits."""
    return f"1-{int(time.time()):08x}-{secrets.token_hex(12)}"
