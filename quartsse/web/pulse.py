"""The pulse: one clock for all streams, that beats and keeps quiet connections awake."""

import asyncio

from quartsse.feed.bell import Bell
from quartsse.feed.poller import Poller
from quartsse.hub.clock import Clock, iso
from quartsse.hub.events import KEEP_ALIVE, Event, Heartbeat
from quartsse.hub.hub import Hub
from quartsse.telemetry.metrics import Telemetry
from quartsse.web.limits import Slots


class Pulse:
    """Sends a heartbeat to everyone at every interval, whatever the feed does, and one more when its state changes.

    Its steps also tell how late the event loop is: a clock of their own would wake an idle process more often.
    """

    def __init__(
        self,
        hub: Hub,
        poller: Poller,
        slots: Slots,
        *,
        interval: float,
        keepalive: float,
        clock: Clock | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.beat = Bell()
        """Rings with every heartbeat, for streams that have not joined a channel yet."""
        self._hub = hub
        self._poller = poller
        self._slots = slots
        self._interval = interval
        self._keepalive = keepalive
        self._clock = clock or Clock()
        self._telemetry = telemetry or Telemetry()
        self._started = self._clock.monotonic()
        self._beaten_at = self._started

    @property
    def uptime(self) -> int:
        """Whole seconds since the start."""
        return int(self._clock.monotonic() - self._started)

    def heartbeat(self) -> Event:
        """A heartbeat that says how things are now."""
        age = self._poller.age
        return self._hub.event(
            "heartbeat",
            Heartbeat(
                timestamp=iso(self._clock.wall()),
                connections=self._slots.taken,
                uptime_seconds=self.uptime,
                feed=self._poller.state,
                feed_age_seconds=None if age is None else round(age, 3),
            ),
        )

    async def run(self) -> None:
        """Beat until cancelled."""
        step = max(0.02, min(0.25, self._interval / 10, self._keepalive / 10))
        state = self._poller.state
        while True:
            before = self._clock.monotonic()
            await asyncio.sleep(step)
            now = self._clock.monotonic()
            self._telemetry.loop_late(max(0.0, now - before - step))
            if now - self._beaten_at >= self._interval or self._poller.state != state:
                state, self._beaten_at = self._poller.state, now
                self._hub.broadcast(self.heartbeat())
                self.beat.ring()
            self._hub.keep_alive(KEEP_ALIVE, self._keepalive)
