"""The hand-over under attack, on uvloop and on asyncio's own loop, over real sockets and a real Hypercorn."""

import asyncio
import contextlib
import gc
import logging
import re
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from quartsse.feed.source import Batch, MemorySource
from quartsse.hub.events import Event
from quartsse.service import make_parts, make_private
from quartsse.settings import settings_from
from quartsse.web.app import create_app
from quartsse.web.handover import Door
from quartsse.web.openings import Openings
from quartsse.web.parts import Parts
from quartsse.web.server import listening_socket, run_server
from quartsse.web.stream import Stream
from tests.web.serving import QUICK, item, on_both_loops

NOW = time.time()
ASK = b"GET /api/v2/stream?tickers=* HTTP/1.1\r\nHost: localhost\r\n\r\n"
H2C = (
    b"GET /api/v2/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
)
OPENED = b"event: metrics\n"
"""What the last event of an opening has."""


class GatedSource(MemorySource):
    """A source in memory whose first read waits until it is let through."""

    def __init__(self, *, opened: bool = True) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        if opened:
            self.gate.set()

    async def read(self, low: float, *, whole: bool) -> AsyncIterator[Batch]:
        await self.gate.wait()
        async for batch in super().read(low, whole=whole):
            yield batch


class Client:
    """A client that sends and reads raw bytes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def until(self, wanted: bytes, seconds: float = 5) -> bytes:
        """Everything received so far, once `wanted` is in it. Raises EOFError if the connection ends before."""
        async with asyncio.timeout(seconds):
            while wanted not in self.received:
                data = await asyncio.get_running_loop().sock_recv(self.sock, 65_536)
                if not data:
                    raise EOFError(self.received[-200:])
                self.received += data
        return self.received

    async def rest(self, seconds: float = 5) -> bytes:
        """Everything, once the connection has ended."""
        with contextlib.suppress(EOFError, ConnectionError):
            await self.until(b"\0never\0", seconds)
        return self.received

    async def rest_or(self, wanted: bytes) -> bytes:
        """Everything until `wanted`, or until the connection has ended."""
        with contextlib.suppress(EOFError, ConnectionError):
            await self.until(wanted)
        return self.received

    def leave(self) -> None:
        """Close, properly."""
        self.sock.close()

    def vanish(self) -> None:
        """Close with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Service:
    """A running service, and how to see what it still holds."""

    def __init__(self, parts: Parts, source: GatedSource, stop: asyncio.Event, address: Any) -> None:
        self.parts = parts
        self.source = source
        self.stop = stop
        self.address = address
        self.clients: list[Client] = []
        self.problems: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.problems.append(context))

    async def connect(self, source_port: int = 0) -> Client:
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        if source_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", source_port))
        self.clients.append(Client(sock))
        await asyncio.get_running_loop().sock_connect(sock, self.address)
        return self.clients[-1]

    async def stream(self, extra: bytes = b"", ask: bytes = ASK) -> Client:
        """A client whose stream's opening has been received."""
        client = await self.connect()
        await client.send(ask + extra)
        await client.until(OPENED)
        return client

    @property
    def wires(self) -> int:
        return sum(stream.handed_over for stream in self.parts.streams.open)

    def held(self) -> dict[str, int]:
        """What streams cost: tasks, slots, open streams, subscriptions, doors, descriptors."""
        gc.collect()
        return {
            "tasks": len(asyncio.all_tasks()),
            "slots": self.parts.slots.taken,
            "streams": len(self.parts.streams.open),
            "subscriptions": len(self.parts.hub.subscriptions),
            "doors": sum(isinstance(thing, Door) for thing in gc.get_objects()),
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        }

    async def holds(self, **expected: int) -> None:
        """Wait until it holds so much."""
        held: dict[str, int] = {}
        try:
            async with asyncio.timeout(3):
                while (held := self.held()) | expected != held:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pytest.fail(f"holds {held}, not {expected}")


