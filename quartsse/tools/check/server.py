"""Visits a running server: opens its stream twice, watches, comes back, and asks what it should refuse."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

from quartsse.client import ConnectionFailed, ProtocolError
from quartsse.hub.ids import NOWHERE
from quartsse.tools.check import streams
from quartsse.tools.check.report import Finding, Heading, Progress, Told, failed, ok, skipped, warning
from quartsse.tools.check.tape import Answer, Tape, fetch, open_tape

STREAM = "/api/v2/stream"
LONGEST_PATIENCE = 10.0
MOST_REDIRECTS = 5
AWAY_SECONDS = 0.5
OPENING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for. `heartbeat`: how often something should come; `limit` 0 leaves the limit untried."""

    url: str
    seconds: float = 35.0
    heartbeat: float = 30.0
    headers: Mapping[str, str] = field(default_factory=dict)
    origin: str | None = None
    limit: int = 0

    @property
    def patience(self) -> float:
        """Seconds that an answer's head may take."""
        return min(LONGEST_PATIENCE, self.seconds)


@dataclass(slots=True)
class Visit:
    """A visit. It holds two streams at once, and one more while it comes back."""

    asked: Asked
    progress: Progress = lambda _: None
    facts: dict[str, Any] = field(default_factory=dict)
    _url: str = ""
    _status: dict[str, Any] = field(default_factory=dict)
    _skew: float | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _tapes: list[Tape] = field(default_factory=list)

    async def run(self) -> AsyncGenerator[Told]:
        """All of it. Nothing stays open, however it ends."""
        try:
            async for told in self._visit():
                yield told
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for tape in self._tapes:
                await tape.close()

    async def _visit(self) -> AsyncIterator[Told]:
        yield Heading("Connection")
        self._url = self.asked.url
        await self._ask_status()
        self.progress("opening the stream …")
        plain: Tape | None = None
        async for finding, tape in self._arrive():
            plain = tape or plain
            if finding is not None:
                yield finding
        if plain is None:
            yield skipped("stream", "there is none to look at")
            return
        self.facts |= {"url": self._url, "status_of_server": self._status}
        yield Heading("Head of the stream")
        for finding in streams.head(plain, quartsse=bool(self._status)):
            yield finding
        if not plain.response.is_stream:
            yield skipped("events", "what came is no event stream that can be read")
            return
        async for told in self._stay(plain, await self._open_packed()):
            yield told

    async def _stay(self, plain: Tape, packed: Tape | None) -> AsyncIterator[Told]:
        """What there is to see once a stream is open."""
        asked = self.asked
        await self._watch(plain, packed)
        quartsse = bool(self._status) or streams.looks_like_quartsse(plain)
        yield Heading(f"Events in {asked.seconds:g} s")
        for finding in streams.events(plain, quartsse=quartsse):
            yield finding
        yield Heading("On time")
        for finding in streams.timing(plain, packed, asked.seconds, asked.heartbeat, self._skew, quartsse=quartsse):
            yield finding
        yield Heading("Coming back")
        async for finding in self._come_back(plain, packed, quartsse=quartsse):
            yield finding
        yield Heading("Other requests")
        async for finding in self._others(quartsse=quartsse):
            yield finding
        if self._status:
            self._status = {}
            await self._ask_status()  # again, now that the feed has had somebody to read for
            yield Heading("The server")
            for finding in streams.status(self._status) if self._status else [skipped("status", "no longer told")]:
                yield finding

    async def _ask_status(self) -> None:
        """Ask for a quartsse's status. An address without a path becomes its stream's, where there is one."""
        parts = urlsplit(self._url)
        if parts.path not in {"", "/"} and "/api/v2/" not in parts.path:
            return
        prefix = parts.path.partition("/api/v2/")[0].rstrip("/")
        status = urlunsplit(parts._replace(path=f"{prefix}{STREAM}/status", query="", fragment=""))
        answer = await fetch(status, self.asked.headers, patience=self.asked.patience)
        if isinstance(answer, Answer) and {"instance", "feed", "max_connections"} <= answer.json.keys():
            self._status, self._skew = answer.json, streams.skew_of(answer)
            if parts.path in {"", "/"}:
                self._url = urlunsplit(parts._replace(path=STREAM))

    async def _arrive(self) -> AsyncIterator[tuple[Finding | None, Tape | None]]:
        """The stream itself, behind redirects of the same host; or why there is none."""
        for _ in range(MOST_REDIRECTS):
            began = time.monotonic()
            try:
                tape = await open_tape(self._url, self._headers("identity"), patience=self.asked.patience)
            except ValueError as error:
                yield (
                    failed("address", str(error), "it cannot be asked", "give a whole address: https://host/path"),
                    None,
                )
                return
            except (ConnectionFailed, ProtocolError) as error:
                yield await self._not_reached(str(error), time.monotonic() - began), None
                return
            self._tapes.append(tape)
            status, where = tape.response.status, tape.response.header("Location")
            if status not in {301, 302, 303, 307, 308} or where is None:
                break
            target = urljoin(self._url, where)
            if urlsplit(target).hostname != urlsplit(self._url).hostname:
                yield _redirected(status, target, "it leads to another host, which is not followed"), None
                return
            seen = f"{status} to {target}"
            why = "each connect and each reconnect is one more round trip, and curl and many clients stop there"
            yield warning("redirect", seen, why, f"have clients connect to {target}"), None
            self._url = target
        else:
            yield _redirected(status, target, f"{MOST_REDIRECTS} in a row"), None
            return
        yield ok("connection", f"the head came after {1000 * (tape.headed - tape.asked):.0f} ms"), None
        detail = "" if status == 200 else await _detail(tape)
        finding = streams.answered(status, detail, tape)
        yield finding, tape if finding.state == "ok" else None

    async def _not_reached(self, why: str, seconds: float) -> Finding:
        """No head. Where other requests are answered, something on the way holds the stream's back."""
        if "no answer" in why:
            other = await fetch(self._url, self._headers("identity"), method="HEAD", patience=self.asked.patience)
            if isinstance(other, Answer) and other.seconds < seconds / 2:
                took = f"{1000 * other.seconds:.0f} ms"
                return streams.held_back("buffering", f"no head within {seconds:.1f} s; HEAD of the same took {took}")
        cure = "check host, port and path, that the server runs, and what stands between (firewall, DNS)"
        if urlsplit(self._url).scheme == "https":
            cure += "; the certificate's name, date and chain, and whether it is https that is spoken there"
        if "status line" in why:
            cure = "something else than HTTP/1.1 answers there: check the port, and http against https"
        return failed("connection", why, "no client gets further", cure)

    async def _open_packed(self) -> Tape | None:
        """The same stream once more, as a browser asks for it: with gzip."""
        try:
            tape = await open_tape(self._url, self._headers("gzip"), patience=self.asked.patience)
        except (ConnectionFailed, ProtocolError):
            return None
        self._tapes.append(tape)
        return tape if tape.response.is_stream else None

    async def _watch(self, plain: Tape, packed: Tape | None) -> None:
        """Read both side by side, for as long as was asked for or until the first ends."""
        self._tasks += [asyncio.create_task(tape.read()) for tape in (plain, packed) if tape is not None]
        end = time.monotonic() + self.asked.seconds
        while (left := end - time.monotonic()) > 0 and not plain.ended:
            self.progress(f"watching, {left:.0f} s left: {plain.events:,} events, {plain.comments:,} comments …")
            await asyncio.sleep(min(left, 0.25))

    async def _come_back(self, plain: Tape, packed: Tape | None, *, quartsse: bool) -> AsyncIterator[Finding]:
        """Drop the second stream and resume it, while the first goes on as the witness."""
        if packed is None:
            yield skipped("resume", "a second stream was refused, so there is nothing to compare with")
            return
        if not packed.last_event_id:
            yield streams.without_ids(quartsse=quartsse)
            return
        self.progress("dropping the connection and coming back …")
        if quartsse:  # a stream whose opening is still on its way has no place to go on from
            await _until(lambda: packed.ended or not packed.last_event_id.endswith(NOWHERE), OPENING_SECONDS)
        await packed.close()
        await asyncio.sleep(AWAY_SECONDS)
        try:
            back = await open_tape(
                self._url,
                self._headers("identity"),
                patience=self.asked.patience,
                last_event_id=packed.last_event_id,
            )
        except (ConnectionFailed, ProtocolError) as error:
            yield streams.refused_resume(str(error))
            return
        self._tapes.append(back)
        if not back.response.is_stream:
            yield streams.refused_resume(f"{back.response.status}: {await _detail(back)}")
            return
        self._tasks.append(asyncio.create_task(back.read()))
        await _until(lambda: back.ended or streams.opened(back), min(OPENING_SECONDS, self.asked.seconds))
        for finding in streams.resumed(plain, packed, back, quartsse=quartsse):
            yield finding

    async def _others(self, *, quartsse: bool) -> AsyncIterator[Finding]:
        self.progress("asking what else it answers …")
        patience = min(5.0, self.asked.patience)
        headers = self._headers("identity")
        answer = await fetch(self._url, headers, method="HEAD", patience=patience)
        if isinstance(answer, str) and answer.startswith("not reached"):
            yield skipped("requests", f"the server has gone: {answer}")
            return
        yield streams.head_request(answer, quartsse=quartsse)
        if quartsse:
            wrong = await fetch(_with(self._url, "tickers", "$"), headers, patience=patience)
            yield streams.refusal("400", 400, wrong, "tickers")
            post = await fetch(self._url, headers, method="POST", patience=patience)
            yield streams.refusal("405", 405, post, "")
            html = await fetch(self._url, {**headers, "accept": "text/html"}, patience=patience)
            yield streams.refusal("406", 406, html, "")
        if self.asked.origin is None:
            yield skipped("CORS", "name a page's origin with --origin to have it looked at")
        else:
            async for finding in self._cors(self.asked.origin, headers, patience, quartsse=quartsse):
                yield finding
        if self.asked.limit:
            async for finding in self._limit(headers):
                yield finding

    async def _cors(
        self, origin: str, headers: Mapping[str, str], patience: float, *, quartsse: bool
    ) -> AsyncIterator[Finding]:
        asking = {**headers, "origin": origin}
        yield streams.cors("CORS", await fetch(self._url, asking, patience=patience), origin)
        if quartsse:
            bad = await fetch(_with(self._url, "tickers", "$"), asking, patience=patience)
            yield streams.cors("CORS on errors", bad, origin)
            question = asking | {
                "access-control-request-method": "GET",
                "access-control-request-headers": "authorization,last-event-id",
            }
            answer = await fetch(self._url, question, method="OPTIONS", patience=patience)
            yield streams.preflight(answer, origin)

    async def _limit(self, headers: Mapping[str, str]) -> AsyncIterator[Finding]:
        """Open streams, one after another, until one is refused; all are closed right after."""
        opened: list[Tape] = []
        refusal = ""
        answer: Tape | None = None
        try:
            while len(opened) < self.asked.limit:
                self.progress(f"trying the limit: {len(opened):,} streams open …")
                tape = await open_tape(self._url, headers, patience=self.asked.patience)
                if not tape.response.is_stream:
                    answer, refusal = tape, f"{tape.response.status}: {await _detail(tape)}"
                    break
                opened.append(tape)
        except (ConnectionFailed, ProtocolError, OSError) as error:
            refusal = str(error)
        finally:
            for tape in (*opened, *filter(None, [answer])):
                await tape.close()
        yield streams.limit(len(opened), refusal, answer)

    def _headers(self, coding: str) -> dict[str, str]:
        own = {"accept-encoding": coding}
        return own | {name.lower(): value for name, value in self.asked.headers.items()}


async def _until(true: Callable[[], object], seconds: float) -> None:
    """Wait until something is true, or so many seconds."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:  # noqa: ASYNC110 - what is waited for has no event of its own
        await asyncio.sleep(0.02)


def _redirected(status: int, target: str, seen: str) -> Finding:
    why = "clients end up elsewhere, or nowhere; headers with credentials do not go along"
    return failed("redirect", f"{status} to {target}: {seen}", why, f"check that address itself: {target}")


async def _detail(tape: Tape) -> str:
    try:
        async with asyncio.timeout(3):
            return await tape.response.detail()
    except TimeoutError:
        return tape.response.reason


def _with(url: str, name: str, value: str) -> str:
    """The address with a parameter in its query, in the place of those that are there."""
    return urlunsplit(urlsplit(url)._replace(query=f"{name}={value}"))
