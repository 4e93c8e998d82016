"""`quartsse load URL`: opens many streams at one address, and tells what reaches them.

All of them are promised the same events, so what most of the readers have and one has not is a gap, and what one has
twice a repeat. It is counted from the moment that all are open: what a stream begins with is each reader's own. Events
without an id of their own are counted and not judged.
"""

import asyncio
import json
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from math import ceil

import click

from quartsse.client import ConnectionFailed, EventTooLarge, Parser, ProtocolError, Response, ServerEvent, open_stream
from quartsse.tools.terminal import header, progress_line

OPENING_AT_ONCE = 100
SETTLE_SECONDS = 0.5
"""From the last answer until counting begins: openings are still on their way."""

MOST_JUDGED = 100_000
"""Events that are remembered to be judged; later ones are counted only."""

MOST_TIMED = 1_000_000

OLDEST_SECONDS = 60.0
"""An event's own time, if it is older than this, says when something happened and not when it was sent."""

TIMES = ("timestamp", "time", "ts")
"""The members of an event's data where its time may be, as ISO 8601 or as Unix seconds or milliseconds."""

SPARE_FILES = 32


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What was asked for."""

    url: str
    streams: int = 100
    seconds: float = 10.0
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds: the median, the worst of a hundred, the worst."""

    p50: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it. `complete_ms` is from the first reader who has an event to the last one."""

    streams: int
    opened: int
    refused: int
    failed: int
    ended: int
    cut: int
    connect_seconds: float
    connects_per_second: float
    seconds: float
    events: int
    events_per_second: float
    bytes: int
    unjudged: int
    gaps: int
    repeats: int
    latency_ms: Spread | None
    complete_ms: Spread | None
    problems: dict[str, int]

    @property
    def well(self) -> bool:
        """Whether every stream was opened, none was cut, and every reader got everything once."""
        return self.opened == self.streams and not self.cut and not self.gaps and not self.repeats


@dataclass(slots=True)
class _Sent:
    """One event: when the first and the last reader got it, how many did."""

    first: float
    last: float
    readers: int = 0


class Judge:
    """Compares what the readers of one address get. Times are monotonic seconds."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self.events = 0
        self.unjudged = 0
        self.repeats = 0
        self.late: deque[float] = deque(maxlen=MOST_TIMED)
        """Seconds between an event's own time and its arrival at each reader; the latest of them."""
        self._wall = wall
        self._order: dict[str, int] = {}
        self._sent: list[_Sent] = []
        self._made: list[float | None] = []

    def take(self, reader: "Reader", event: ServerEvent, at: float) -> None:
        """An event has reached a reader."""
        self.events += 1
        if not event.id or (event.id == reader.last_id and event.data != reader.last_data):
            self.unjudged += 1
            return
        reader.last_id, reader.last_data = event.id, event.data
        index = self._order.get(event.id)
        if index is None:
            if len(self._order) >= MOST_JUDGED:
                self.unjudged += 1
                return
            index = self._order[event.id] = len(self._sent)
            self._sent.append(_Sent(at, at))
            self._made.append(made_at(event, self._wall()))
        if index in reader.seen:
            self.repeats += 1
            return
        reader.seen.add(index)
        sent = self._sent[index]
        sent.readers, sent.last = sent.readers + 1, at
        made = self._made[index]
        if made is not None:
            self.late.append(max(0.0, self._wall() - made))

    def gaps(self, readers: Iterable["Reader"]) -> int:
        """How many events did not reach readers who were there before and after, though most others got them."""
        there = [reader.seen for reader in readers if reader.seen]
        gaps = 0
        for seen in there:
            between = range(min(seen), max(seen) + 1)
            gaps += sum(index not in seen and 2 * self._sent[index].readers > len(there) for index in between)
        return gaps

    def complete(self) -> list[float]:
        """For each event that more than one reader got: seconds from the first to the last of them."""
        return [sent.last - sent.first for sent in self._sent if sent.readers > 1]


