"""One request and its response: framing, codings, what is no HTTP, and what cannot be sent."""

import gzip
import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quartsse.client import (
    ConnectionFailed,
    ProtocolError,
    coding,
    open_stream,
    stream,
)
from quartsse.client.coding import Gzip
from quartsse.client.framing import Chunked
from tests.adversary import Adversary, Ending, Step, chunk, chunked, gzipped, head, singly
from tests.client.pieces import CHUNKED, split


@st.composite
def chunked_bodies(draw: st.DrawFn) -> bytes:
    """A chunked body with extensions, leading zeros, both cases of hex, and trailers."""
    body = b""
    for content in draw(st.lists(st.binary(min_size=1, max_size=40))):
        size = draw(st.sampled_from([b"%x", b"%X", b"000%x", b"%x;name=value", b'%x ; a="\\""'])) % len(content)
        body += size + b"\r\n" + content + b"\r\n"
    return (
        body
        + draw(st.sampled_from([b"0", b"000", b"0;x"]))
        + b"\r\n"
        + draw(st.sampled_from([b"", b"A: b\r\n"]))
        + b"\r\n"
    )


@given(split(chunked_bodies()))
def test_every_split_of_a_chunked_body_gives_the_same_content(case: tuple[bytes, list[bytes]]) -> None:
    wire, pieces = case
    whole, apart = Chunked(), Chunked()
    assert b"".join(apart.feed(piece) for piece in pieces) == whole.feed(wire)
    assert apart.whole
    assert whole.whole


@pytest.mark.parametrize(
    "wire",
    [
        b"-1\r\nx",
        b"0x5\r\nhello",
        b"\r\n",
        b"5 5\r\nhello",
        b"5\nhello\r\n0\r\n\r\n",
        b"50\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX",
        b"5\r\nhelloXX0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"f" * 17 + b"\r\n",
        b"5;" + b"x" * 9000,
        b"0\r\n" + b"a: b\r\n" * 200,
    ],
)
def test_a_chunked_body_that_is_none_is_refused(wire: bytes) -> None:
    chunks = Chunked()
    with pytest.raises(ProtocolError):
        b"".join(chunks.feed(byte) for byte in singly(wire))


@given(st.lists(st.binary(max_size=300)), st.data())
def test_every_split_of_gzip_gives_the_same_content(contents: list[bytes], data: st.DataObject) -> None:
    _, pieces = data.draw(split(st.just(b"".join(gzipped(contents)))))
    decoder, seen = Gzip(), b""
    for piece in pieces:
        decoder.feed(piece)
        while content := decoder.take():
            seen += content
    assert seen == b"".join(contents)


def test_a_bomb_of_gzip_unfolds_piece_by_piece() -> None:
    decoder = Gzip()
    decoder.feed(gzip.compress(bytes(50_000_000)))
    sizes = []
    while content := decoder.take():
        sizes.append(len(content))
    assert sum(sizes) == 50_000_000
    assert max(sizes) <= 2**18


def test_gzip_holds_back_nothing_that_its_bytes_have_unfolded_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coding, "_INFLATED_BYTES", 10)
    decoder, whole = Gzip(), zlib.decompressobj(wbits=31)
    for byte in singly(gzip.compress(bytes(100_000) + b"end")):
        decoder.feed(byte)
        assert b"".join(iter(decoder.take, b"")) == whole.decompress(byte)


async def body_of(*steps: Step) -> bytes:
    async with Adversary(steps) as server, open_stream(server.url, idle_timeout=5) as response:
        return b"".join([content async for content in response.body()])


async def test_a_body_ends_where_its_framing_says() -> None:
    assert await body_of(head(**CHUNKED), chunked([b"one", b"two"]), Ending.SILENCE) == b"onetwo"
    assert await body_of(head(Content_Length="6"), b"onetwo and more", Ending.SILENCE) == b"onetwo"
    assert await body_of(head(Content_Length="6, 6"), b"onetwo", Ending.SILENCE) == b"onetwo"
    assert await body_of(head(), b"onetwo") == b"onetwo"
    assert await body_of(head("204 No Content"), Ending.SILENCE) == b""


