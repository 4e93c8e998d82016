"""Openings: how a request becomes a stream, with every check in the contract's order."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from quart import Response, request
from werkzeug.datastructures import Accept
from werkzeug.http import parse_accept_header

from quartsse.errors import NotAcceptable, Refused, ShuttingDown
from quartsse.hub.events import EndReason, retry_field
from quartsse.hub.ids import own_place
from quartsse.web.auth import User
from quartsse.web.deadline import seconds_left
from quartsse.web.limits import Slot
from quartsse.web.origins import address_group, client_address
from quartsse.web.parameters import Asked, asked
from quartsse.web.parts import Parts
from quartsse.web.stream import HEADERS, Stream

type Start = Callable[[Slot, Asked, User | None], Awaitable[Stream]]
"""Makes the stream for a slot; what it raises is the answer, and the slot is given back."""

POLITE = {429, 503}
"""The refusals that `on_limit=retry` turns into a stream that ends at once."""


class Openings:
    """Opens streams. `trusted_hops` and `on_lambda` say where a client's address is to be found.

    On Lambda a stream ends `deadline_margin` seconds before its invocation does. `compression` lets clients that
    accept gzip have it.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        trusted_hops: int = 0,
        on_lambda: bool = False,
        deadline_margin: float = 5.0,
        compression: bool = True,
    ) -> None:
        self.parts = parts
        self._compression = compression
        self._trusted_hops = trusted_hops
        self._on_lambda = on_lambda
        self._deadline_margin = deadline_margin

    def asked(self) -> Asked:
        """What this request asks for. Raises BadRequest."""
        return asked(request.args.getlist, request.headers.get("Last-Event-ID"))

    async def open(
        self,
        start: Start,
        user: Callable[[Asked], Awaitable[User]] | None = None,
        look: Callable[[User], Awaitable[object]] | None = None,
    ) -> Response:
        """Answer with a stream: 400, 406, shutting down, 401, the slot, 429, and then what `start` may raise.

        For `HEAD` there is neither slot nor stream; `look` raises what `start` would.
        """
        wanted = self.asked()
        _check_accept()
        tracer = self.parts.tracer
        span = tracer.connect(request.headers.get("X-Amzn-Trace-Id"))
        try:
            response = await self._checked(start, wanted, user, look)
        except Refused as refused:
            tracer.end(span, status=refused.status, reason=refused.reason)
            if not (wanted.on_limit_retry and refused.status in POLITE):
                raise
            return self._refused_politely(refused, wanted)
        tracer.end(span, status=200, resumed=wanted.last_event_id is not None)
        if span is not None:
            response.headers["X-Amzn-Trace-Id"] = f"Root={span.trace_id}"
        return response

    async def _checked(
        self,
        start: Start,
        wanted: Asked,
        user: Callable[[Asked], Awaitable[User]] | None,
        look: Callable[[User], Awaitable[object]] | None,
    ) -> Response:
        if self.parts.streams.closing:
            raise ShuttingDown
        whose = await user(wanted) if user is not None else None
        if request.method == "HEAD":
            if look is not None and whose is not None:
                await look(whose)
            return Response("", headers=self._headers())
        return await self._open(start, wanted, whose)

    async def _open(self, start: Start, wanted: Asked, user: User | None) -> Response:
        slot = self.parts.slots.take()
        try:
            slot.claim(user.id if user else None, self._address())
            stream = await start(slot, wanted, user)
        except BaseException:
            slot.release()
            raise
        self._end_before_the_deadline(stream)
        # Released by the task and not by the body: if the client has already gone, the body is never started and
        # its `finally` never runs. After a hand-over the wire owns the stream, and this task's end means nothing.
        _current_task().add_done_callback(lambda _: None if stream.handed_over else stream.close())
        headers = self._headers()
        if "Content-Encoding" in headers:
            stream.compress()
        fast = self.parts.streams.handover and request.http_version == "1.1"
        response = Response(stream.body(fast=fast), headers=_closing(headers))
        response.timeout = None
        return response

    def _end_before_the_deadline(self, stream: Stream) -> None:
        if self._on_lambda:
            left = seconds_left(list(request.scope["headers"]), self.parts.streams.clock.wall())
            if left is not None:
                stream.end_after(left - self._deadline_margin, "deadline")

    def _headers(self) -> dict[str, str]:
        """The head of a stream, compressed if both sides want that."""
        headers = dict(HEADERS)
        if self._compression:
            headers["Vary"] = "Accept-Encoding"
            if takes_gzip(request.headers.getlist("Accept-Encoding")):
                headers["Content-Encoding"] = "gzip"
        return headers

    def _address(self) -> str:
        """The address that this stream counts to."""
        peer = (request.scope.get("client") or (None,))[0]
        headers = list(request.scope["headers"])
        return address_group(client_address(headers, peer, self._trusted_hops, on_lambda=self._on_lambda))

    def _refused_politely(self, refused: Refused, wanted: Asked) -> Response:
        """The one refusal that a browser's EventSource obeys: 200, when to come back, and the end."""
        self.parts.tell(refused, politely=True)
        reason: EndReason = "connection_limit" if refused.reason in _LIMITS else "unavailable"
        retry_ms = 1000 * (refused.retry_after or 0)
        own = own_place(wanted.last_event_id)
        return Response(
            retry_field(retry_ms) + b"\n" + self.parts.hub.last_frame(reason, retry_ms, own), headers=_closing(HEADERS)
        )


_LIMITS = {"connection_limit", "too_many_streams"}


def _check_accept() -> None:
    """Raise NotAcceptable for a client that says it does not take event streams (RFC 9110, section 12.5.1)."""
    accepted = request.accept_mimetypes
    if accepted and accepted.quality("text/event-stream") <= 0:
        raise NotAcceptable("Accept excludes text/event-stream, the one form that a stream has")


def takes_gzip(accepted: list[str]) -> bool:
    """Whether `Accept-Encoding` allows gzip, and prefers nothing to it (RFC 9110, section 12.5.3)."""
    wishes = parse_accept_header(", ".join(accepted), Accept)
    uncompressed = max((quality for name, quality in wishes if name.lower() == "identity"), default=0.0)
    return 0 < wishes.quality("gzip") >= uncompressed


def _closing(headers: Mapping[str, str]) -> dict[str, str]:
    """With `Connection: close` on HTTP/1.1: a proxy's pool would send its next request into a connection that ends."""
    return {**headers, "Connection": "close"} if request.http_version.startswith("1.") else dict(headers)


def _current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a request is served by a task")
    return task
