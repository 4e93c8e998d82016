"""The whole service over a source in memory that ticks: `python -m tests.bench.service`, settings as ever.

Everything but DynamoDB is the real thing: the poller reads all items every time, the window finds what has changed.
Standard input takes commands, one a line: `pace SECONDS EVENTS` (so many events at every read, one read every so many
seconds), `own SECONDS` (at every read one event for each of 500 tickers), `credits COUNT` (so many more events, as soon
as they can be read), `rest`.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from unittest.mock import patch

from quartsse import service
from quartsse.feed.items import Item, key_of, moment
from quartsse.feed.source import FOREVER, Batch
from quartsse.hub.clock import iso
from quartsse.settings import settings_from
from quartsse.telemetry.logs import log_to_stderr
from quartsse.web.server import event_loop, listening_socket
from quartsse.web.stream import empty_context

ITEMS = 500
TICKERS = 60
HOT = 50
OWN = 500


def item(name: str, ticker: str, score: float, source: str = "bench") -> Item:
    """An item of an hour ago."""
    stamp = iso(time.time() // 3600 * 3600 - 3600)
    return Item(key_of(name, stamp), moment(stamp), "positive", score, score, (ticker,), source)


class TickingSource:
    """Items in memory, of which some change at every read; what changes carries its number and the time."""

    def __init__(self) -> None:
        self._items = {f"calm:{n}": item(f"calm:{n}", f"T{n % TICKERS}", 0.5) for n in range(ITEMS)}
        self._items |= {f"hot:{n}": item(f"hot:{n}", "SHARED", 0.5) for n in range(HOT)}
        self._number = 0
        self._pace = 0.0
        self._events = 0
        self._own = False
        self._credits = 0
        self._due = 0.0
        self._changed = asyncio.Event()

    def obey(self, command: str, *numbers: str) -> None:
        """Take a command."""
        self._pace, self._events, self._own = 0.0, 0, False
        if command == "pace":
            self._pace, self._events = float(numbers[0]), int(numbers[1])
        elif command == "own":
            self._pace, self._own = float(numbers[0]), True
        elif command == "credits":
            self._credits += int(numbers[0])
        else:
            self._credits = 0
        self._due = time.monotonic() + self._pace
        self._changed.set()

    async def read(self, low: float, *, whole: bool) -> AsyncIterator[Batch]:
        """All items; the first read at once, later ones when it is time."""
        started = time.time()
        if not whole:
            await self._wait()
        self._change()
        yield Batch(items=list(self._items.values()), span=(low, FOREVER), watermark=started)

    async def _wait(self) -> None:
        """Wait for the next tick, a second at most: a read that never ends would make the feed stale."""
        self._changed.clear()
        seconds = max(0.0, self._due - time.monotonic()) if self._pace else 0.0 if self._credits else 1.0
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            self._due = max(self._due + self._pace, time.monotonic())

    def _change(self) -> None:
        count, self._credits = (self._events, self._credits) if self._pace else (self._credits, 0)
        if self._own:
            self._number += 1
            for n in range(OWN):
                self._set(f"own:{n}", f"O{n}")
        for n in range(count):
            self._number += 1
            self._set(f"hot:{n % HOT}", "SHARED")

    def _set(self, name: str, ticker: str) -> None:
        score = 0.001 + self._number * 37 % 998 / 1000
        self._items[name] = item(name, ticker, score, f"@{self._number}@{time.monotonic_ns()};")


async def obey_input(source: TickingSource) -> None:
    """Hand every line of standard input to the source."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async for line in reader:
        source.obey(*line.decode().split())


async def serve() -> None:
    """The service as `quartsse serve` runs it, with another source; polls as soon as the source is ready."""
    settings = settings_from().model_copy(update={"poll_interval": 0.001})
    log_to_stderr(settings.log_level)
    source = TickingSource()
    obeying = asyncio.get_running_loop().create_task(obey_input(source), context=empty_context())
    with patch.object(service, "_source", lambda *_: lambda _: source):
        await service.serve(settings, listening_socket(settings.host, settings.port))
    obeying.cancel()


if __name__ == "__main__":
    with event_loop(fast="--asyncio" not in sys.argv) as runner:
        runner.run(serve())
