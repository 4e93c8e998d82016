"""Streams: open HTTP responses that read the hub."""

import asyncio
import contextvars
import logging
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from quartsse.feed.poller import Poller
from quartsse.hub.clock import Clock
from quartsse.hub.compression import Gzip
from quartsse.hub.events import EndReason, Event, FeedState, Resume, retry_field
from quartsse.hub.filters import Filter
from quartsse.hub.hub import Hub, spread
from quartsse.hub.ids import Place, own_place, place_in
from quartsse.hub.subscription import Subscription
from quartsse.hub.tick import Origin, chunk
from quartsse.telemetry.metrics import Telemetry
from quartsse.telemetry.tracing import TRACE
from quartsse.web.handover import DOOR, Door
from quartsse.web.limits import Slot
from quartsse.web.pulse import Pulse

logger = logging.getLogger(__name__)

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}
UNREAD_SECONDS = 5.0
"""How long a stream that was ended may take to be read, before its connection is aborted."""
UNREAD_SECONDS_AT_EXIT = 0.3
_PIECE = 65_536
_LAST_CHUNK = b"0\r\n\r\n"
_MOST_FROM_CLIENT = 65_536


@dataclass(frozen=True, slots=True)
class View:
    """What a stream shows: its filter, and the state event that closes its opening.

    `covers` says whether the filter has been the same since a reader was at a place; where it has not, the reader
    gets the last updates beside what was missed. `private` says whether the filter or the state is a secret.
    """

    filter: Filter
    state: Callable[[], Event]
    covers: Callable[[Place], bool] = lambda place: True  # noqa: ARG005 - a filter that never changes covers all
    private: bool = False


