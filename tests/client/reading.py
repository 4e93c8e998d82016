"""A stream against a server that does as it is told, in time that passes by itself."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from quartsse.client import (
    Pace,
    State,
    Stream,
    StreamOptions,
    stream,
)
from tests.adversary import Adversary, Seen, Step, block, head


@dataclass
class Instant:
    """Time that passes when somebody sleeps, and dice that always show the same."""

    chance: float = 1.0
    now: float = 0.0
    waits: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(round(seconds, 6))
        self.now += seconds

    def options(self, **others: float | bool | ssl.SSLContext | None) -> StreamOptions:
        pace = Pace(self.sleep, lambda: self.chance, lambda: self.now, lambda: 1_800_000_000 + self.now)
        return replace(StreamOptions(idle_timeout=5, pace=pace), **others)  # type: ignore[arg-type]


async def take(events: Stream, count: int) -> list[str]:
    """The data of the next so many events."""
    async with asyncio.timeout(20):
        return [(await anext(events)).data for _ in range(count)]


@asynccontextmanager
async def reading(
    *scripts: Sequence[Step] | Callable[[Seen], Sequence[Step]],
    time: Instant | None = None,
    on_state: Callable[[State], None] | None = None,
    **options: float | bool | None,
) -> AsyncIterator[tuple[Stream, Adversary]]:
    """A stream on an adversary that plays these scripts."""
    chosen = (time or Instant()).options(**options)
    async with Adversary(*scripts) as server, stream(server.url, on_state=on_state, options=chosen) as events:
        yield events, server


ONE, TWO, THREE = block("1", event_id="a"), block("2", event_id="b"), block("3", event_id="c")
FULL: Step = head("503 Service Unavailable", Content_Length="24") + b'{"detail":"Full, sorry"}'
REFUSED: list[list[Step]] = [[FULL]]
