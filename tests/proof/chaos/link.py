"""A stretch of network between two who speak TCP: it passes bytes on, refuses, swallows, or trickles."""

import asyncio
import socket
from contextlib import suppress
from typing import Literal

PIECE = 4096
BUFFER = 4096
"""Bytes that the kernel may keep on either side: little, so that who is slow beyond a link is felt before it."""

type State = Literal["open", "refusing", "swallowing", "slow"]


class Link:
    """Listens at a port and connects each caller to another.

    `refusing` breaks every connection and lets nobody in. `swallowing` lets everybody in and passes nothing on, as
    where packets vanish: afterwards what was under way arrives. `slow` passes on `slow_bytes` a second each way.
    """

    def __init__(self, to: int, slow_bytes: int = 2000) -> None:
        self.port = 0
        self._to = to
        self._slow_bytes = slow_bytes
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._fast = asyncio.Event()

    async def start(self) -> None:
        """Listen."""
        await self.set("open")

    async def set(self, state: State) -> None:
        """Be like this from now on."""
        _switch(self._open, on=state in ("open", "slow"))
        _switch(self._fast, on=state != "slow")
        if state == "refusing":
            await self.stop()
        elif self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=PIECE)
            self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more, and break every connection."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        away: asyncio.StreamWriter | None = None
        writer.transport.set_write_buffer_limits(0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        try:
            await self._open.wait()
            answers, away = await self._connect()
            asking = asyncio.create_task(self._pass_on(reader, away))
            answering = asyncio.create_task(self._pass_on(answers, writer))
            try:
                await asyncio.wait({asking, answering}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                asking.cancel()
                answering.cancel()
                await asyncio.gather(asking, answering, return_exceptions=True)
            if answering.cancelled():
                writer.transport.abort()
        except OSError:
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()
            if away is not None:
                away.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._to))
            return await asyncio.open_connection(sock=sock, limit=PIECE)
        except BaseException:
            sock.close()
            raise

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on everything up to the end; a broken connection is an end too."""
        with suppress(OSError):
            while piece := await reader.read(PIECE if self._fast.is_set() else self._slow_bytes):
                if not self._fast.is_set():
                    with suppress(TimeoutError):  # until it is fast again, or the piece is due
                        await asyncio.wait_for(self._fast.wait(), len(piece) / self._slow_bytes)
                await self._open.wait()
                writer.write(piece)
                await writer.drain()


def _switch(event: asyncio.Event, *, on: bool) -> None:
    if on:
        event.set()
    else:
        event.clear()