class Stream:
    """One open stream, from the slot that it took until the last byte.

    Its task owns it first; after a hand-over its wire does. Whichever owns it calls `close`.
    """

    __slots__ = (
        "_aborting",
        "_bytes",
        "_clock",
        "_door",
        "_ended",
        "_events",
        "_gzip",
        "_last_event_id",
        "_lobby",
        "_slot",
        "_started",
        "_streams",
        "_subscription",
        "_timer",
        "_told",
        "_trace",
        "_view",
        "_wire",
        "on_close",
    )

    def __init__(self, streams: "Streams", slot: Slot, view: View, last_event_id: str | None) -> None:
        self._streams = streams
        self._slot = slot
        self._view = view
        self._last_event_id = last_event_id
        self._clock = streams.clock
        self._started = self._clock.monotonic()
        self._trace = TRACE.get()
        self._events = self._bytes = 0
        self._door = DOOR.get()
        self._gzip: Gzip | None = None
        self._told: FeedState | None = None
        self._subscription: Subscription | None = None
        self._wire: Wire | None = None
        self._lobby: asyncio.Future[None] | None = None
        self._ended: tuple[EndReason, int] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._aborting: asyncio.TimerHandle | None = None
        self.on_close: Callable[[], None] | None = None
        """Called once, when the stream is over."""

    @property
    def handed_over(self) -> bool:
        """Whether a wire owns it, and no task any more."""
        return self._wire is not None

    def compress(self) -> None:
        """Let the body be gzip: what the response's `Content-Encoding` has to say."""
        self._gzip = Gzip()

    async def body(self, *, fast: bool) -> AsyncGenerator[bytes]:
        """The bytes of the stream, until it ends or is handed over; `fast` allows the latter."""
        own = own_place(self._last_event_id)
        streams = self._streams
        first = [retry_field(streams.retry_ms) + b"\n" + self._heartbeat(own)]
        if not streams.poller.showable:
            yield self._coded(first.pop())
            async for frame in self._wait_for_state(own):
                yield self._coded(frame)
        if self._ended is not None:
            reason, retry_ms = self._ended
            last = b"".join(first) + streams.hub.last_frame(reason, retry_ms, own)
            yield last if self._gzip is None else self._gzip.finish(last)
            return
        subscription, frames = self._subscribe(own)
        for piece in _pieces([*first, *frames]):
            yield self._coded(piece)
        if fast and self._door is not None:
            self._hand_over(self._door, subscription)
            return
        async for data in _ticks(subscription):
            yield data

    def show(self, view: View) -> None:
        """Show something else from here on: its state event, and the last updates of the tickers that are new.

        Whoever is cut off between these frames comes back with the place that they carry, which the view does not
        cover, and so gets the last updates again beside what was missed.
        """
        before, self._view = self._view, view
        if self._subscription is None:
            return
        hub = self._streams.hub
        hub.refilter(self._subscription, view.filter)
        updates = self._streams.poller.window.updates(view.filter)
        events = [view.state(), *(update for update in updates if not before.filter.matches(update.ticker))]
        place = str(hub.place)
        data = b"".join(event.frame(place) for event in events)
        hub.send(self._subscription, data)
        self._streams.telemetry.delivered(len(events), len(data))

    def end_after(self, seconds: float, reason: EndReason) -> None:
        """Let the stream end in so many seconds, unless it ends sooner anyway."""
        loop = asyncio.get_running_loop()
        at = loop.time() + max(0.0, seconds)
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = loop.call_at(at, self.end, reason, self._streams.one_retry(), context=empty_context())

    def end(self, reason: EndReason, retry_ms: int, unread_seconds: float = UNREAD_SECONDS) -> None:
        """Send what waits and `stream_end`, and close; abort the connection if that is not read in time."""
        if self._ended is not None:
            return
        self._ended = (reason, retry_ms)
        self._abort_after(unread_seconds)
        if self._subscription is not None:
            self._subscription.end(reason, retry_ms)
        elif self._lobby is not None and not self._lobby.done():
            self._lobby.set_result(None)

    def lagged(self) -> None:
        """The hub has ended the subscription: the reader was too slow."""
        self._ended = ("lagged", 0)
        self._abort_after(UNREAD_SECONDS)

    def abort(self) -> None:
        """Cut the connection, whatever is still unsent."""
        if self._wire is not None:
            self._wire.abort()
        elif self._door is not None:
            self._door.abort()

    def close(self) -> None:
        """Give back all that the stream holds. Later calls change nothing."""
        if self not in self._streams.open:
            return
        for timer in (self._timer, self._aborting):
            if timer is not None:
                timer.cancel()
        if self._subscription is not None:
            self._subscription.close()
        if self.on_close is not None:
            self.on_close()
        self._slot.release()
        self._door = self._wire = None
        reason = self._ended[0] if self._ended else "client"
        if self._subscription is not None:
            self._events += self._subscription.events
            self._bytes += self._subscription.bytes
        seconds = self._clock.monotonic() - self._started
        told = {"reason": reason, "seconds": round(seconds, 3), "events": self._events, "bytes": self._bytes}
        self._streams.closed(self, reason, seconds, told if self._trace is None else told | {"trace": self._trace})

    def _coded(self, data: bytes) -> bytes:
        """What is for this reader alone, as it takes it.

        It says again what the request said (the id); what is secret must not be compressed beside that: the length
        would tell somebody who chooses the one and measures how the other goes with it (RFC 7457, section 2.6).
        """
        coded = data if self._gzip is None else self._gzip.encode(data, compressed=not self._view.private)
        events = data.count(b"\nevent: ")
        self._events += events
        self._bytes += len(coded)
        self._streams.telemetry.delivered(events, len(coded))
        return coded

    async def _wait_for_state(self, own: str) -> AsyncGenerator[bytes]:
        """Heartbeats, until there is a state to show or the stream is ended."""
        streams = self._streams
        if streams.poller.showable or self._ended is not None:
            return
        self._lobby = asyncio.get_running_loop().create_future()
        ready = asyncio.ensure_future(streams.poller.ready())
        beat = asyncio.ensure_future(streams.pulse.beat.wait())
        try:
            while not self._lobby.done() and not ready.done():
                await asyncio.wait((self._lobby, ready, beat), return_when=asyncio.FIRST_COMPLETED)
                if beat.done():
                    beat = asyncio.ensure_future(streams.pulse.beat.wait())
                    yield self._heartbeat(own)
        finally:
            ready.cancel()
            beat.cancel()

    def _heartbeat(self, own: str) -> bytes:
        """A heartbeat for this reader alone."""
        self._told = self._streams.poller.state
        return self._streams.pulse.heartbeat().frame(own)

    def _subscribe(self, own: str) -> tuple[Subscription, list[bytes]]:
        """Join the channel and read the state, in one step of the loop; the frames of the opening.

        Only the last frame carries the current place: whoever is cut off before it goes on from where they were.
        """
        streams, view = self._streams, self._view
        after = place_in(self._last_event_id) if self._last_event_id else None
        subscription, replay = streams.hub.subscribe(view.filter, after, self._gzip)
        subscription.owner = self
        self._subscription = subscription
        if subscription.channel is not None:  # its filter is equal: thousands of readers share that one
            self._view = View(subscription.channel.filter, view.state, view.covers, view.private)
        frames = replay.frames
        if replay.mode == "snapshot" or (after is not None and not view.covers(after)):
            frames = [*self._last_updates(own, frames), *frames]
        if self._last_event_id is not None:
            answer = Resume(mode=replay.mode, replayed=len(replay.frames))
            frames = [streams.hub.event("resume", answer).frame(own), *frames]
            streams.telemetry.resumed(replay.mode, len(replay.frames))
        if self._told != streams.poller.state:  # it changed while this reader was in no channel to hear of it
            frames = [self._heartbeat(own), *frames]
        return subscription, [*frames, view.state().frame(str(streams.hub.place))]

    def _last_updates(self, own: str, missed: list[bytes]) -> list[bytes]:
        """The last update of each ticker, but for those that were missed: they come in their order, behind all others.

        Else a reader would see an item's last state, then again those before it.
        """
        among = {_identity(frame) for frame in missed}
        frames = (update.frame(own) for update in self._streams.poller.window.updates(self._view.filter))
        return [frame for frame in frames if _identity(frame) not in among]

    def _hand_over(self, door: Door, subscription: Subscription) -> None:
        wire = Wire(self, subscription)
        try:
            transport = door.hand_over(wire)
        except ConnectionResetError:
            return  # the client has gone; the task ends now and closes the stream
        self._wire, self._door = wire, None
        wire.begin(transport)

    def _abort_after(self, seconds: float) -> None:
        if self._aborting is None:
            self._aborting = asyncio.get_running_loop().call_later(seconds, self.abort)


