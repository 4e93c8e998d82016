"""Parameters, headers and ids that nobody has thought of: answered as the contract says, and no slot stays taken.

What is right is said here once more, from the contract alone: nothing of the service's own judgement is asked.
"""

import asyncio
import re
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quartsse.feed.configurations import Saved
from tests.web.serving import Reply, Service, item, serving

NOW = time.time()
NEWS = [item(f"tiingo:{number}", ticker, at=NOW - 60) for number, ticker in enumerate(("AAPL", "MSFT", "BRK.B"))]
SAVED = {("ann", "mine"): Saved("mine", "Mine", ("AAPL",)), ("bob", "his"): Saved("his", "His", ("MSFT",))}
NAMES = {"heartbeat", "metrics", "sentiment_update", "configuration", "resume", "stream_end"}
ID = re.compile(r"evt_[A-Za-z0-9._~-]{1,124}")
SYMBOL = re.compile(r"[A-Za-z0-9.\-]{1,10}", re.ASCII)
MANY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

symbols = st.sampled_from(["AAPL", "msft", "BRK.B", "A-B", "TOOLONGTICKER", "", " ", "A B", "É", "\u0131", "*", "\0"])
tickers = st.one_of(
    st.just("*"), st.lists(symbols, max_size=4).map(",".join), st.integers(49, 52).map(lambda n: ",".join(["A"] * n)),
    st.text(max_size=20),
)  # fmt: skip
visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=150)
"""What HTTP lets stand in a header, as latin-1 (RFC 9110, section 5.5)."""


@dataclass(repr=False)
class Running:
    """A service, the loop that it runs in, and an id that it gave."""

    runner: asyncio.Runner
    service: Service
    real: str

    def __repr__(self) -> str:
        return "the running service"

    def get(self, path: str, headers: dict[str, str]) -> tuple[Reply, bytes]:
        """An answer: all of it, or a stream's opening."""
        return self.runner.run(self._get(path, headers))

    async def _get(self, path: str, headers: dict[str, str]) -> tuple[Reply, bytes]:
        named = {name.replace("-", "_"): value for name, value in headers.items()}
        reply = await self.service.get(path, **named)
        if "transfer-encoding" not in reply.headers:
            return reply, await reply.body()
        return reply, await self._opening(reply)

    async def _opening(self, reply: Reply) -> bytes:
        decoder = zlib.decompressobj(31) if reply.headers.get("content-encoding") == "gzip" else None
        read = b""
        async with asyncio.timeout(5):
            async for chunk in reply.chunks():
                read += chunk if decoder is None else decoder.decompress(chunk)
                if re.search(rb"event: (metrics|configuration)\n[^\n]*\n\n", read):
                    break
        reply.close()
        return read


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """One service for all; at the end nobody holds a slot."""
    with asyncio.Runner() as runner:
        context = serving(*NEWS, saved=SAVED, SSE_MAX_CONNECTIONS="5000", SSE_MAX_CONNECTIONS_PER_USER="5000")
        service = runner.run(context.__aenter__())
        try:
            found = Running(runner, service, "")
            _, opening = found.get("/api/v2/stream?tickers=*", {})
            found.real = re.findall(rb"id: (\S+)", opening)[-1].decode()
            yield found
            runner.run(everyone_has_left(service))
        finally:
            runner.run(context.__aexit__(None, None, None))


async def everyone_has_left(service: Service) -> None:
    async with asyncio.timeout(5):
        while service.parts.slots.taken:
            await asyncio.sleep(0.02)


def events(opening: bytes) -> list[dict[str, str]]:
    """The events of an opening; fails where a line is no field that the contract knows."""
    blocks = [block for block in opening.decode().split("\n\n") if block]
    found = [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]
    assert list(found.pop(0)) == ["retry"]
    assert all(list(event) == ["id", "event", "data"] for event in found)
    return found


def are_tickers(text: str) -> bool:
    """1-50 symbols, or `*` (section 1 of the contract)."""
    each = text.split(",")
    return text == "*" or (len(each) <= 50 and all(map(SYMBOL.fullmatch, each)))


def assert_wrong(reply: Reply, body: bytes, parameter: str) -> None:
    assert reply.status == 400
    assert body.startswith(b'{"detail":"%b: ' % parameter.encode())


