"""gzip on the wire: who gets it, that nothing is held back, and that every stream ends with a true trailer."""

import asyncio
import random
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from quartsse.feed.configurations import Saved
from quartsse.hub.events import Event
from quartsse.hub.hub import Hub
from quartsse.web.openings import takes_gzip
from tests.web.serving import Reply, Service, item, on_both_loops, request, serving
from tests.web.test_behind_proxies import proxy

NOW = time.time()
NEWS = item("tiingo:1", "AAPL", at=NOW - 60)
WAYS = [pytest.param("1", id="handed over"), pytest.param("0", id="ordinary")]
SAVED = {("ann", "mine"): Saved("mine", "A secret name", ("AAPL",))}


class Reader:
    """A reader of gzip that knows at each moment what it can read, and checks the trailer."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.read = b""
        self._decoder = zlib.decompressobj(31)
        self._chunks = reply.chunks()

    @property
    def whole(self) -> bool:
        """Whether the trailer has come, and is true."""
        return self._decoder.eof

    async def until(self, wanted: bytes) -> None:
        async with asyncio.timeout(5):
            while wanted not in self.read:
                self.read += self._decoder.decompress(await anext(self._chunks))

    async def to_the_end(self) -> bytes:
        async with asyncio.timeout(5):
            async for chunk in self._chunks:
                self.read += self._decoder.decompress(chunk)
        return self.read


async def reading(service: Service, path: str = "/api/v2/stream?tickers=*", **headers: str) -> Reader:
    reply = await service.get(path, Accept_Encoding="gzip", **headers)
    assert reply.headers["content-encoding"] == "gzip"
    return Reader(reply)


def publish(hub: Hub, number: int, count: int = 1, size: int = 200) -> None:
    chance = random.Random(number)
    hub.publish(
        [
            Event("sentiment_update", f"n{number}x{each}", chance.randbytes(size // 2).hex().encode(), "AAPL")
            for each in range(count)
        ]
    )


@pytest.mark.parametrize(
    ("accepted", "gzip"),
    [
        (["gzip"], True),
        (["gzip, deflate, br, zstd"], True),
        (["br", "GZIP;q=0.2"], True),
        (["*"], True),
        (["identity;q=0.5, *;q=0.6"], True),
        ([], False),
        ([""], False),
        (["br"], False),
        (["gzip;q=0"], False),
        (["gzip;q=0, *"], False),
        (["identity, gzip;q=0.5"], False),
        (["*;q=0"], False),
        (["gzip;q=rubbish"], False),
        ([";;q=,,=;"], False),
    ],
)
def test_gzip_is_for_those_who_accept_it_and_prefer_nothing_else(accepted: list[str], gzip: bool) -> None:
    assert takes_gzip(accepted) is gzip


async def test_the_head_says_what_the_body_is_and_what_that_depended_on() -> None:
    async with serving(NEWS) as service:
        for method in ("GET", "HEAD"):
            compressed = await service.get("/api/v2/stream", method=method, Accept_Encoding="gzip")
            plain = await service.get("/api/v2/stream", method=method)
            assert compressed.headers["content-encoding"] == "gzip"
            assert "content-encoding" not in plain.headers
            for reply in (compressed, plain):
                assert "Accept-Encoding" in reply.headers["vary"]


async def test_it_can_be_turned_off() -> None:
    async with serving(NEWS, SSE_COMPRESSION="off") as service:
        reply = await service.get("/api/v2/stream", Accept_Encoding="gzip")
        assert "content-encoding" not in reply.headers
        assert "Accept-Encoding" not in reply.headers.get("vary", "")
        await reply.until("metrics")


async def test_a_polite_refusal_is_short_and_plain() -> None:
    async with serving(NEWS, SSE_MAX_CONNECTIONS="1") as service:
        await service.get("/api/v2/stream")
        refused = await service.get("/api/v2/stream?on_limit=retry", Accept_Encoding="gzip")
        assert "content-encoding" not in refused.headers
        assert b"connection_limit" in await refused.body()


@pytest.mark.parametrize("handover", WAYS)
@on_both_loops
async def test_every_tick_can_be_read_the_moment_it_arrives(handover: str) -> None:
    async with serving(NEWS, SSE_HANDOVER=handover) as service:
        reader = await reading(service)
        await reader.until(b"event: metrics")
        for number in range(30):
            publish(service.parts.hub, number, count=1 + number % 7)
            await reader.until(b"id: evt_n%dx%d." % (number, number % 7))
        service.parts.hub.broadcast(service.parts.pulse.heartbeat())
        service.parts.hub.keep_alive(b":\n\n", 0)
        await reader.until(b"\n:\n\n")


async def test_the_first_heartbeat_can_be_read_before_there_is_a_state() -> None:
    async with serving(hanging=True) as service:
        reader = await reading(service)
        await reader.until(b'"feed":"starting"')


@pytest.mark.parametrize("handover", WAYS)
@pytest.mark.parametrize("ended_by", ["shutdown", "age", "lag"])
@on_both_loops
async def test_a_stream_that_the_server_ends_has_a_true_trailer(ended_by: str, handover: str) -> None:
    age = "0.5" if ended_by == "age" else "0"
    async with serving(NEWS, SSE_HANDOVER=handover, SSE_BACKLOG_BYTES="20000", SSE_MAX_STREAM_AGE=age) as service:
        reader = await reading(service)
        await reader.until(b"event: metrics")
        publish(service.parts.hub, 1, count=3)
        if ended_by == "lag":
            socket = cast("asyncio.Transport", reader.reply.writer.transport)
            socket.pause_reading()
            for number in range(2, 800):
                publish(service.parts.hub, number, size=20_000)
                await asyncio.sleep(0)
            socket.resume_reading()
        else:
            await reader.until(b"id: evt_n1x2.")
        if ended_by == "shutdown":
            service.stop.set()
        body = await reader.to_the_end()
        assert reader.whole
        reason = {"shutdown": b"draining", "age": b"max_age", "lag": b"lagged"}[ended_by]
        assert b'"reason":"%b"' % reason in body


async def test_a_stream_that_ends_before_its_state_was_there_has_one_too() -> None:
    async with serving(hanging=True) as service:
        reader = await reading(service)
        await reader.until(b'"feed":"starting"')
        service.stop.set()
        assert b"stream_end" in await reader.to_the_end()
        assert reader.whole


async def test_what_a_stream_was_sent_alone_and_with_others_is_all_in_its_sum() -> None:
    """A change of the configuration is for one reader, between ticks for all."""
    async with serving(NEWS, saved=SAVED, SSE_CONFIG_INTERVAL="0.05") as service:
        mine = await reading(service, "/api/v2/configurations/mine/stream", X_User_ID="ann")
        await mine.until(b"event: configuration")
        publish(service.parts.hub, 1, count=5)
        await mine.until(b"id: evt_n1x4.")
        service.store.saved["ann", "mine"] = Saved("mine", "Another name", ("AAPL", "MSFT"))
        await mine.until(b"Another name")
        publish(service.parts.hub, 2, count=5)
        await mine.until(b"id: evt_n2x4.")
        service.stop.set()
        await mine.to_the_end()
        assert mine.whole


async def test_a_secret_is_not_compressed_beside_what_the_request_says() -> None:
    """Else the length of the answer would tell whoever can make a browser ask, and measure."""
    own = "evt_x.aaaaaaaa.1.1"
    async with serving(NEWS, saved=SAVED) as service:
        mine = await service.get(
            "/api/v2/configurations/mine/stream", Accept_Encoding="gzip", X_User_ID="ann", Last_Event_ID=own
        )
        opening = b""
        async with asyncio.timeout(5):
            async for chunk in mine.chunks():
                opening += chunk
                if b"A secret name" in opening:  # in clear: it is in a stored block
                    break
        assert zlib.decompressobj(31).decompress(opening).count(b"aaaaaaaa.1.1") > 1


@asynccontextmanager
async def behind(name: str, service: Service, directory: Path) -> AsyncIterator[int]:
    with ExitStack() as stack:
        listen = stack.enter_context(proxy(name, service.port, directory))
        async with asyncio.timeout(5):
            while True:
                try:
                    (await request(listen, "/health")).close()
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        yield listen


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
async def test_a_proxy_hands_every_tick_on_at_once_and_the_trailer_last(name: str, tmp_path: Path) -> None:
    async with serving(NEWS) as service, behind(name, service, tmp_path) as listen:
        reply = await request(listen, "/api/v2/stream?tickers=*", headers={"Accept-Encoding": "gzip"})
        assert reply.headers["content-encoding"] == "gzip"
        reader = Reader(reply)
        await reader.until(b"event: metrics")
        for number in range(20):
            publish(service.parts.hub, number, count=1 + number % 7)
            await reader.until(b"id: evt_n%dx%d." % (number, number % 7))
        service.stop.set()
        await reader.to_the_end()
        assert reader.whole


@pytest.mark.parametrize("handover", WAYS)
@on_both_loops
async def test_who_leaves_or_cannot_read_gzip_touches_nobody_else(handover: str) -> None:
    chance = random.Random(5)
    async with serving(NEWS, SSE_HANDOVER=handover, SSE_MAX_CONNECTIONS="500") as service:
        steady, plain = await reading(service), await service.get("/api/v2/stream?tickers=*")
        await plain.until("metrics")
        leavers: list[Reply] = []
        for number in range(60):
            leavers.append(await service.get("/api/v2/stream?tickers=*", Accept_Encoding="gzip"))
            publish(service.parts.hub, number, count=1 + number % 3)
            if chance.random() < 0.8:
                leavers.pop(chance.randrange(len(leavers))).close()
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        await steady.until(b"id: evt_n59x")
        service.stop.set()
        body, plain_body = await steady.to_the_end(), await plain.body()
        assert steady.whole
        at = body.index(b"id: evt_n0x0.")
        assert body[at : body.index(b"retry:", at)] in plain_body
