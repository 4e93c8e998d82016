"""`quartsse tail`: a stream at a terminal, or as JSON lines in a pipe, for as long as one likes."""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import quote, urlsplit, urlunsplit

import click

from quartsse.client import EventTooLarge, GaveUp, ServerEvent, State, StreamOptions, StreamRefused, stream

STREAM = "/api/v2/stream"
ENDED_AS_ASKED, REFUSED, UNAVAILABLE, GAP = 0, 2, 3, 4
"""The exit statuses; 2 is also click's for a wrong command line."""

QUIETENED = {"heartbeat", "metrics", "resume"}
COLOURS = {"positive": "green", "negative": "red", "stale": "yellow", "snapshot": "yellow"}


@dataclass(frozen=True, slots=True)
class TailOptions:
    """What to show, and until when. `attempts` None means that a server which is away is waited for, for ever."""

    count: int | None = None
    seconds: float | None = None
    strict: bool = False
    as_json: bool = False
    colour: bool = False
    quiet: bool = False
    stats: bool = False
    attempts: int | None = None


@dataclass(slots=True)
class Seen:
    """What has come so far, for `--stats`."""

    began: float = field(default_factory=time.monotonic)
    events: dict[str, int] = field(default_factory=dict)
    reconnects: int = 0
    gaps: int = 0

    def line(self, repeats: int) -> str:
        """All of it in one line."""
        kinds = ", ".join(f"{count} {name}" for name, count in sorted(self.events.items())) or "no events"
        seconds = time.monotonic() - self.began
        return f"{kinds} in {seconds:.1f} s; {self.reconnects} reconnects, {self.gaps} gaps, {repeats} repeats dropped"


class Tail:
    """Shows one stream. `show` takes what belongs to the output, `say` what is about the connection."""

    def __init__(self, options: TailOptions, show: Callable[[str], None], say: Callable[[str], None]) -> None:
        self._options = options
        self._show = show
        self._say = say
        self._seen = Seen()
        self._feed = "live"
        self._shown = 0

    async def run(
        self, url: str, headers: Mapping[str, str], tickers: str | None = None, since: str | None = None
    ) -> int:
        """Read until it is enough; the exit status. Raises ValueError for an address that is none."""
        events = stream(
            url,
            headers=headers,
            tickers=tickers,
            last_event_id=since,
            on_state=self._on_state,
            options=StreamOptions(max_attempts=self._options.attempts),
        )
        status = ENDED_AS_ASKED
        async with events:
            try:
                async with asyncio.timeout(self._options.seconds):
                    async for event in events:
                        if (ended := self._take(event)) is not None:
                            status = ended
                            break
            except TimeoutError:
                status = ENDED_AS_ASKED
            except (StreamRefused, EventTooLarge) as error:
                self._say(str(error))
                status = REFUSED
            except GaveUp as error:
                self._say(str(error))
                status = UNAVAILABLE
        if self._options.stats:
            self._say(self._seen.line(events.repeats))
        return status

    def _take(self, event: ServerEvent) -> int | None:
        """Show one event; the exit status, if it was the last."""
        self._seen.events[event.event] = self._seen.events.get(event.event, 0) + 1
        data = _data(event)
        if event.event == "heartbeat":
            self._watch(str(data.get("feed", "live")))
        if not (self._options.quiet and event.event in QUIETENED):
            self._shown += 1
            self._show(
                _as_json(event, data) if self._options.as_json else line(event, data, colour=self._options.colour)
            )
        if event.event == "resume" and data.get("mode") == "snapshot":
            self._seen.gaps += 1
            self._say("gap: what lay between may be folded into the current state")
            if self._options.strict:
                return GAP
        return ENDED_AS_ASKED if self._options.count == self._shown else None

    def _watch(self, feed: str) -> None:
        """Say when the feed turns stale, and when it has recovered."""
        if (feed == "stale") != (self._feed == "stale"):
            self._say("the feed is stale: DynamoDB cannot be read" if feed == "stale" else f"the feed is {feed} again")
        self._feed = feed

    def _on_state(self, state: State) -> None:
        if state.name == "waiting":
            self._seen.reconnects += 1
            self._say(f"{state.reason}; back in {state.seconds:.1f} s")
        elif state.name == "open" and not self._options.quiet:
            self._say("connected")


def _data(event: ServerEvent) -> dict[str, Any]:
    """The data as an object; empty for anything else, which is then shown as it came."""
    try:
        data = event.json()
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _as_json(event: ServerEvent, data: Mapping[str, Any]) -> str:
    return json.dumps({"event": event.event, "id": event.id, "data": data or event.data})


