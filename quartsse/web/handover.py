"""The hand-over: how a connection gets from Quart and Hypercorn to a stream that writes to it directly.

The loop puts a door between each connection and its protocol. When a stream's opening has been sent, it takes the
transport out of the door; Hypercorn's side is told that its connection has gone, and its tasks end. What is left of a
reader is a transport and a small protocol object. Only public interfaces of asyncio are used for it.
"""

import asyncio
import contextvars
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

logger = logging.getLogger(__name__)

DOOR: contextvars.ContextVar["Door | None"] = contextvars.ContextVar("door", default=None)
"""The door of the connection that this task serves."""

REAP_SECONDS = 0.2
"""How long a connection's own task may take to end by itself after its client has left."""


class Door(asyncio.Transport):
    """What Hypercorn holds in place of the transport. Inert once the transport has been taken out of it."""

    def __init__(self, transport: asyncio.Transport, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self._transport: asyncio.Transport | None = transport
        self._protocol = protocol
        self._reaped = False
        self.task: asyncio.Task[Any] | None = None

    def hand_over(self, heir: asyncio.Protocol) -> asyncio.Transport:
        """Take the transport out and give it to the heir. Raises ConnectionResetError when the client has gone."""
        transport, self._transport = self._transport, None
        if transport is None or transport.is_closing():
            self._transport = transport
            raise ConnectionResetError
        transport.set_protocol(heir)
        transport.resume_reading()  # Hypercorn may have paused it: then nobody would see the client leave
        self._protocol.connection_lost(None)  # Hypercorn closes what it holds: nothing
        return transport

    def shut(self) -> None:
        """Let go of a transport that is gone; its task has a moment to see that by itself.

        After a pipelined byte Hypercorn waits for ever, blind to the client's leaving (h11.PAUSED).
        """
        self._transport = None
        if self.task is not None and not self.task.done():
            asyncio.get_running_loop().call_later(REAP_SECONDS, self._reap, context=contextvars.Context())

    async def run[T](self, work: Coroutine[Any, Any, T]) -> T | None:
        """The connection's own work. Reaped, it just ends.

        At its end Hypercorn gathers its connections, and would take one that was cancelled for its own cancellation.
        What it raises of malformed HTTP/2 (KeyError and others, from h2 and from itself) ends this connection and is
        one line of the log: a traceback for each is what anybody could fill the log with. What goes wrong in the app
        never comes this way: that is met and logged where it happens.
        """
        try:
            return await work
        except asyncio.CancelledError:
            if not self._reaped:
                raise
        except Exception as error:  # noqa: BLE001 - whatever a parser makes of bytes from outside
            logger.info("connection broken off", extra={"error": _kinds(error)})
            self.close()
        return None

    def _reap(self) -> None:
        if self.task is not None and not self.task.done():
            self._reaped = True
            self.task.cancel()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The transport's, while it is there."""
        return default if self._transport is None else self._transport.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Pass bytes on, while the transport is there and open (uvloop raises on a closed one)."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def write_eof(self) -> None:
        """Pass it on."""
        if self._transport is not None:
            self._transport.write_eof()

    def can_write_eof(self) -> bool:
        """As the transport says."""
        return self._transport is not None and self._transport.can_write_eof()

    def close(self) -> None:
        """Close the transport, after what is in it has been sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the transport at once."""
        if self._transport is not None:
            self._transport.abort()

    def is_closing(self) -> bool:
        """Whether there is nothing more to be done with it."""
        return self._transport is None or self._transport.is_closing()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Not for a door: its protocol stays."""
        raise NotImplementedError

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol behind the door."""
        return self._protocol

    def pause_reading(self) -> None:
        """Pass it on."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Pass it on."""
        if self._transport is not None:
            self._transport.resume_reading()

    def is_reading(self) -> bool:
        """As the transport says."""
        return self._transport is not None and self._transport.is_reading()

    def get_write_buffer_size(self) -> int:
        """As the transport says."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """As the transport says."""
        return (0, 0) if self._transport is None else self._transport.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Pass them on."""
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high, low)


def _kinds(error: BaseException) -> str:
    """What kinds of errors these are, and nothing of what they say: it holds bytes from outside."""
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(sorted({_kinds(one) for one in error.exceptions}))
    return type(error).__name__


class _Doors:
    """What makes an event loop put a door between each connection and its protocol.

    The door travels in a context variable, set while the protocol is told of its connection: Hypercorn's task is made
    there, and Quart's inherits it. By peer address, a stream would go to a stranger when a port is used again.
    """

    _opening: Door | None = None

    async def create_server(self, protocol_factory: Any, *args: Any, **kwargs: Any) -> Any:
        """A server whose protocols stand behind doors."""
        behind_doors = super().create_server(lambda: self._behind_a_door(protocol_factory()), *args, **kwargs)  # type: ignore[misc]
        return await behind_doors

    def create_task[T](self, coro: Coroutine[Any, Any, T], **kwargs: Any) -> asyncio.Task[T]:
        """A task; the first one that is made while a door opens is that connection's own."""
        door, self._opening = self._opening, None
        if door is None:
            return super().create_task(coro, **kwargs)  # type: ignore[misc, no-any-return]
        door.task = super().create_task(door.run(coro), **kwargs)  # type: ignore[misc]
        return door.task

    def _behind_a_door(self, protocol: Any) -> Any:
        made: Callable[[asyncio.BaseTransport], None] = protocol.connection_made
        lost: Callable[[Exception | None], None] = protocol.connection_lost
        doors: list[Door] = []

        def connection_made(transport: asyncio.Transport) -> None:
            door = Door(transport, protocol)
            doors.append(door)
            context = contextvars.copy_context()
            context.run(DOOR.set, door)
            self._opening = door
            context.run(made, door)
            self._opening = None

        def connection_lost(error: Exception | None) -> None:
            door = doors.pop()
            door.shut()
            del protocol.connection_made, protocol.connection_lost
            lost(error)

        protocol.connection_made, protocol.connection_lost = connection_made, connection_lost
        protocol.eof_received = lambda: False
        return protocol


class UvloopWithDoors(_Doors, uvloop.Loop):  # type: ignore[misc]
    """uvloop, with doors."""


class AsyncioWithDoors(_Doors, asyncio.SelectorEventLoop):
    """asyncio's own loop, with doors."""
