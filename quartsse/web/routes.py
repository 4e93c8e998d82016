"""The routes that belong to everyone: the global stream, its snapshot and status, health."""

from quart import Blueprint, Response

from quartsse import __version__
from quartsse.hub.filters import Filter
from quartsse.telemetry import prometheus
from quartsse.telemetry.meter import Meter
from quartsse.web.answers import answer
from quartsse.web.auth import User
from quartsse.web.limits import Slot
from quartsse.web.openings import Openings
from quartsse.web.parameters import Asked
from quartsse.web.parts import Parts
from quartsse.web.snapshots import snapshot
from quartsse.web.stream import Stream, View


def routes(openings: Openings) -> Blueprint:
    """The global stream, and what is known about all streams."""
    blueprint = Blueprint("routes", __name__)
    parts = openings.parts

    async def start(slot: Slot, wanted: Asked, _: User | None) -> Stream:
        return parts.streams.start(slot, View(Filter(wanted.tickers), parts.poller.totals), wanted.last_event_id)

    @blueprint.get("/api/v2/stream")
    async def stream() -> Response:
        return await openings.open(start)

    @blueprint.get("/api/v2/stream/snapshot")
    async def snapshot_of_all() -> Response:
        return await snapshot(parts, Filter(openings.asked().tickers))

    @blueprint.get("/api/v2/stream/status")
    async def status() -> Response:
        return answer(
            {
                "connections": parts.slots.taken,
                "max_connections": parts.slots.limit,
                "available": parts.slots.limit - parts.slots.taken,
                "uptime_seconds": parts.pulse.uptime,
                "version": __version__,
                "instance": parts.hub.instance,
                "feed": _feed(parts),
            }
        )

    return blueprint


def health(parts: Parts) -> Blueprint:
    """Whether the process answers, and whether its feed is fresh."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/health")
    async def process() -> Response:
        return answer({"status": "ok"})

    @blueprint.get("/health/feed")
    async def feed() -> Response:
        feed = _feed(parts)
        return answer(feed, status=503 if feed["state"] == "stale" else 200)

    return blueprint


def contract() -> Blueprint:
    """The contract as data."""
    blueprint = Blueprint("contract", __name__)

    @blueprint.get("/openapi.json")
    async def openapi() -> Response:
        from quartsse.web.openapi import document  # on demand: a cold start has no use for it

        return answer(document())

    return blueprint


def scraped(meter: Meter) -> Blueprint:
    """The metrics, for Prometheus."""
    blueprint = Blueprint("scraped", __name__)

    @blueprint.get("/metrics")
    async def metrics() -> Response:
        return Response(prometheus.text(meter), content_type=prometheus.CONTENT_TYPE)

    return blueprint


def _feed(parts: Parts) -> dict[str, object]:
    """The feed's status, as it stands in the status and in the health of the feed."""
    status = parts.poller.status()
    feed: dict[str, object] = {
        "state": status.state,
        "age_seconds": status.age_seconds,
        "items": status.items,
        "sweep_seconds": status.sweep_seconds,
        "read_units_per_minute": status.read_units_per_minute,
        "lateness_seconds": status.lateness_seconds,
        "hot_seconds": status.hot_seconds,
    }
    told = {"reason": status.reason, "advice": status.advice}
    return feed | {name: text for name, text in told.items() if text is not None}