async def test_a_body_in_single_bytes_is_the_same_body() -> None:
    answer = head(**CHUNKED) + chunked([b"one", b"two" * 10])
    assert await body_of(*singly(answer), Ending.SILENCE) == b"one" + b"two" * 10


async def test_interim_answers_are_passed_over() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    assert await body_of(b"HTTP/1.1 100 Continue\r\n\r\n" + early + head(), b"x") == b"x"


@pytest.mark.parametrize("ending", [[], [Ending.RESET]], ids=["closed", "reset"])
@pytest.mark.parametrize(
    "start", [head(**CHUNKED) + b"5\r\nonet", head(Content_Length="6") + b"onet", b"HTTP/1.1 200 OK\r\nA: b\r\n", b""]
)
async def test_a_cut_is_told_from_an_end(start: bytes, ending: list[Step]) -> None:
    with pytest.raises(ConnectionFailed):
        await body_of(start, *ending)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nspace : x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        head(Transfer_Encoding="gzip, chunked"),
        head(Content_Length="6, 7"),
        head(Content_Length="-1"),
        head(Padding="x" * 100_000),
        head(Content_Encoding="gzip") + b"not gzip at all",
        head(Content_Encoding="br") + b"x",
    ],
)
async def test_what_is_not_http_is_told_so(answer: bytes) -> None:
    with pytest.raises(ProtocolError):
        await body_of(answer)


async def test_one_response_shows_its_exact_bytes_and_their_times() -> None:
    sent = head("200 Fine", X_One="1", x_one="2", **CHUNKED)
    async with Adversary([sent, chunk(b":\n\n"), 0.02, b"0\r\n\r\n"]) as server:
        before = time.monotonic()
        async with open_stream(server.url) as response:
            assert (response.status, response.reason, response.raw_head) == (200, "Fine", sent)
            assert response.header("x-ONE") == "1, 2"
            assert response.header("X-Two") is None
            times = [response.arrived]
            pieces = []
            async for piece in response.wire():
                pieces.append(piece)
                times.append(response.arrived)
    assert pieces == [b"3\r\n:\n\n\r\n", b"0\r\n\r\n"]
    assert before <= times[0] <= times[1] < times[2]


async def test_an_answer_other_than_200_is_an_answer_too() -> None:
    async with (
        Adversary([head("503 Service Unavailable", Content_Length="5")]) as server,
        open_stream(server.url, method="HEAD", headers={"X-User-ID": "ann"}) as response,
    ):
        assert response.status == 503
        assert await response.read() == b""
        assert response.complete
    (request,) = server.requests
    assert request.line == "HEAD /stream HTTP/1.1"
    assert request.headers["x-user-id"] == "ann"


async def test_the_time_to_the_answer_is_bounded() -> None:
    async with Adversary([b"HTTP/1.1 200 OK\r\n", Ending.SILENCE]) as server:
        with pytest.raises(ConnectionFailed, match=r"no answer within 0\.05 s"):
            async with open_stream(server.url, connect_timeout=0.05):
                pass


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("ftp://example.org/", {}),
        ("http:///stream", {}),
        ("http://ann:secret@example.org/", {}),
        ("http://example.org:99999/", {}),
        ("http://example.org/", {"X": "a\r\nY: b"}),
        ("http://example.org/", {"X\nY": "a"}),
        ("http://example.org/", {"": "a"}),
    ],
)
async def test_what_cannot_be_sent_is_refused_before_anything_is(url: str, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        stream(url, headers=headers)
    with pytest.raises(ValueError, match=r".+"):
        async with open_stream(url, headers=headers):
            pass


async def test_an_address_is_sent_as_http_wants_it() -> None:
    async with Adversary([head()]) as server:
        async with open_stream(server.url + "/a b/ü%20?q=a b&r=%41#fragment"):
            pass
        async with open_stream(server.url.removesuffix("/stream")):
            pass
    first, second = server.requests
    assert first.target == "/stream/a%20b/%C3%BC%20?q=a%20b&r=%41"
    assert second.target == "/"
    assert first.headers["host"] == server.url.split("/")[2]