def line(event: ServerEvent, data: Mapping[str, Any], *, colour: bool) -> str:
    """One event as one line in columns: the time of day, its name, and what it says."""
    at = str(data.get("timestamp", ""))[11:19] or " " * 8
    text, word = _words(event, data)
    shown = f"{at}  {event.event:<16}  {text}"
    printable = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in shown)
    return click.style(printable, fg=COLOURS[word]) if colour and word in COLOURS else printable


def _words(event: ServerEvent, data: Mapping[str, Any]) -> tuple[str, str]:
    """What an event says, in words and columns, and the word that its colour goes by."""
    said = {name: _plain(value) for name, value in data.items()}
    try:
        match event.event:
            case "sentiment_update":
                text = "{ticker:<10}  {score:>6}  {label:<8}  mean {mean_score:>6} of {count:>4}  {source}".format(
                    **said
                )
                return text, said["label"]
            case "metrics":
                counts = "{total} items: {positive} positive, {neutral} neutral, {negative} negative; "
                return (counts + "{rate_last_hour} in the last hour").format(**said), ""
            case "heartbeat":
                return "{connections} connected, feed {feed}, up {uptime_seconds} s".format(**said), said["feed"]
            case "resume":
                return "{mode}, {replayed} replayed".format(**said), said["mode"]
            case "configuration":
                return "{name}: {tickers}".format(**said), ""
            case "stream_end":
                return "{reason}, back in {retry_ms} ms".format(**said), ""
    except KeyError:
        pass  # another server's event of that name: shown as it is
    return event.data, ""


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:+.2f}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def stream_url(url: str, configuration: str | None) -> str:
    """The stream's address: a base gets the path; what has a path of its own is left as it is."""
    parts = urlsplit(url)
    if configuration is not None:
        path = f"/api/v2/configurations/{quote(configuration, safe='')}/stream"
        return urlunsplit(parts._replace(path=parts.path.rstrip("/").removesuffix(STREAM) + path))
    return url if parts.path.strip("/") else urlunsplit(parts._replace(path=STREAM))


@click.command()
@click.argument("url")
@click.option("--tickers", help="Symbols, separated by commas, or `*`: whose updates to show.")
@click.option("--configuration", metavar="ID", help="The stream of one of the user's configurations.")
@click.option("--user", help="Who asks, as `X-User-ID`.")
@click.option("--token-env", metavar="NAME", default="QUARTSSE_TOKEN", show_default=True,
              help="The environment variable that holds a bearer token, if there is one.")  # fmt: skip
@click.option("--since", metavar="ID", help="An event's id, to go on from.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--count", type=click.IntRange(min=1), help="End after showing so many events.")
@click.option("--for", "seconds", type=click.FloatRange(min=0, min_open=True), help="End after so many seconds.")
@click.option(
    "--attempts", type=click.IntRange(min=1), help="Give up after so many attempts in a row without an event."
)
@click.option("--strict", is_flag=True, help="End with status 4 at a gap.")
@click.option("--quiet", is_flag=True, help="Updates, configurations and ends only.")
@click.option("--stats", is_flag=True, help="Say at the end what came.")
def tail(url: str, *, tickers: str | None, configuration: str | None, user: str | None, token_env: str,
         since: str | None, as_json: bool, count: int | None, seconds: float | None, attempts: int | None,
         strict: bool, quiet: bool, stats: bool) -> NoReturn:  # fmt: skip
    """Show the stream at URL, a service's base or a stream's own address; reconnects and goes on where it stopped.

    Events go to stdout, all about the connection to stderr. Exit status: 0 ended as asked, 2 refused, 3 not available
    within --attempts, 4 a gap with --strict.
    """
    options = TailOptions(count, seconds, strict, as_json, _wants_colour(), quiet, stats, attempts)
    headers = {"x-user-id": user} if user else {}
    if token := os.environ.get(token_env):
        headers["authorization"] = f"Bearer {token}"
    shown = Tail(options, _show, lambda text: click.echo(f"quartsse: {text}", err=True))
    try:
        status = asyncio.run(shown.run(stream_url(url, configuration), headers, tickers, since))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="URL") from error
    except BrokenPipeError:
        # Whoever read has enough. Nothing may be flushed into the pipe again at the interpreter's exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = ENDED_AS_ASKED
    except KeyboardInterrupt:
        status = ENDED_AS_ASKED
    sys.exit(status)


def _show(text: str) -> None:
    print(text, flush=True)


def _wants_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