class Reader:
    """One stream, read to its end."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.last_id = ""
        self.last_data = ""

    def forget(self) -> None:
        """Begin to count."""
        self.seen.clear()


class Load:
    """Many streams at one address."""

    def __init__(self, options: LoadOptions) -> None:
        self.options = options
        self.judge = Judge()
        self.readers = [Reader() for _ in range(options.streams)]
        self.opened = self.open = self.refused = self.failed = self.ended = self.cut = self.bytes = 0
        self.problems: dict[str, int] = {}
        self._waiting = options.streams
        self._all_answered = asyncio.Event()
        self._turn = asyncio.Semaphore(OPENING_AT_ONCE)

    async def run(self, progress: Callable[[str], None]) -> Report:
        """Open all of them, count for the time that was asked for, and report."""
        began = time.monotonic()
        tasks = [asyncio.create_task(self._read(reader)) for reader in self.readers]
        telling = asyncio.create_task(self._tell(progress))
        try:
            await self._all_answered.wait()
            connect_seconds = time.monotonic() - began
            await asyncio.sleep(SETTLE_SECONDS)
            self._count_from_here()
            counted_from = time.monotonic()
            await asyncio.wait(tasks, timeout=self.options.seconds)
            seconds = time.monotonic() - counted_from
            return self._report(connect_seconds, seconds)
        finally:
            for task in (*tasks, telling):
                task.cancel()
            await asyncio.gather(*tasks, telling, return_exceptions=True)

    async def _read(self, reader: Reader) -> None:
        try:
            async with self._turn:
                opening = open_stream(self.options.url, headers=self.options.headers, connect_timeout=30)
                response = await opening.__aenter__()
                self._answered()
        except (ConnectionFailed, ProtocolError, ValueError) as error:
            self.failed += 1
            self._problem(str(error))
            self._answered()
            return
        try:
            if response.is_stream:
                await self._listen(reader, response)
            else:
                self.refused += 1
                self._problem(f"{response.status}: {await response.detail()}")
        finally:
            await opening.__aexit__(None, None, None)

    async def _listen(self, reader: Reader, response: Response) -> None:
        self.opened += 1
        self.open += 1
        parser = Parser()
        try:
            while content := await response.read():
                self.bytes += len(content)
                for event in parser.feed(content):
                    self.judge.take(reader, event, response.arrived)
            self.ended += 1
        except (ConnectionFailed, ProtocolError, EventTooLarge) as error:
            self.cut += 1
            self._problem(str(error))
        finally:
            self.open -= 1

    def _answered(self) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._all_answered.set()

    def _problem(self, what: str) -> None:
        self.problems[what] = self.problems.get(what, 0) + 1

    def _count_from_here(self) -> None:
        self.judge, self.bytes = Judge(), 0
        for reader in self.readers:
            reader.forget()

    async def _tell(self, progress: Callable[[str], None]) -> None:
        before = 0
        while True:
            await asyncio.sleep(1)
            events = self.judge.events
            progress(
                f"{self.open:,} of {self.options.streams:,} open, {max(0, events - before):,} events/s, "
                f"{events:,} in all, {self.judge.repeats:,} repeats"
            )
            before = events

    def _report(self, connect_seconds: float, seconds: float) -> Report:
        judge = self.judge
        return Report(
            streams=self.options.streams,
            opened=self.opened,
            refused=self.refused,
            failed=self.failed,
            ended=self.ended,
            cut=self.cut,
            connect_seconds=round(connect_seconds, 3),
            connects_per_second=round(self.opened / connect_seconds, 1),
            seconds=round(seconds, 3),
            events=judge.events,
            events_per_second=round(judge.events / seconds, 1) if seconds else 0.0,
            bytes=self.bytes,
            unjudged=judge.unjudged,
            gaps=judge.gaps(self.readers),
            repeats=judge.repeats,
            latency_ms=_spread(judge.late),
            complete_ms=_spread(judge.complete()),
            problems=self.problems,
        )


def made_at(event: ServerEvent, now: float) -> float | None:
    """When an event was made (Unix seconds), if its data says so and it can have been just now."""
    try:
        data = event.json()
    except ValueError:
        return None
    if not isinstance(data, dict):
        return None
    for name in TIMES:
        made = _moment(data.get(name))
        if made is not None and -1 <= now - made <= OLDEST_SECONDS:
            return made
    return None


def _moment(value: object) -> float | None:
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError:
            return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value / 1000 if value > 1e11 else float(value)
    return None


def _spread(seconds: Iterable[float]) -> Spread | None:
    ordered = sorted(seconds)
    if not ordered:
        return None
    p50, p99 = (ordered[ceil(share * len(ordered)) - 1] for share in (0.5, 0.99))
    return Spread(*(round(1000 * value, 2) for value in (p50, p99, ordered[-1])))


def _lines(report: Report) -> Iterator[str]:
    yield f"opened     {report.opened:,} of {report.streams:,} in {report.connect_seconds:g} s"
    yield f"           {report.connects_per_second:,.0f} connects/s"
    yield f"events     {report.events:,} in {report.seconds:.1f} s, {report.bytes:,} bytes"
    yield f"           {report.events_per_second:,.0f} events/s"
    yield f"gaps       {report.gaps:,}"
    yield f"repeats    {report.repeats:,}"
    if report.unjudged:
        yield f"unjudged   {report.unjudged:,} (no id of their own)"
    for name, spread in (("latency", report.latency_ms), ("complete", report.complete_ms)):
        if spread is not None:
            yield f"{name:10} p50 {spread.p50:g} ms, p99 {spread.p99:g} ms, worst {spread.max:g} ms"
    if report.ended or report.cut:
        yield f"gone       {report.ended:,} ended by the server, {report.cut:,} cut"
    for problem, count in sorted(report.problems.items(), key=lambda item: -item[1])[:5]:
        yield f"problem    {count:,} x {problem}"


def raise_file_limit(streams: int) -> None:
    """Let this process open enough files. Raises click.UsageError if it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if streams + SPARE_FILES > hard:
        raise click.UsageError(f"{streams:,} streams, but this process may open {hard:,} files: see ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, streams + SPARE_FILES), hard))


@click.command()
@click.argument("url")
@click.option("-n", "--streams", default=100, show_default=True, type=click.IntRange(1), help="How many to open.")
@click.option(
    "-s", "--seconds", default=10.0, show_default=True, type=click.FloatRange(0.1, 86_400), help="How long to count."
)
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header to send.")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
def load(url: str, streams: int, seconds: float, headers: tuple[str, ...], *, as_json: bool) -> None:
    """Open many streams at URL, any server's, and tell how well events reach them.

    Ends with status 1 if a stream was not opened or cut, or an event was missing or came twice.
    """
    raise_file_limit(streams)
    options = LoadOptions(url, streams, seconds, dict(map(header, headers)))
    with progress_line(shown=sys.stderr.isatty()) as progress:
        report = asyncio.run(Load(options).run(progress))
    click.echo(json.dumps(asdict(report)) if as_json else "\n".join(_lines(report)))
    sys.exit(0 if report.well else 1)
