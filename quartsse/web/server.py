"""The server: the listening socket, the signals, and Hypercorn in this process."""

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Quart

from quartsse.errors import SettingsError
from quartsse.web.handover import AsyncioWithDoors, UvloopWithDoors

logger = logging.getLogger(__name__)

BACKLOG = 4096
SEND_BUFFER = 65_536
"""Bytes that the kernel keeps for one reader; by default it takes 4 MB before anybody notices that it is stuck."""

USER_TIMEOUT_MS = 20_000
"""After how long without an answer from the peer's kernel a connection is dead (RFC 5482); else it takes hours."""

KEEP_ALIVE_SECONDS = 75
"""Longer than a load balancer's idle time-out (ALB: 60 s), or it sends requests into connections that are closing."""


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens, with options that every connection inherits. Raises SettingsError if it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise SettingsError(f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}") from error
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def allow_files() -> None:
    """Raise the soft limit of open files to the hard one: it is 1,024 by default, and every stream is a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def event_loop(*, fast: bool = True) -> asyncio.Runner:
    """What runs everything: uvloop with doors, or asyncio's own loop with doors."""
    return asyncio.Runner(loop_factory=UvloopWithDoors if fast else AsyncioWithDoors)


def stop_at_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set. A second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        logger.info("stopping", extra={"signal": signal.Signals(number).name})
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stop


async def run_server(
    app: Quart, sock: socket.socket, stop: Awaitable[object], drain: Callable[[], Awaitable[None]]
) -> None:
    """Serve until `stop`, then `drain` the streams, then let Hypercorn end.

    Hypercorn waits for every open connection before it does anything else at its end (its issue 308), so streams
    must be gone by then.
    """

    async def stopped() -> None:
        await stop
        await drain()

    config = Config()
    config.bind = [f"fd://{sock.detach()}"]  # its own from here on: it closes it
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn")
    config.include_server_header = False
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.graceful_timeout = 0.2
    config.shutdown_timeout = 1
    config.backlog = BACKLOG
    config.keep_alive_max_requests = 100_000
    await serve(app, config, shutdown_trigger=stopped)


def calm_the_collector() -> None:
    """Take what the start has made out of the garbage collector's sight, and let it look, but more rarely.

    Not looked through first: that takes as long as a fifth of the imports, and a viewer waits for it.

    Else a full collection over modules that never change holds the loop for up to 200 ms after a burst of connects.
    What a connect leaves behind is collected young and soon, or ten thousand of them cost 0.6 KiB more each. What was
    open at such a moment has grown old by its end and needs a full collection, which Python makes when there is a
    quarter more than the last one left: that has to count what is not frozen, or it is never made.
    """
    gc.freeze()
    gc.enable()
    gc.collect()
    gc.set_threshold(20_000, 5, 2)


@contextmanager
def growing() -> Iterator[None]:
    """No full collections while a large window is loaded, and what has been loaded is out of the collector's sight.

    A collection that walks a hundred thousand items holds the loop for 60 ms, and each quarter more of them would bring
    another one. An item is in no cycle: it is freed when it leaves the window, whether the collector sees it or not.
    What streams that are open at the end hold in cycles is collected no more, once in a process's life.
    """
    young, middle, full = gc.get_threshold()
    gc.set_threshold(young, middle, 1_000_000)
    try:
        yield
    finally:
        gc.set_threshold(young, middle, full)
    gc.collect(1)
    gc.freeze()
