"""The routes: streams, snapshots, status and health."""

import asyncio
import json

from quart import Blueprint, Response, request

from quartsse import __version__
from quartsse.errors import FeedStarting, LimitReached, NotAcceptable, NotEnabled, Refused, ShuttingDown, TooManyStreams
from quartsse.hub.events import EndReason, retry_field
from quartsse.hub.filters import Filter
from quartsse.hub.ids import own_place
from quartsse.web.answers import answer, etag
from quartsse.web.parameters import Asked, asked
from quartsse.web.parts import Parts
from quartsse.web.stream import HEADERS, View

STATE_SECONDS = 2.0
"""How long a snapshot waits for the window to be read."""


def routes(parts: Parts) -> Blueprint:
    """All paths of the contract that do not belong to a user."""
    blueprint = Blueprint("routes", __name__)
    blueprint.register_blueprint(health(parts))

    @blueprint.get("/api/v2/stream")
    async def stream() -> Response:
        wanted = _asked()
        _check_accept()
        if request.method == "HEAD":
            return Response("", headers=HEADERS)
        try:
            return _stream(parts, wanted)
        except (LimitReached, ShuttingDown, TooManyStreams) as refused:
            if not wanted.on_limit_retry:
                raise
            return _refused_politely(parts, refused, wanted)

    @blueprint.get("/api/v2/stream/status")
    async def status() -> Response:
        return answer(
            {
                "connections": parts.slots.taken,
                "max_connections": parts.slots.limit,
                "available": parts.slots.limit - parts.slots.taken,
                "uptime_seconds": parts.pulse.uptime,
                "version": __version__,
                "instance": parts.hub.instance,
                "feed": _feed(parts),
            }
        )

    @blueprint.get("/api/v2/stream/snapshot")
    async def snapshot() -> Response:
        wanted = _asked()
        view = Filter(wanted.tickers)
        with parts.poller.attended():
            try:
                async with asyncio.timeout(STATE_SECONDS):
                    await parts.poller.ready()
            except TimeoutError:
                raise FeedStarting from None
            return _snapshot(parts, view)

    @blueprint.get("/api/v2/configurations/<path:rest>")
    async def configurations(rest: str) -> Response:  # noqa: ARG001 - whatever it is
        raise NotEnabled("Configuration streams are not enabled on this server.")

    return blueprint


def health(parts: Parts) -> Blueprint:
    """Whether the process answers, and whether its feed is fresh."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/health")
    async def process() -> Response:
        return answer({"status": "ok"})

    @blueprint.get("/health/feed")
    async def feed() -> Response:
        feed = _feed(parts)
        return answer(feed, status=503 if feed["state"] == "stale" else 200)

    return blueprint


def current_task() -> asyncio.Task[object]:
    """The task that serves this request."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a request is served by a task")
    return task


def _asked() -> Asked:
    return asked(request.args.getlist, request.headers.get("Last-Event-ID"))


def _check_accept() -> None:
    """Raise NotAcceptable for a client that says it does not take event streams (RFC 9110, section 12.5.1)."""
    accepted = request.accept_mimetypes
    if accepted and accepted.quality("text/event-stream") <= 0:
        raise NotAcceptable("Accept excludes text/event-stream, the one form that a stream has")


def _stream(parts: Parts, wanted: Asked) -> Response:
    """A global stream in a slot of its own."""
    if parts.streams.closing:
        raise ShuttingDown
    slot = parts.slots.take()
    stream = parts.streams.start(slot, View(Filter(wanted.tickers), parts.poller.totals), wanted.last_event_id)
    # Released by the task and not by the body: if the client has already gone, the body is never started and its
    # `finally` never runs. After a hand-over the wire owns the stream, and the end of this task means nothing.
    current_task().add_done_callback(lambda _: None if stream.handed_over else stream.close())
    fast = parts.streams.handover and request.http_version == "1.1" and request.method == "GET"
    response = Response(stream.body(fast=fast), headers=_stream_headers())
    response.timeout = None
    return response


def _stream_headers() -> dict[str, str]:
    """With `Connection: close` on HTTP/1.1: a proxy's pool would send its next request into a connection that ends."""
    return {**HEADERS, "Connection": "close"} if request.http_version.startswith("1.") else dict(HEADERS)


def _refused_politely(parts: Parts, refused: Refused, wanted: Asked) -> Response:
    """The one refusal that a browser's EventSource obeys: 200, when to come back, and the end."""
    parts.telemetry.refused(refused.reason)
    reason: EndReason = "unavailable" if isinstance(refused, ShuttingDown) else "connection_limit"
    retry_ms = 1000 * (refused.retry_after or 0)
    body = retry_field(retry_ms) + b"\n" + parts.hub.last_frame(reason, retry_ms, own_place(wanted.last_event_id))
    return Response(body, headers=_stream_headers())


def _snapshot(parts: Parts, view: Filter) -> Response:
    """What a client polls that cannot stream; unchanged since it was last asked, 304."""
    window, totals = parts.poller.window, parts.poller.totals()
    body = {
        "id": totals.id_at(str(parts.hub.place)),
        "feed": parts.poller.state,
        "metrics": json.loads(totals.data),
        "sentiment_updates": [json.loads(update.data) for update in window.updates(view)],
        "history": window.history(view),
    }
    tag = etag(json.dumps([body["metrics"], body["sentiment_updates"], body["feed"]]).encode())
    if tag in request.if_none_match:
        return Response("", 304, headers={"ETag": tag, "Cache-Control": "no-cache"})
    return answer(body, headers={"ETag": tag})


def _feed(parts: Parts) -> dict[str, object]:
    """The feed's status, as it stands in the status and in the health of the feed."""
    status = parts.poller.status()
    feed: dict[str, object] = {
        "state": status.state,
        "age_seconds": status.age_seconds,
        "items": status.items,
        "sweep_seconds": status.sweep_seconds,
        "read_units_per_minute": status.read_units_per_minute,
        "lateness_seconds": status.lateness_seconds,
    }
    return feed if status.reason is None else {**feed, "reason": status.reason}