class Wire(asyncio.Protocol):
    """What is left of a reader after the hand-over: ready-made chunks go straight to its transport."""

    __slots__ = ("_from_client", "_opening", "_paused", "_stream", "_subscription", "_transport")

    def __init__(self, stream: Stream, subscription: Subscription) -> None:
        self._stream = stream
        self._subscription = subscription
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._from_client = 0
        self._opening = False

    def begin(self, transport: asyncio.Transport) -> None:
        """Take over: from here on every tick goes to this transport."""
        self._transport = transport
        transport.set_write_buffer_limits(high=0)  # so that "paused" means "the socket does not take it"
        self._opening = self._paused
        self._subscription.wake = self.flush
        self._subscription.unsent = self.unsent
        self.flush()

    def unsent(self) -> int:
        """Bytes of ticks that were written and that the socket has not taken; what is left of the opening is none."""
        return 0 if self._opening or self._transport is None else self._transport.get_write_buffer_size()

    def flush(self) -> None:
        """Send what waits, if the socket takes it, and follow from there; and in any case the end."""
        transport, ended = self._transport, self._subscription.ending is not None
        if transport is None or transport.is_closing() or (self._paused and not ended):
            return
        waiting = self._subscription.take()
        if waiting:
            transport.write(chunk(waiting))
        if ended:
            transport.write(chunk(self._subscription.finish()) + _LAST_CHUNK)
            transport.close()
        elif not self._paused:
            self._subscription.follow(transport.write)

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        """The socket does not take more: ticks wait in the subscription."""
        self._paused = True
        self._subscription.pause()

    def resume_writing(self) -> None:
        """It takes more again."""
        self._paused = self._opening = False
        self.flush()

    def data_received(self, data: bytes) -> None:
        """A client has nothing to say on a stream; one that talks on and on is cut off."""
        self._from_client += len(data)
        if self._from_client > _MOST_FROM_CLIENT:
            self.abort()

    def eof_received(self) -> bool:
        """A half-closed connection is a closed one."""
        return False

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - the same whatever it was
        """The client has gone, or has everything."""
        self._transport = None
        self._stream.close()


