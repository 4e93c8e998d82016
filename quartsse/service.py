"""The service: the parts made, handed to each other, and run together."""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from quartsse import __version__
from quartsse.errors import SettingsError
from quartsse.feed.configurations import Configurations, UsersTable
from quartsse.feed.dynamodb import Client, client, lazily
from quartsse.feed.poller import Poller
from quartsse.feed.query import QuerySource
from quartsse.feed.source import Source
from quartsse.feed.streams import StreamsSource
from quartsse.feed.window import Window
from quartsse.hub.clock import Clock
from quartsse.hub.hub import Hub
from quartsse.settings import Settings
from quartsse.telemetry.emf import Emf
from quartsse.telemetry.meter import Meter
from quartsse.telemetry.metrics import Telemetry
from quartsse.telemetry.process import memory_bytes, open_files
from quartsse.telemetry.tracing import Tracer, XRay
from quartsse.web.app import create_app
from quartsse.web.auth import Authenticator, HeaderAuth, jwt_auth
from quartsse.web.configurations import Private
from quartsse.web.limits import Slots
from quartsse.web.openings import Openings
from quartsse.web.origins import Cors, Hosts
from quartsse.web.parts import Parts
from quartsse.web.pulse import Pulse
from quartsse.web.server import calm_the_collector, growing, run_server, stop_at_signals
from quartsse.web.stream import Streams, empty_context
from quartsse.web.tickets import Tickets

logger = logging.getLogger(__name__)


async def serve(settings: Settings, sock: socket.socket) -> None:
    """Run the service on a listening socket until a signal, or until one of its tasks fails.

    Raises SettingsError for a setting that cannot be used, before anything has begun.
    """
    meter = None if settings.metrics == "off" else Meter()
    tracer = XRay(on_lambda=settings.on_lambda) if settings.tracing == "xray" else None
    parts = make_parts(settings, meter=meter, tracer=tracer, loading=growing)
    private = make_private(settings, parts)
    stop = stop_at_signals()
    tasks = [_background(parts.poller.run(), "poller"), _background(parts.pulse.run(), "pulse")]
    if private.configurations is not None:
        tasks.append(_background(private.configurations.run(), "configurations"))
    if meter is not None:
        tasks += [_background(work, name) for name, work in _measuring(settings, parts, meter)]
    for task in tasks:
        task.add_done_callback(lambda _: stop.set())
    app = create_app(make_openings(settings, parts), private, meter if settings.metrics == "prometheus" else None)
    logger.info("listening", extra={"address": _address(sock), "version": __version__, "instance": parts.hub.instance})
    calm_the_collector()
    if tracer is not None:
        tracer.start()
    try:
        await run_server(app, sock, stop.wait(), parts.streams.close)
    finally:
        if tracer is not None:
            tracer.close()
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


