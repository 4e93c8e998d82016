"""A link does what it is told to, to whoever speaks through it."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.proof.chaos.link import BUFFER, Link


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    """A link to somebody who says everything back, until they hear nothing more."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(1000):
            writer.write(piece)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    link = Link(server.sockets[0].getsockname()[1], slow_bytes=20_000)
    await link.start()
    yield link
    await link.stop()
    server.close()
    server.close_clients()
    await server.wait_closed()


async def speaking(link: Link) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection through it that works."""
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    writer.write(b"hello")
    assert await asyncio.wait_for(reader.readexactly(5), 5) == b"hello"
    return reader, writer


async def test_what_is_refused_is_cut_and_comes_through_again_afterwards_at_the_same_port(link: Link) -> None:
    reader, writer = await speaking(link)
    port = link.port
    await link.set("refusing")
    assert await asyncio.wait_for(reader.read(), 5) == b"", "it is over"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    await link.set("open")
    assert link.port == port
    (await speaking(link))[1].close()


async def test_what_is_swallowed_arrives_when_that_is_over(link: Link) -> None:
    reader, writer = await speaking(link)
    await link.set("swallowing")
    late_reader, late_writer = await asyncio.open_connection("127.0.0.1", link.port)
    for one in (writer, late_writer):
        one.write(b"anyone?")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(late_reader.read(1), 0.1)
    await link.set("open")
    for both in (reader, late_reader):
        assert await asyncio.wait_for(both.readexactly(7), 5) == b"anyone?"
    writer.close()
    late_writer.close()


async def test_what_is_slow_arrives_slowly_and_the_rest_at_once_when_that_is_over(link: Link) -> None:
    reader, writer = await speaking(link)
    await link.set("slow")
    began = time.monotonic()
    writer.write(bytes(10 * BUFFER))
    await asyncio.wait_for(reader.readexactly(600), 10)
    assert time.monotonic() - began >= 0.2
    await link.set("open")
    await asyncio.wait_for(reader.readexactly(10 * BUFFER - 600), 5)
    writer.close()


async def test_an_end_is_passed_on(link: Link) -> None:
    reader, writer = await speaking(link)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