class Streams:
    """All open streams of this process, and what they have in common."""

    def __init__(
        self,
        hub: Hub,
        poller: Poller,
        pulse: Pulse,
        *,
        retry_ms: int = 3000,
        drain_seconds: float = 10.0,
        max_age: float = 0.0,
        handover: bool = True,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self.hub = hub
        self.poller = poller
        self.pulse = pulse
        self.retry_ms = retry_ms
        self.handover = handover
        self.clock = clock or Clock()
        self.telemetry = telemetry or Telemetry()
        self.open: set[Stream] = set()
        self.closing = False
        self._drain_seconds = drain_seconds
        self._max_age = max_age
        self._chance = chance or random.Random()  # noqa: S311 - jitter
        self.on_quiet: Callable[[], None] | None = None
        """Called when the last stream is over."""
        hub.on_lagged = self._lagged
        hub.on_delivered = self._delivered

    def start(self, slot: Slot, view: View, last_event_id: str | None) -> Stream:
        """A stream in a slot. It belongs to the current task until it is handed over."""
        stream = Stream(self, slot, view, last_event_id)
        self.open.add(stream)
        self.poller.attend()
        self.telemetry.stream_opened()
        if self._max_age:
            stream.end_after(self._max_age * self._chance.uniform(0.9, 1.1), "max_age")
        logger.info("stream opened", extra={"streams": len(self.open)})
        return stream

    def closed(self, stream: Stream, reason: str, seconds: float, told: Mapping[str, object]) -> None:
        """A stream is over and holds nothing any more; `told` is for the log."""
        self.open.discard(stream)
        self.poller.leave()
        self.telemetry.stream_ended(reason, seconds)
        logger.info("stream closed", extra={**told, "streams": len(self.open)})
        if not self.open and self.on_quiet is not None:
            self.on_quiet()

    def one_retry(self) -> int:
        """A wait in milliseconds for one reader, so that those who end together do not come back together."""
        return int(self.retry_ms * self._chance.uniform(0.5, 1.0))

    def end_all(self, reason: EndReason) -> None:
        """End every stream at once, each with its own retry."""
        leaving = list(self.open)
        for index, stream in enumerate(leaving):
            retry_ms = spread(index, len(leaving), self._drain_seconds, self._chance)
            stream.end(reason, retry_ms, UNREAD_SECONDS_AT_EXIT)

    async def close(self) -> None:
        """Take no more streams, end all that are open, and return when they are gone: within half a second."""
        self.closing = True
        self.end_all("draining")
        deadline = self.clock.monotonic() + UNREAD_SECONDS_AT_EXIT + 0.2
        while self.open and self.clock.monotonic() < deadline:  # noqa: ASYNC110 - many causes end a stream
            await asyncio.sleep(0.005)
        for stream in list(self.open):
            stream.abort()

    def _delivered(self, events: int, size: int, origins: Iterable[Origin]) -> None:
        self.telemetry.delivered(events, size)
        for origin in origins:
            since_stamp = None if origin.stamp is None else self.clock.wall() - origin.stamp
            self.telemetry.handed_over(self.clock.monotonic() - origin.read_at, since_stamp)

    def _lagged(self, subscription: Subscription) -> None:
        if isinstance(subscription.owner, Stream):
            subscription.owner.lagged()


async def _ticks(subscription: Subscription) -> AsyncGenerator[bytes]:
    """The ordinary way out: what waits, again and again, until the subscription has ended."""
    something = asyncio.Event()
    subscription.wake = something.set
    sending = 0
    subscription.unsent = lambda: sending
    while True:
        data = subscription.take()
        if data:
            sending = len(data)
            yield data  # comes back when the server has room for more
            sending = 0
        elif subscription.ending is not None:
            yield subscription.finish()
            return
        else:
            something.clear()
            await something.wait()


def _identity(frame: bytes) -> bytes:
    """What a frame's event is, before the place to go on from."""
    return frame.partition(b".")[0]


def _pieces(frames: list[bytes]) -> Iterator[bytes]:
    """Frames, joined to pieces of a size that a slow reader can take one by one."""
    piece: list[bytes] = []
    size = 0
    for frame in frames:
        piece.append(frame)
        size += len(frame)
        if size >= _PIECE:
            yield b"".join(piece)
            piece, size = [], 0
    if piece:
        yield b"".join(piece)


def empty_context() -> contextvars.Context:
    """A context with no door in it, for tasks that outlive the request that starts them."""
    return contextvars.Context()