def make_parts(
    settings: Settings,
    source: Callable[[Window], Source] | None = None,
    meter: Meter | None = None,
    tracer: Tracer | None = None,
    loading: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Parts:
    """The parts of a service with these settings. Needs a running loop.

    `source` makes another source than DynamoDB; `loading` is held while the window is read for the first time.
    """
    clock, loop = Clock(), asyncio.get_running_loop()
    telemetry, spans = meter or Telemetry(), tracer or Tracer()
    nobody = empty_context()
    hub = Hub(
        clock=clock,
        log_events=settings.log_events,
        resume_margin=settings.resume_margin,
        backlog_bytes=settings.backlog_bytes,
        retry_ms=settings.retry_ms,
        schedule=lambda call: loop.call_soon(call, context=nobody),
    )
    window = Window(settings.window_hours)
    poller = Poller(
        (source or _source(settings, clock, telemetry))(window),
        window,
        hub,
        interval=settings.poll_interval,
        idle_grace=settings.idle_grace,
        metrics_interval=settings.metrics_interval,
        clock=clock,
        telemetry=telemetry,
        tracer=spans,
        loading=loading,
    )
    slots = Slots(
        settings.max_connections,
        per_user=settings.max_connections_per_user,
        per_address=settings.max_connections_per_address,
    )
    pulse = Pulse(
        hub,
        poller,
        slots,
        interval=settings.heartbeat_interval,
        keepalive=settings.keepalive_interval,
        clock=clock,
        telemetry=telemetry,
    )
    streams = Streams(
        hub,
        poller,
        pulse,
        retry_ms=settings.retry_ms,
        drain_seconds=settings.drain_seconds,
        max_age=settings.max_stream_age,
        handover=settings.handover,
        clock=clock,
        telemetry=telemetry,
    )
    with _named("SSE_ALLOWED_HOSTS"):
        hosts = Hosts(settings.allowed_hosts, settings.host)
    with _named("SSE_CORS_ORIGINS"):
        cors = Cors(settings.cors_origins)
    return Parts(
        hub, poller, slots, pulse, streams, hosts, cors, telemetry, spans, settings.dashboard, settings.dashboard_users
    )


def _measuring(settings: Settings, parts: Parts, meter: Meter) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
    """What the meter watches, and the tasks that do so."""
    poller = parts.poller
    meter.watch("Connections", lambda: parts.slots.taken)
    meter.watch("ConnectionsShare", lambda: 100 * parts.slots.taken / parts.slots.limit)
    meter.watch("FeedAge", lambda: poller.age)
    meter.watch("FeedStale", lambda: int(poller.state == "stale"))
    meter.watch("Items", lambda: len(poller.window))
    meter.watch("SweepPeriod", lambda: poller.status().sweep_seconds)
    meter.watch("Memory", memory_bytes)
    meter.watch("OpenFiles", open_files)
    if settings.metrics == "emf":
        transport = "lambda" if settings.on_lambda else "ecs"
        dimensions = {"Service": "quartsse", "Environment": settings.environment, "Transport": transport}
        emf = Emf(meter, dimensions, parts.streams.clock.wall)
        if settings.on_lambda:  # which freezes the process when its last response has ended
            parts.streams.on_quiet = emf.flush
        yield "emf", emf.run()


def make_openings(settings: Settings, parts: Parts) -> Openings:
    """What turns requests into streams."""
    return Openings(
        parts,
        trusted_hops=settings.trusted_hops,
        on_lambda=settings.on_lambda,
        deadline_margin=settings.deadline_margin,
        compression=settings.compression == "on",
    )


def make_private(settings: Settings, parts: Parts) -> Private:
    """What private streams need. Raises SettingsError for `SSE_JWT_…` that cannot be used or do not go together."""
    clock, jwt = parts.streams.clock, settings.auth == "jwt"
    authenticator: Authenticator = _jwt(settings, clock) if jwt else HeaderAuth()
    tickets = None
    if settings.ticket_secret is not None:
        tickets = Tickets(settings.ticket_secret.get_secret_value(), clock, challenge=jwt)
    elif settings.users_table:
        logger.info("SSE_TICKET_SECRET is not set: tickets, which browsers need for private streams, are off")
    configurations = None
    if settings.users_table:
        table = UsersTable(_client(settings, parts.telemetry), settings.users_table, settings.users_keys)
        configurations = Configurations(table, settings.config_interval)
    return Private(authenticator, tickets, configurations)


def _source(settings: Settings, clock: Clock, telemetry: Telemetry) -> Callable[[Window], Source]:
    tables = _client(settings, telemetry)

    def query(window: Window) -> Source:
        return QuerySource(
            tables,
            settings.sentiments_table,
            settings.index,
            budget=settings.read_budget,
            population=window,
            clock=clock,
        )

    if settings.source == "query":
        return query
    streams = _client(settings, telemetry, "dynamodbstreams")
    return lambda window: StreamsSource(
        streams, settings.sentiments_table, query(window), arn=settings.stream_arn, clock=clock
    )


def _client(settings: Settings, telemetry: Telemetry, service: str = "dynamodb") -> Callable[[], Client]:
    """A client that counts throttles: its threads see them, and the loop counts."""
    loop = asyncio.get_running_loop()

    def count() -> None:
        with suppress(RuntimeError):  # the loop is closed: a thread that nobody waits for any more
            loop.call_soon_threadsafe(telemetry.throttled)

    return lazily(lambda: client(settings.region, service, on_throttle=count))


def _jwt(settings: Settings, clock: Clock) -> Authenticator:
    with _named():
        return jwt_auth(
            clock,
            jwks_url=settings.jwt_jwks_url,
            key=settings.jwt_key.get_secret_value() if settings.jwt_key else None,
            algorithms=settings.jwt_algorithms,
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
        )


@contextmanager
def _named(variable: str = "") -> Iterator[None]:
    """Turn what is wrong with a value into SettingsError, with the variable's name where the text lacks it."""
    try:
        yield
    except ValueError as error:
        raise SettingsError(f"{variable}: {error}" if variable else str(error)) from error


def _background(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """A task in a context with no door in it: it would keep its first viewer's connection alive."""
    return asyncio.get_running_loop().create_task(work, name=name, context=empty_context())


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"{host}:{port}"
