"""The two clocks: one that only goes forward, for timers, and the one on the wall, to be shown."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds from both clocks. Tests hand in their own."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


def iso(seconds: float) -> str:
    """Unix seconds as every time on the wire is written: `2025-12-02T10:30:00.000Z`, to the millisecond."""
    moment = datetime.fromtimestamp(round(seconds, 3), UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
