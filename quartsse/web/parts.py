"""The parts that the routes work with."""

from dataclasses import dataclass

from quartsse.feed.poller import Poller
from quartsse.hub.hub import Hub
from quartsse.telemetry.metrics import Telemetry
from quartsse.telemetry.tracing import Tracer
from quartsse.web.limits import Slots
from quartsse.web.origins import Cors, Hosts
from quartsse.web.pulse import Pulse
from quartsse.web.stream import Streams


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that `create_app` is handed."""

    hub: Hub
    poller: Poller
    slots: Slots
    pulse: Pulse
    streams: Streams
    hosts: Hosts
    cors: Cors
    telemetry: Telemetry
    tracer: Tracer
    dashboard: bool = False
    dashboard_users: tuple[str, ...] = ()
