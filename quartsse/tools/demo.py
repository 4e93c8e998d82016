"""The demo: a DynamoDB, a writer that makes news, the service and its page, on this machine, with one command."""

import asyncio
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from quartsse.errors import QuartsseError, SettingsError
from quartsse.tools import emulator
from quartsse.tools.news import Newsroom, Record, Writer
from quartsse.tools.tables import create_sentiments, create_users

HOST = "127.0.0.1"
SENTIMENTS = "demo-sentiment-items"
USERS = "demo-users"
SERVICE = (sys.executable, "-m", "quartsse.tools.leash", "quartsse", "serve")
"""`quartsse serve`, but it ends with the demo even if that is killed."""

START_SECONDS = 20.0
"""The longest that a part may take until it answers."""

STOP_SECONDS = 5.0
"""The longest that a child may take to end; then it is killed."""

CONFIGURATIONS = (
    ("alice", "megacaps", "What everybody talks about", ("AAPL", "AMZN", "GOOGL", "META", "MSFT", "NVDA", "TSLA")),
    ("bob", "chips", "Chips", ("AMD", "AVGO", "INTC", "NVDA")),
    ("carol", "dividends", "Quiet dividends", ("BRK.B", "JPM", "KO", "PFE", "V", "XOM")),
)
"""User, configuration, its name, its tickers."""

GROWTH = 1000
"""How many items the window may grow by until the oldest go."""

_NOT_PASSED_ON = ("AWS_", "DYNAMODB_TABLE", "DATABASE_TABLE", "ECS_CONTAINER_")


class DemoBroken(QuartsseError):
    """A part of the demo ended without being told to, or never began; the text says which."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What can be chosen.

    `port` 0 takes any free one; `rate` is in items per second; `items` is how many of the last 24 hours there are to
    begin with. The same `seed` makes the same news.
    """

    port: int = 8080
    rate: float = 1.5
    seed: int | None = None
    items: int = 600


def run(options: DemoOptions) -> int:
    """Run the demo until Ctrl-C or SIGTERM. The exit status is 2 if it cannot start, 1 if a part of it died."""
    try:
        asyncio.run(_until_told(options))
    except SettingsError as error:
        return _say(error, 2)
    except DemoBroken as error:
        return _say(error, 1)
    except KeyboardInterrupt:  # before the signals were ours
        return 0
    return 0


def service_environment(own: Mapping[str, str], endpoint: str, port: int) -> dict[str, str]:
    """The service's variables: those of the user but for AWS's, and what the demo needs.

    A setting that the user has made stays, save for where to listen and what to read.
    """
    kept = {name: value for name, value in own.items() if not name.startswith(_NOT_PASSED_ON)}
    defaults = {
        "SSE_DASHBOARD": "1",
        "SSE_DASHBOARD_USERS": ",".join(f"{user}/{config}" for user, config, *_ in CONFIGURATIONS),
        "SSE_AUTH": "header",
        "SSE_TICKET_SECRET": secrets.token_urlsafe(32),
        "SSE_POLL_INTERVAL": "1",
        "SSE_READ_BUDGET": "200",
        "LOG_LEVEL": "WARNING",
    }
    fixed = {"HOST": HOST, "PORT": str(port), "SENTIMENTS_TABLE": SENTIMENTS, "USERS_TABLE": USERS}
    return defaults | kept | emulator.environment(endpoint) | fixed


def configuration_records() -> list[Record]:
    """The users' configurations; the last in the form that older ones have."""
    records = [_configuration(*configuration) for configuration in CONFIGURATIONS]
    oldest = records[-1]
    del oldest["status"]
    oldest["is_active"] = {"BOOL": True}
    oldest["tickers"] = {"L": [ticker["M"]["symbol"] for ticker in oldest["tickers"]["L"]]}
    return records


def _configuration(user: str, config_id: str, name: str, tickers: tuple[str, ...]) -> Record:
    return {
        "PK": {"S": f"USER#{user}"},
        "SK": {"S": f"CONFIG#{config_id}"},
        "config_id": {"S": config_id},
        "name": {"S": name},
        "tickers": {"L": [{"M": {"symbol": {"S": ticker}}} for ticker in tickers]},
        "status": {"S": "active"},
    }


def _say(error: QuartsseError, status: int) -> int:
    print(f"quartsse: {error}", file=sys.stderr)
    return status


async def _until_told(options: DemoOptions) -> None:
    """Run the demo in a task that the first signal cancels; later ones find it already ending."""
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    demo = asyncio.create_task(_demo(options), name="demo")
    signals = asyncio.create_task(told.wait(), name="signals")
    await asyncio.wait({demo, signals}, return_when=asyncio.FIRST_COMPLETED)
    signals.cancel()
    demo.cancel()
    with suppress(asyncio.CancelledError):
        await demo