@asynccontextmanager
async def quick_keep_alive() -> AsyncIterator[None]:
    """asyncio's loop keeps a cancelled timer, and so its context with the door, until its time or a hundred others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quartsse.web.server.KEEP_ALIVE_SECONDS", 0.4)
        yield


@asynccontextmanager
async def serving(
    source: GatedSource | None = None, sock: socket.socket | None = None, **settings: str
) -> AsyncIterator[Service]:
    """A service; at its end nothing may have gone wrong unseen."""
    chosen = settings_from({**QUICK, "SSE_MAX_CONNECTIONS": "1000", **settings})
    source, stop = source or GatedSource(), asyncio.Event()
    parts = make_parts(chosen, lambda _: source)
    app = create_app(Openings(parts), make_private(chosen, parts))
    sock = sock or listening_socket("127.0.0.1", 0)
    service = Service(parts, source, stop, sock.getsockname())
    async with asyncio.TaskGroup() as group, quick_keep_alive():
        work = [group.create_task(parts.poller.run()), group.create_task(parts.pulse.run())]
        server = group.create_task(run_server(app, sock, stop.wait(), parts.streams.close))
        await asyncio.sleep(0.02)
        try:
            yield service
        finally:
            stop.set()
            await server
            for client in service.clients:
                client.leave()
            for task in work:
                task.cancel()
    assert not service.problems


async def until(condition: Callable[[], bool], seconds: float = 3) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


# What is left of a stream


@on_both_loops
async def test_no_task_and_no_door_is_left_of_a_stream_once_its_opening_is_out() -> None:
    async with serving() as service:
        await (await service.stream()).until(OPENED)
        service.clients[0].leave()
        await service.holds(slots=0)
        before = service.held()
        for _ in range(30):
            await service.stream()
        await service.holds(tasks=before["tasks"], doors=0, slots=30, streams=30, subscriptions=30)
        assert service.wires == 30


@on_both_loops
async def test_an_age_limit_keeps_no_door_either() -> None:
    async with serving(SSE_MAX_STREAM_AGE="1000") as service:
        await service.stream()
        await service.holds(doors=0, streams=1)


@on_both_loops
async def test_what_the_first_viewer_started_holds_no_door() -> None:
    async with serving(SSE_HEARTBEAT_INTERVAL="0.05") as service:
        first = await service.stream()
        other = await service.stream()
        service.source.put(item("a:1", "AAPL", at=NOW))
        await other.until(b"sentiment_update")
        first.leave()
        await service.holds(doors=0, streams=1)


@on_both_loops
async def test_a_handed_over_stream_gets_every_event_in_order_and_its_end() -> None:
    async with serving() as service:
        client = await service.stream()
        await until(lambda: service.wires == 1)
        for number in range(5):
            service.source.put(item(f"a:{number}", f"T{number}", at=NOW))
            await client.until(b'"ticker":"T%d"' % number)
        service.stop.set()
        received = await client.rest()
        assert re.findall(rb'"ticker":"(T\d)"', received) == [b"T%d" % number for number in range(5)]
        assert received.count(b"event: stream_end") == 1
        assert received.endswith(b"\r\n0\r\n\r\n")


# Clients that leave


@on_both_loops
@pytest.mark.parametrize("how", ["leave", "vanish"])
async def test_a_client_that_leaves_at_any_moment_leaves_nothing(how: str) -> None:
    async with serving() as service:
        await service.stream()
        service.clients.pop().leave()
        await service.holds(slots=0, doors=0)
        before = service.held()
        for turns in range(60):
            client = await service.connect()
            await client.send(ASK[: 20 if turns == 0 else None])
            for _ in range(turns):
                await asyncio.sleep(0)
            getattr(service.clients.pop(), how)()
        await service.holds(**before)


@on_both_loops
@pytest.mark.parametrize("handover", ["1", "0"])
async def test_a_client_that_has_pipelined_a_byte_and_leaves_at_any_moment_leaves_nothing(handover: str) -> None:
    async with serving(SSE_HANDOVER=handover) as service:
        await service.stream()
        service.clients.pop().leave()
        await service.holds(slots=0, doors=0)
        before = service.held()
        for turns in range(0, 60, 3):
            client = await service.connect()
            await client.send(ASK + b"x")
            for _ in range(turns):
                await asyncio.sleep(0)
            service.clients.pop().leave()
        for _ in range(5):
            await service.stream(extra=b"x")
            service.clients.pop().leave()
        await service.holds(**before)


@on_both_loops
async def test_a_client_that_leaves_before_there_is_a_state_leaves_nothing() -> None:
    async with serving(GatedSource(opened=False)) as service:
        before = service.held()
        for extra in (b"", b"x"):
            client = await service.connect()
            await client.send(ASK + extra)
            await client.until(b"event: heartbeat")
            service.clients.pop().leave()
        await service.holds(**before)


@on_both_loops
async def test_a_half_closed_connection_is_a_closed_one() -> None:
    async with serving() as service:
        client = await service.stream()
        await until(lambda: service.wires == 1)
        client.sock.shutdown(socket.SHUT_WR)
        await service.holds(slots=0, subscriptions=0, streams=0)


@on_both_loops
async def test_a_client_that_half_closes_before_the_hand_over_is_not_handed_over() -> None:
    async with serving(GatedSource(opened=False)) as service:
        client = await service.connect()
        await client.send(ASK + b"x")
        await client.until(b"event: heartbeat")
        client.sock.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.02)
        service.source.gate.set()
        await service.holds(slots=0, subscriptions=0, streams=0)


@on_both_loops
async def test_a_connection_that_is_closing_is_not_handed_over() -> None:
    async with serving(GatedSource(opened=False)) as service:
        client = await service.connect()
        await client.send(ASK)
        await client.until(b"event: heartbeat")
        (stream,) = service.parts.streams.open
        door = stream._door
        assert door is not None
        door.close()
        with pytest.raises(ConnectionResetError):
            door.hand_over(asyncio.Protocol())
        await service.holds(slots=0, streams=0)


@on_both_loops
async def test_one_that_leaves_in_the_middle_of_a_fan_out_takes_nobody_with_it() -> None:
    async with serving() as service:
        clients = [await service.stream() for _ in range(20)]
        await until(lambda: service.wires == 20)
        for client in clients[::2]:
            client.vanish()
        for stream in list(service.parts.streams.open)[:3]:
            stream.abort()  # closing, and not yet gone
        service.parts.hub.publish([Event("sentiment_update", "u1", b"{}")])
        received = [await client.rest_or(b"evt_u1.") for client in clients[1::2]]
        assert sum(b"evt_u1." in data for data in received) >= 7


@on_both_loops
async def test_the_service_ends_well_right_after_such_a_client_has_left() -> None:
    async with serving(GatedSource(opened=False)) as service:
        client = await service.connect()
        await client.send(ASK + b"x")
        await client.until(b"event: heartbeat")
        client.leave()
        await asyncio.sleep(0.05)


# Clients that talk


@on_both_loops
async def test_a_pipelined_request_is_not_executed() -> None:
    async with serving() as service:
        started = []
        start = service.parts.streams.start

        def counted(*args: Any) -> Stream:
            started.append(args)
            return start(*args)

        service.parts.streams.start = counted  # type: ignore[assignment, method-assign]
        client = await service.stream(extra=ASK)
        await until(lambda: service.wires == 1)
        await asyncio.sleep(0.05)
        service.stop.set()
        received = await client.rest()
        assert len(started) == 1
        assert received.count(b"HTTP/1.1 ") == 1
        assert received.endswith(b"\r\n0\r\n\r\n")


@on_both_loops
async def test_a_client_that_talks_on_and_on_is_cut_off() -> None:
    async with serving() as service:
        client = await service.stream()
        await until(lambda: service.wires == 1)
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                await client.send(b"x" * 4096)
        await service.holds(slots=0, streams=0)


@on_both_loops
async def test_a_client_that_has_sent_so_much_that_reading_was_paused_is_seen_to_leave() -> None:
    async with serving(GatedSource(opened=False)) as service:
        client = await service.connect()
        await client.send(ASK + b"x")
        await client.until(b"event: heartbeat")
        for _ in range(10):  # more than twice asyncio's StreamReader limit, less than what a stream puts up with on top
            await client.send(b"x" * 16_384)
            await asyncio.sleep(0.005)
        (stream,) = service.parts.streams.open
        await until(lambda: stream._door is not None and not stream._door.is_reading())
        service.source.gate.set()
        await client.until(b'"feed":"live"')  # no write is due after this one: only reading tells that it has left
        assert service.wires == 1
        client.leave()
        await service.holds(slots=0, streams=0)


@on_both_loops
async def test_resets_before_the_connection_is_accepted_are_no_trouble(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as service:
        before = service.held()
        for _ in range(50):
            sock = socket.create_connection(service.address)  # blocks the loop: nothing is accepted yet
            sock.sendall(ASK)
            Client(sock).vanish()
        await asyncio.sleep(0.05)
        await service.holds(**before)
        await service.stream()
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


BROKEN_H2 = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"  # settings
    b"\x00\x00\x11\x01\x05\x00\x00\x00\x01\x82\x86\x41\x09localhost\x44\x02/\xff"  # GET, of a path that is no ASCII
)


@on_both_loops
async def test_what_a_parser_raises_is_one_line_of_the_log_and_the_end_of_that_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with serving() as service:
        before = service.held()
        reader, writer = await asyncio.open_connection(*service.address)
        writer.write(BROKEN_H2)
        await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await service.holds(**before)
        told = [record for record in caplog.records if record.exc_info or "broken off" in record.getMessage()]
        assert [(record.getMessage(), record.exc_info) for record in told] == [("connection broken off", None)]
        await service.stream()


@on_both_loops
async def test_a_port_that_is_used_again_gets_no_strangers_stream() -> None:
    async with serving() as service:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for _ in range(30):
            first = await service.connect(port)
            await first.send(ASK + b"x")
            await asyncio.sleep(0.001)
            service.clients.pop().vanish()
            second = await service.connect(port)
            await second.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = await second.rest()
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"event:" not in answer
            service.clients.pop().vanish()
        await service.holds(slots=0, streams=0)


@on_both_loops
async def test_a_stream_on_a_unix_socket_is_handed_over(tmp_path: Path) -> None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(tmp_path / "s"))
    sock.listen()
    sock.setblocking(False)
    async with serving(sock=sock) as service:
        client = await service.stream()
        await until(lambda: service.wires == 1)
        service.source.put(item("a:1", "AAPL", at=NOW))
        await client.until(b"AAPL")
        client.leave()
        await service.holds(slots=0, streams=0)


# Who is not handed over


@on_both_loops
@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"GET /api/v2/stream HTTP/1.0\r\nHost: localhost\r\n\r\n", b"HTTP/1.1 200"),
        (
            H2C,
            b"HTTP/1.1 101",
        ),
    ],
    ids=["HTTP/1.0", "h2c"],
)
async def test_older_and_newer_http_goes_the_ordinary_way(request_: bytes, answer: bytes) -> None:
    async with serving() as service:
        client = await service.stream(ask=request_)
        await asyncio.sleep(0.05)
        assert client.received.startswith(answer)
        assert service.wires == 0
        service.source.put(item("a:1", "AAPL", at=NOW))
        await client.until(b'"total":1')
        client.leave()
        await service.holds(slots=0, streams=0)


@on_both_loops
async def test_head_is_answered_and_nothing_is_handed_over() -> None:
    async with serving() as service:
        client = await service.connect()
        await client.send(ASK.replace(b"GET", b"HEAD") + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = await client.until(b'{"status":"ok"}')
        assert received.count(b"HTTP/1.1 200") == 2, "the connection is still Hypercorn's"
        assert service.parts.slots.taken == 0


@on_both_loops
async def test_an_expectation_and_a_body_are_no_trouble() -> None:
    async with serving() as service:
        ask = ASK.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc")
        client = await service.stream(ask=ask)
        await until(lambda: service.wires == 1)
        client.leave()
        await service.holds(slots=0, streams=0)


@on_both_loops
async def test_an_opening_that_fails_gives_everything_back(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as service:
        await service.stream()
        service.clients.pop().leave()
        await service.holds(slots=0, doors=0)
        before = service.held()

        def fail() -> None:
            raise RuntimeError("no totals")

        service.parts.poller.totals = fail  # type: ignore[assignment, method-assign]
        client = await service.connect()
        await client.send(ASK)
        received = await client.rest()
        assert not received.endswith(b"0\r\n\r\n"), "an end that is none must not look like one"
        service.clients.pop().leave()
        assert "no totals" in caplog.text
        del before["doors"]  # the frames of the logged traceback hold one
        await service.holds(**before)


@on_both_loops
async def test_a_name_that_looks_like_a_log_line_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving() as service:
        client = await service.connect()
        await client.send(b"GET /a%0d%0a{forged} HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await client.until(b"HTTP/1.1 404")
    assert "forged" not in caplog.text


# Readers who do not read


@on_both_loops
async def test_a_reader_that_is_stuck_is_ended_and_then_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quartsse.web.stream.UNREAD_SECONDS", 0.1)
    async with serving(SSE_BACKLOG_BYTES="20000") as service:
        stuck, other = await service.stream(), await service.stream()
        await until(lambda: service.wires == 2)
        hub = service.parts.hub
        for number in range(400):
            hub.publish([Event("sentiment_update", f"u{number}", b"x" * 20_000)])
            other.received = b""
            await other.until(b"evt_u%d." % number)
            if len(hub.subscriptions) < 2:
                break
        assert 65_536 < 20_000 * number < 4_000_000, "the kernel keeps little for one reader"
        await service.holds(slots=1, streams=1, subscriptions=1)
        assert b"stream_end" not in await stuck.rest(), "it was cut off before it had read that far"


@on_both_loops
async def test_a_slow_reader_gets_all_that_waited_and_lives() -> None:
    async with serving(SSE_BACKLOG_BYTES="10000000") as service:
        slow = await service.stream()
        await until(lambda: service.wires == 1)
        for number in range(100):
            service.parts.hub.publish([Event("sentiment_update", f"u{number}", b"x" * 20_000)])
            await asyncio.sleep(0)
        assert service.parts.hub.subscriptions[0].waiting_bytes > 0
        received = await slow.until(b"evt_u99.")
        assert [int(number) for number in re.findall(rb"evt_u(\d+)", received)] == list(range(100))


@on_both_loops
async def test_a_reader_that_is_ended_while_it_is_behind_gets_what_waited_and_a_proper_end() -> None:
    async with serving(SSE_BACKLOG_BYTES="10000000") as service:
        slow = await service.stream()
        await until(lambda: service.wires == 1)
        for number in range(100):
            service.parts.hub.publish([Event("sentiment_update", f"u{number}", b"x" * 20_000)])
            await asyncio.sleep(0)
        service.parts.streams.end_all("draining")
        received = await slow.rest()
        assert [int(number) for number in re.findall(rb"evt_u(\d+)", received)] == list(range(100))
        assert received.endswith(b"\r\n0\r\n\r\n")


@on_both_loops
async def test_the_service_ends_in_time_with_readers_who_do_not_read() -> None:
    async with serving(SSE_BACKLOG_BYTES="10000000") as service:
        stuck = [await service.stream() for _ in range(5)]
        others = [await service.stream() for _ in range(20)]
        await until(lambda: service.wires == 25)
        reading = [asyncio.ensure_future(client.rest()) for client in others]
        for number in range(100):
            service.parts.hub.publish([Event("sentiment_update", f"u{number}", b"x" * 20_000)])
            await asyncio.sleep(0)
        await until(lambda: all(b"evt_u99." in client.received for client in others))
        started = time.monotonic()
        service.stop.set()
        endings = await asyncio.gather(*reading)
        await service.holds(slots=0, streams=0)
        assert time.monotonic() - started < 2.5, "half a second on a quiet machine"
        assert all(ending.endswith(b"\r\n0\r\n\r\n") for ending in endings)
        assert len(stuck) == 5
