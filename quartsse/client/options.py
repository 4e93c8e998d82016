"""How patient a stream is, and what it says of itself."""

import asyncio
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from quartsse.client.parser import MAX_EVENT_BYTES


@dataclass(frozen=True, slots=True)
class Pace:
    """Time and chance as a stream sees them. Tests hand in their own, and do not wait."""

    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    random: Callable[[], float] = random.random
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How patient a stream is, and how much it holds. Times are in seconds."""

    connect_timeout: float = 10.0
    """Until the answer's head is there."""
    idle_timeout: float = 45.0
    """Silence after which a connection counts as dead; the service sends something every 15 s."""
    first_backoff: float = 3.0
    """Of the first wait, until the server names a `retry:` of its own."""
    max_backoff: float = 30.0
    """What the doubling backoff stops at; a longer `retry:` or `Retry-After` is still obeyed."""
    max_attempts: int | None = None
    """Attempts in a row without an event before `GaveUp`; None for ever more."""
    max_event_bytes: int = MAX_EVENT_BYTES
    remember: int = 50_000
    """Items whose last update is kept to recognise repeats; the longest unheard is forgotten, and may repeat."""
    compression: bool = False
    """Ask for gzip: fewer bytes, for some CPU and up to 40 KB a stream (zlib's window)."""
    tls: ssl.SSLContext | None = None
    """None for the system's certificates. Many streams had better share one context."""
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True, slots=True)
class State:
    """Where a stream stands. `attempt` counts from 1, from anew after each connection that brought an event.

    `seconds` is how long a `waiting` one waits; `reason` is why it was `closed` or `refused`, or what it waits for.
    """

    name: Literal["connecting", "open", "closed", "waiting", "refused"]
    attempt: int
    reason: str = ""
    seconds: float = 0.0