async def _demo(options: DemoOptions) -> None:
    """Start everything, each part as soon as it can, and watch over it."""
    began = time.monotonic()
    port = _free_port(options.port)
    if not emulator.installed():
        raise SettingsError("the demo needs moto's server: pip install 'quartsse[demo]'")
    stopped = threading.Event()
    async with _child("the table", *emulator.COMMAND, stdout=asyncio.subprocess.PIPE) as table:
        endpoint = await _while_alive(_address(table), table)
        environment = service_environment(os.environ, endpoint, port)
        async with _child("the service", *SERVICE, env=environment) as service:
            filling = asyncio.to_thread(_fill, endpoint, options)
            writer, _ = await _while_alive(_both(filling, _in_time(_healthy(port))), table, service)
            _introduce(port, options, time.monotonic() - began)
            try:
                await _while_alive(asyncio.to_thread(writer.run, stopped), table, service)
            finally:
                stopped.set()


@dataclass(frozen=True, slots=True)
class _Child:
    """A process of the demo's, by the name that messages call it."""

    name: str
    process: asyncio.subprocess.Process


@asynccontextmanager
async def _child(name: str, *command: str, **options: Any) -> AsyncIterator[_Child]:
    """A child with a pipe as its leash, ended on the way out.

    It has a process group of its own: a terminal sends Ctrl-C to the demo alone, which then ends its parts in order.
    """
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, process_group=0, **options)
    try:
        yield _Child(name, process)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _while_alive[Result](work: Coroutine[Any, Any, Result], *children: _Child) -> Result:
    """The result of some work, unless a child ends before it: then DemoBroken."""
    task = asyncio.create_task(work)
    deaths = {asyncio.create_task(child.process.wait()): child for child in children}
    try:
        await asyncio.wait({task, *deaths}, return_when=asyncio.FIRST_COMPLETED)
        if task.done() and task.exception():  # perhaps because of a death that is about to be seen
            await asyncio.wait(deaths, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
        for death, child in deaths.items():
            if death.done():
                raise DemoBroken(f"{child.name} ended by itself (status {death.result()}), and so does the demo")
        return task.result()
    finally:
        for started in (task, *deaths):
            started.cancel()
        await asyncio.gather(task, *deaths, return_exceptions=True)


async def _both[First, Second](first: Awaitable[First], second: Awaitable[Second]) -> tuple[First, Second]:
    return await asyncio.gather(first, second)


async def _in_time[Result](work: Awaitable[Result]) -> Result:
    try:
        async with asyncio.timeout(START_SECONDS):
            return await work
    except TimeoutError as error:
        raise DemoBroken(f"not ready within {START_SECONDS:g} s") from error


async def _address(table: _Child) -> str:
    """The address that the emulator prints when it listens."""
    assert table.process.stdout is not None  # noqa: S101 (it was made with a pipe)
    return (await _in_time(table.process.stdout.readline())).decode().strip()


def _fill(endpoint: str, options: DemoOptions) -> Writer:
    """Make the tables and what is in them, in a thread; returns who goes on writing."""
    client = emulator.connect(endpoint)
    create_sentiments(client, SENTIMENTS)
    create_users(client, USERS)
    for record in configuration_records():
        client.put_item(TableName=USERS, Item=record)
    writer = Writer(client, SENTIMENTS, Newsroom(options.seed), options.rate, most=options.items + GROWTH)
    writer.seed(datetime.now(UTC), options.items)
    return writer


async def _healthy(port: int) -> None:
    """Wait until the service answers."""
    while not await _answers(port):  # noqa: ASYNC110 (another process: there is no event to wait for)
        await asyncio.sleep(0.05)


async def _answers(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(f"GET /health HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n".encode())
            return (await reader.readline()).startswith(b"HTTP/1.1 200")
        finally:
            writer.close()
    except ConnectionError:
        return False


def _introduce(port: int, options: DemoOptions, seconds: float) -> None:
    base = f"http://{HOST}:{port}"
    print(
        f"\n  quartsse demo: {options.items} items of the last 24 hours, {options.rate:g} new ones a second"
        f" (ready in {seconds:.1f} s)\n\n"
        f"  the page       {base}/\n"
        f"  all of it      curl -N {base}/api/v2/stream\n"
        f"  two tickers    curl -N '{base}/api/v2/stream?tickers=AAPL,MSFT'\n\n"
        "  Ctrl-C ends it.\n",
        flush=True,
    )


def _free_port(port: int) -> int:
    """The port itself, or a free one for 0. Raises SettingsError if another process has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SettingsError(
                f"port {port} of {HOST} cannot be had ({error.strerror}): "
                "choose another with --port, or `make demo DEMO_PORT=…`"
            ) from error
        return int(probe.getsockname()[1])