@MANY
@given(asked=st.lists(tickers, max_size=2), on_limit=st.lists(st.sampled_from(["retry", "Retry", "", "x"]), max_size=2))
def test_parameters_are_taken_or_refused_by_name(running: Running, asked: list[str], on_limit: list[str]) -> None:
    query = [f"tickers={quote(text)}" for text in asked] + [f"on_limit={text}" for text in on_limit]
    reply, body = running.get("/api/v2/stream?" + "&".join(query), {})
    wrong = [
        name
        for name, values, fine in (
            ("on_limit", on_limit, lambda text: text == "retry"),
            ("tickers", asked, are_tickers),
        )
        if len(values) > 1 or not all(map(fine, values))
    ]
    if wrong:
        assert_wrong(reply, body, wrong[0])
        return
    wanted = set(asked[0].upper().split(",")) if asked else set()
    told = {re.findall(r'"ticker":"([^"]*)"', event["data"])[0] for event in events(body) if "ticker" in event["data"]}
    assert reply.status == 200
    assert told == {"AAPL", "MSFT", "BRK.B"} & (wanted if wanted != {"*"} else {"AAPL", "MSFT", "BRK.B"})


def mutated(real: str, cut: tuple[int, int], put: str) -> str:
    start, end = sorted(at % (len(real) + 1) for at in cut)
    return real[:start] + put + real[end:]


@MANY
@given(
    cut=st.tuples(st.integers(0, 200), st.integers(0, 200)),
    put=visible | st.sampled_from(["", ".", "~", "..", "9" * 30, "-1", ".~."]),
    where=st.sampled_from(["header", "query", "both"]),
)
def test_whatever_an_id_says_the_stream_begins_as_promised(
    running: Running, cut: tuple[int, int], put: str, where: str
) -> None:
    last = mutated(running.real, cut, put)
    headers = {"Last-Event-ID": last} if where != "query" and last else {}
    query = f"&last_event_id={quote(last)}" if where != "header" else ""
    reply, body = running.get(f"/api/v2/stream?tickers=AAPL{query}", headers)
    assert reply.status == 200
    found = events(body)
    assert all(ID.fullmatch(event["id"]) for event in found)
    assert {event["event"] for event in found} <= NAMES
    assert [event["event"] for event in found].count("resume") == bool(last)
    assert found[-1]["event"] == "metrics"


@MANY
@given(
    accept=st.sampled_from(
        ["", "*/*", "text/*", "text/event-stream;q=0.1", "application/json", "text/event-stream;q=0"]
    )
    | visible,
    coding=st.sampled_from(["gzip", "gzip;q=0", "br, gzip;q=0.5, identity;q=0.6", "*", "GZIP", "identity;q=0, *;q=0"])
    | visible,
    origin=visible,
    forwarded=visible,
)
def test_no_header_makes_more_of_a_stream_than_a_stream_or_406(
    running: Running, accept: str, coding: str, origin: str, forwarded: str
) -> None:
    named = {"Accept": accept, "Accept-Encoding": coding, "Origin": origin, "X-Forwarded-For": forwarded}
    named |= {"Traceparent": forwarded, "X-Amzn-Trace-Id": origin, "X-Amzn-Lambda-Context": origin}
    reply, body = running.get("/api/v2/stream", {name: value for name, value in named.items() if value})
    if accept in ("", "*/*", "text/*", "text/event-stream;q=0.1"):
        assert reply.status == 200
    if accept in ("application/json", "text/event-stream;q=0"):
        assert reply.status == 406
    assert reply.status in (200, 406)
    if reply.status == 200:
        assert [event["event"] for event in events(body)][-1] == "metrics"
    if coding in ("gzip;q=0", "br, gzip;q=0.5, identity;q=0.6"):
        assert "content-encoding" not in reply.headers
    assert "access-control-allow-origin" not in reply.headers, "no origin is allowed here"


@MANY
@given(
    user=st.sampled_from(["ann", "bob", "ANN", " ", "x" * 257]) | visible,
    configuration=st.sampled_from(["mine", "his", "Mine", "mine/", "/mine", "%2e%2e", "mine%00", "x" * 600])
    | visible.map(quote),
)
def test_only_whoever_owns_a_configuration_gets_more_than_nothing(
    running: Running, user: str, configuration: str
) -> None:
    path = f"/api/v2/configurations/{configuration}/stream"
    reply, body = running.get(path, {"X-User-ID": user} if user.strip() else {})
    if (user, configuration) in SAVED:
        assert reply.status == 200
        assert b'"config_id":"%b"' % configuration.encode() in body
    else:
        assert reply.status in (401, 404), body
        assert re.fullmatch(rb'\{"detail":"[A-Za-z -]+"\}', body)
