"""Clients that nobody here wrote read the streams rightly; and what each can do, as the docs say."""

import asyncio
import re
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.dynamodb import Tables
from tests.end_to_end.examiner import Marks, examine
from tests.end_to_end.foreign import FOREIGN, Client, Reader, reading
from tests.processes import free_port
from tests.served import Served

type Serve = Callable[..., Served]
type Told = dict[str, list[tuple[str, float]]]
"""The verdicts of each ticker, in order. Each ticker here belongs to one item."""

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
SETTINGS = {
    "SSE_POLL_INTERVAL": "0.1",
    "SSE_RETRY_MS": "200",
    "SSE_DRAIN_SECONDS": "0.5",
    "SSE_MAX_STREAM_AGE": "2",  # so that everybody comes back every now and then
}
TURNS = 16
PAUSE = 0.25
"""Seconds between two changes, so that readers are ended by their age between them."""

pytestmark = pytest.mark.skipif(
    not all(client.installed for client in FOREIGN), reason="Chromium, node, curl or what npm brings is not installed"
)


class Writer:
    """Writes items, analyses them again, and knows what was to be told."""

    def __init__(self, table: Tables) -> None:
        self.written: Told = {}
        self._table = table
        self._keys: dict[str, Any] = {}

    async def write(self) -> None:
        """A new item, of a ticker of its own."""
        ticker = f"T{len(self.written)}"
        self._keys[ticker] = await self._table.put(f"tiingo:{ticker}", ticker, sentiment="positive", score=0.5)
        self.written[ticker] = [("positive", 0.5)]

    async def change(self, ticker: str) -> None:
        """Another verdict for an item that is there."""
        score = 0.5 + len(self.written[ticker]) / 100
        await self._table.analyse(self._keys[ticker], "negative", score)
        self.written[ticker].append(("negative", -score))


def told(reader: Reader) -> Told:
    """What a client was told, without what the rule of ids says to drop: an update that equals its item's last."""
    last: dict[str, str] = {}
    found: Told = defaultdict(list)
    for event in reader.named("sentiment_update"):
        identity = event["id"].partition(".")[0]
        item = identity.partition("-")[0]
        if last.get(item) != identity:
            last[item] = identity
            found[event["data"]["ticker"]].append((event["data"]["label"], event["data"]["score"]))
    return found


def modes(reader: Reader) -> set[str]:
    """How a client's resumes went."""
    return {event["data"]["mode"] for event in reader.named("resume")}


async def everyone(readers: list[Reader], true: Callable[[Reader], bool]) -> None:
    """Wait until something is true of every client."""
    came = await asyncio.gather(*(reader.until(partial(true, reader), 30) for reader in readers))
    assert all(came), {
        reader.client.name: (told(reader), reader.events[-3:])
        for reader, fine in zip(readers, came, strict=True)
        if not fine
    }


async def test_each_reads_every_update_once_and_in_order_through_ends_and_a_restart(
    serve: Serve, table: Tables
) -> None:
    port, writer = str(free_port()), Writer(table)
    served = await asyncio.to_thread(serve, PORT=port, **SETTINGS)

    def has_all(reader: Reader) -> bool:
        return told(reader) == writer.written

    async with AsyncExitStack() as stack:
        url = f"{served.url}/api/v2/stream?tickers=*"
        readers = [await stack.enter_async_context(reading(client, url)) for client in FOREIGN]
        await everyone(readers, lambda reader: bool(reader.named("metrics")))

        for turn in range(TURNS):
            await writer.write()
            if turn:  # the item that is changed has been told: a change of a new one would overtake it in the table
                await writer.change(f"T{turn // 2}")
            await asyncio.sleep(PAUSE)
            await everyone(readers[:1], has_all)
        await everyone(readers, lambda reader: has_all(reader) and modes(reader) == {"exact"})

        await asyncio.to_thread(served.terminate)
        for ticker in ("T0", "T5"):
            await writer.write()
            await writer.change(ticker)
        await asyncio.to_thread(serve, PORT=port, **SETTINGS)
        await everyone(readers, lambda reader: has_all(reader) and "snapshot" in modes(reader))

        await writer.write()
        await writer.change("T0")
        await everyone(readers, has_all)


@pytest.fixture(scope="module")
def marks() -> dict[Client, Marks]:
    """What each can do."""

    async def found() -> list[Marks]:
        return await asyncio.gather(*map(examine, FOREIGN))

    return dict(zip(FOREIGN, asyncio.run(found()), strict=True))


def row(client: Client, mark: Marks) -> str:
    """A client's line in the docs."""
    waits = {0: "-", 1: "as told", 2: "twice as long"}.get(round(mark.waits), f"{mark.waits:.1f} times")
    cells: list[bool | str] = [
        mark.headers,
        mark.asks_for_gzip and mark.reads_at_once,
        mark.comes_back,
        mark.last_event_id,
        waits,
        mark.survives_refusal,
        mark.obeys_503,
    ]
    words = [cell if isinstance(cell, str) else ("no", "yes")[cell] for cell in cells]
    return f"| {client.title} | {' | '.join(words)} |"


def test_the_docs_say_what_each_can_do(marks: dict[Client, Marks]) -> None:
    documented = re.search(r"<!-- measured: clients -->\n\n.*\n\| --- .*\n((?:\|.*\n)+)", PAGE.read_text())
    assert documented is not None
    assert documented[1].splitlines() == [row(client, mark) for client, mark in marks.items()]


def test_each_gives_a_compressed_event_while_the_stream_is_open(marks: dict[Client, Marks]) -> None:
    assert [client.name for client, mark in marks.items() if not (mark.asks_for_gzip and mark.reads_at_once)] == []
