"""Readers of every kind: that read, stop, say too much or break off; and what is left of a stream's bytes."""

import asyncio
import json
import random
import socket
from dataclasses import dataclass

import pytest

from quartsse.client import Parser, ServerEvent
from tests.served import Served
from tests.web.serving import Reply, request

RECEIVE_BUFFER = 4096
ASK = b"GET /api/v2/stream?tickers=* HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def open_stream(served: Served, query: str = "?tickers=*", last_event_id: str = "") -> Reply:
    """A stream whose opening has been read, by a reader that goes on reading."""
    reply = await request(served.port, f"/api/v2/stream{query}", headers={"Last-Event-ID": last_event_id})
    await reply.until("metrics")
    return reply


async def ending(reply: Reply) -> dict[str, object]:
    """The last event of a stream, behind which nothing comes but a proper end."""
    last = (await reply.until("stream_end", seconds=10))[-1]
    with pytest.raises(EOFError):
        await reply.events(1)
    told: dict[str, object] = json.loads(last["data"])
    assert told["retry_ms"] == int(last["retry"])
    return told


def stopped_reader(served: Served, ask: bytes = ASK) -> socket.socket:
    """A reader that has asked and does not read, with as little room as the kernel lets it have."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    sock.connect(("127.0.0.1", served.port))
    sock.settimeout(10)
    sock.sendall(ask)
    return sock


def pipelining_reader(served: Served) -> socket.socket:
    """A reader that has sent a byte more than its request, and has read the opening."""
    sock = socket.create_connection(("127.0.0.1", served.port), timeout=5)
    sock.sendall(ASK + b"G")
    read_until(sock, b"event: metrics")
    return sock


async def come_and_go(port: int, chance: random.Random) -> None:
    """Connect, and break off at some point: before the head, before the body, in the opening, in a heartbeat."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    point = chance.choice(("connected", "half asked", "asked", "head", "opening", "heartbeat"))
    writer.write({"connected": b"", "half asked": ASK[:20]}.get(point, ASK) + b"G" * chance.choice((0, 0, 0, 1)))
    try:
        async with asyncio.timeout(3):
            if point in ("head", "opening", "heartbeat"):
                await reader.readuntil(b"\r\n\r\n")
            if point == "opening":  # of 50 KB
                await reader.readexactly(chance.randrange(1, 30_000))
            if point == "heartbeat":
                await reader.readuntil(b"event: metrics")
                await reader.readuntil(b"event: hear")
            await asyncio.sleep(chance.choice((0, 0, 0.001, 0.01)))
    except (TimeoutError, asyncio.LimitOverrunError):
        pass  # the machine stands still, or there is more to read than one likes: then this is where it breaks off
    finally:
        if chance.random() < 0.5:
            writer.transport.abort()
        writer.close()


def read_until(sock: socket.socket, wanted: bytes) -> bytes:
    """Everything up to the piece that completes `wanted`."""
    received = b""
    while wanted not in received:
        piece = sock.recv(65_536)
        assert piece, f"ended before {wanted!r}: {received[-300:]!r}"
        received += piece
    return received


def read_bytes(sock: socket.socket, count: int) -> None:
    """Read so many bytes, or a few more; fewer if the connection ends."""
    while count > 0 and (piece := sock.recv(4096)):
        count -= len(piece)


@dataclass
class Rest:
    """What a reader found when it looked again: its events; whether the stream has its end, or was cut off."""

    events: list[ServerEvent]
    whole: bool
    reset: bool

    def said(self, name: str) -> list[ServerEvent]:
        """The events of a name."""
        return [event for event in self.events if event.event == name]


def rest(sock: socket.socket) -> Rest:
    """All that comes until the connection ends, from the response's head on."""
    received, reset = bytearray(), False
    try:
        while piece := sock.recv(65_536):
            received += piece
    except ConnectionResetError:
        reset = True
    content = bytes(received).partition(b"\r\n\r\n")[2]
    body, whole = _dechunked(content)
    return Rest(list(Parser().feed(body)), whole, reset)


def _dechunked(content: bytes) -> tuple[bytes, bool]:
    """A chunked body, and whether it has its last chunk."""
    body = bytearray()
    while line := content.partition(b"\r\n"):
        size = int(line[0] or b"0", 16) if line[1] else None
        if size is None or len(line[2]) < size + 2:
            return bytes(body), False
        if size == 0:
            return bytes(body), True
        body += line[2][:size]
        content = line[2][size + 2 :]
    return bytes(body), False
