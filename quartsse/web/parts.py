"""The parts that the routes work with."""

import logging
from dataclasses import dataclass

from quartsse.errors import Refused
from quartsse.feed.poller import Poller
from quartsse.hub.hub import Hub
from quartsse.telemetry.metrics import Telemetry
from quartsse.telemetry.tracing import Tracer
from quartsse.web.limits import Slots
from quartsse.web.origins import Cors, Hosts
from quartsse.web.pulse import Pulse
from quartsse.web.stream import Streams

logger = logging.getLogger(__name__)


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

    def tell(self, refused: Refused, *, politely: bool = False) -> None:
        """Say that a request was refused; `politely`: with a stream that ends at once."""
        self.telemetry.refused(refused.reason)
        logger.info("refused", extra={"status": refused.status, "reason": refused.reason, "politely": politely})
