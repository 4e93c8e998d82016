"""The Python client: its parser, its HTTP, and what it does when a stream goes wrong."""

import asyncio
import gzip
import ipaddress
import re
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from quartsse import client
from quartsse.client import (
    ConnectionFailed,
    EventTooLarge,
    GaveUp,
    Pace,
    Parser,
    ProtocolError,
    ServerEvent,
    State,
    Stream,
    StreamOptions,
    StreamRefused,
    open_stream,
    stream,
)
from tests.adversary import Adversary, Ending, Seen, Step, block, chunk, chunked, gzipped, head, singly

# --- the parser -----------------------------------------------------------------------------------------------------


def parse(content: bytes) -> list[ServerEvent]:
    return list(Parser().feed(content))


def data_of(content: bytes) -> list[str]:
    return [event.data for event in parse(content)]


# What the web platform's own EventSource tests look at, each as bytes and the data of the events they make.
STANDARD = {
    "a BOM at the very start is skipped": (b"\xef\xbb\xbfdata: 1\n\ndata: 2\n\n", ["1", "2"]),
    "a second BOM is part of a field's name": (b"\xef\xbb\xbf\xef\xbb\xbfdata: 1\n\ndata: 2\n\n", ["2"]),
    "a BOM later is part of a field's name": (b"data: 1\n\n\xef\xbb\xbfdata: 2\n\ndata: 3\n\n", ["1", "3"]),
    "a BOM on a line of its own is an empty line": (b"\xef\xbb\xbf\ndata: 1\n\n", ["1"]),
    "comments are skipped, long ones too": (
        b"data: 1\r:\0\n:\r\ndata: 2\n: data\r:data: 3" + b"x" * 5000 + b"\rdata: 4\n\n",
        ["1\n2\n4"],
    ),
    "an event ends with an empty line only": (b"retry: 1000\ndata: 1\n\ndata: 2", ["1"]),
    "a last line without its end is no line": (b"data: 1\n\ndata: 2\n", ["1"]),
    "data may be empty and still be data": (b"data:\n\ndata\ndata\n\ndata: end\n\n", ["", "\n", "end"]),
    "a line without a colon is a field with an empty value": (b"data\n\n", [""]),
    "names are matched whole and by case": (
        b"data: 1\nData: 2\n data: 3\nda-ta: 4\ndata\0: 5\n\0data: 6\ndata_7\ndata: 8\n\n",
        ["1\n8"],
    ),
    "one leading space is taken off": (b"data:\ttest\rdata: \ndata:  two\ndata:test\n\n", ["\ttest\n\n two\ntest"]),
    "CR, LF and CRLF all end a line": (b"data: 1\r\ndata: 2\rdata: 3\ndata: 4\n\rdata: 5\r\r", ["1\n2\n3\n4", "5"]),
    "a NUL in data stays": (b"data: \0\n\n\0\ndata: x\0y\n\n", ["\0", "x\0y"]),
    "unknown fields mean nothing": (b"data: 1\n:ok\nxxx: yes\nxxx\nfoobar: x\n\n", ["1"]),
    "bytes are UTF-8 whatever anyone says": ("data: ok…€\U0001f600\n\n".encode(), ["ok…€\U0001f600"]),
    "what is not UTF-8 is replaced": (b"data: \xe2\x82\ndata: \xff\xc0\xaf\n\n", ["\ufffd\n\ufffd\ufffd\ufffd"]),
    "other line ends than CR and LF are data": (
        "data: 1\u20282\u00853\x0b4\x0c5\n\n".encode(),
        ["1\u20282\u00853\x0b4\x0c5"],
    ),
    "an event without data is none": (b"event: x\nid: 1\n\nretry: 5\n\n\n\ndata: 1\n\n", ["1"]),
    "colons in a value stay": (b"data: a: b:c\ndata::\n\n", ["a: b:c\n:"]),
    "nothing is nothing": (b"", []),
}


@pytest.mark.parametrize(("content", "expected"), STANDARD.values(), ids=STANDARD)
def test_the_parser_reads_as_the_standard_says(content: bytes, expected: list[str]) -> None:
    assert data_of(content) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"event: test\ndata: x\n\ndata: y\n\n", ["test", "message"]),
        (b"event:\ndata: x\n\n", ["message"]),
        (b"event: a\nevent\ndata: x\n\n", ["message"]),
        (b"event: a\nevent: b\ndata: x\n\n", ["b"]),
        (b"event: lost\n\ndata: x\n\n", ["message"]),
    ],
    ids=["its own block only", "empty", "emptied", "the last one", "not without data"],
)
def test_an_event_is_named_by_its_block(content: bytes, expected: list[str]) -> None:
    assert [event.event for event in parse(content)] == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"id: 1\ndata: x\n\ndata: y\n\n", ["1", "1"]),
        (b"id: 1\n\ndata: y\n\n", ["1"]),
        (b"id: 1\ndata: x\n\nid\ndata: y\n\n", ["1", ""]),
        (b"id: 1\ndata: x\n\nid: 2\0\ndata: y\n\n", ["1", "1"]),
        (b"id: 1\nid: \0\ndata: x\n\n", ["1"]),
        ("id: …\ndata: x\n\n".encode(), ["…"]),
    ],
    ids=["stays", "alone in its block", "empty", "with a NUL", "then one with a NUL", "beyond ASCII"],
)
def test_an_id_holds_until_the_next(content: bytes, expected: list[str]) -> None:
    assert [event.id for event in parse(content)] == expected


def test_an_id_counts_once_its_block_is_complete() -> None:
    parser = Parser()
    list(parser.feed(b"id: 1\n\nid: 2\n"))
    assert parser.last_event_id == "1"
    list(parser.feed(b"\n"))
    assert parser.last_event_id == "2"


def test_a_comment_on_a_new_connection_does_not_wipe_out_the_place() -> None:
    parser = Parser(last_event_id="7")
    assert list(parser.feed(b":\n\ndata: x\n\n")) == [ServerEvent("message", "x", "7")]
    assert parser.last_event_id == "7"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"retry: 3000\n", 3000),
        (b"retry:03000\n", 3000),
        (b"retry: 0\n", 0),
        (b"retry: 3000\nretry: 5000x\n", 3000),
        (b"retry: 3000\nretry\n", 3000),
        (b"retry: 3000\nretry:\n", 3000),
        (b"retry: 3000\nretry: -1\nretry: +1\nretry: 1.5\nretry:  7\nretry: 1_0\n", 3000),
        ("retry: 3000\nretry: ٣\nretry: ²\n".encode(), 3000),
        (b"retry: 3000", None),
        (b"retry: " + b"9" * 10_000 + b"\n", 10**18 - 1),
    ],
    ids=["plain", "zeros", "none", "bogus", "no value", "empty", "signs", "other digits", "no end", "astronomic"],
)
def test_a_retry_is_ascii_digits_or_nothing(content: bytes, expected: int | None) -> None:
    parser = Parser()
    list(parser.feed(content))
    assert parser.retry == expected


def test_an_event_tells_the_retry_of_its_own_block() -> None:
    assert [event.retry for event in parse(b"retry: 5\ndata: x\n\ndata: y\n\n")] == [5, None]


def test_an_event_reads_its_data_as_json() -> None:
    assert parse(b'data: {"a":\ndata: [1]}\n\n')[0].json() == {"a": [1]}


PIECES = (b"data", b"id", b"event", b"retry", b":", b" ", b"\r", b"\n", b"\r\n", b"\n\n", b"1", b"\0", b"\xef\xbb\xbf")
CONTENT = st.lists(st.sampled_from((*PIECES, b"data:x\n\n", b"\xe2\x82\xac", b"\xff", b"\xf0\x9f"))).map(b"".join)


@st.composite
def split(draw: st.DrawFn, contents: st.SearchStrategy[bytes] = CONTENT) -> tuple[bytes, list[bytes]]:
    """Bytes, and the same in pieces, some of them empty."""
    content = draw(contents)
    cuts = sorted(draw(st.lists(st.integers(0, len(content)))))
    return content, [content[start:end] for start, end in pairwise([0, *cuts, len(content)])]


RICH = (
    b"\xef\xbb\xbf:\nretry: 5\nid: 1\ndata: a\ndata\ndata:  b\n\nevent: x\ndata: \xe2\x82\xac\xff\nid: \0\n\n"
    b"id: 2\n\ndata: 3\n\nid\ndata:\n\ndata: never\n"
)


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
def test_a_cut_anywhere_gives_the_same_events_at_the_same_byte(line_end: bytes) -> None:
    content = RICH.replace(b"\n", line_end)
    expected = parse(content)
    assert [event.data for event in expected] == ["a\n\n b", "€\ufffd", "3", ""]
    for cut in range(len(content) + 1):
        parser = Parser()
        assert [*parser.feed(content[:cut]), *parser.feed(content[cut:])] == expected
    apart = Parser()
    assert [event for byte in singly(content) for event in apart.feed(byte)] == expected


@given(split())
def test_every_split_gives_the_same_events_as_the_whole(case: tuple[bytes, list[bytes]]) -> None:
    content, pieces = case
    whole, apart = Parser(), Parser()
    assert [event for piece in pieces for event in apart.feed(piece)] == list(whole.feed(content))
    assert (apart.last_event_id, apart.retry) == (whole.last_event_id, whole.retry)


@given(CONTENT)
def test_the_parser_agrees_with_the_standard_read_naively(content: bytes) -> None:
    assert [(event.event, event.data, event.id) for event in parse(content)] == list(naively(content))


def naively(content: bytes) -> Iterator[tuple[str, str, str]]:
    """The standard's algorithm in its own order of steps: decode everything, split it, then go line by line."""
    lines = re.split("\r\n|\r|\n", content.decode("utf-8", "replace").removeprefix("\ufeff"))[:-1]
    event, data, event_id = "", "", ""
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data:
                yield event or "message", data.removesuffix("\n"), event_id
            event = data = ""
        elif name == "event":
            event = value
        elif name == "data":
            data += value + "\n"
        elif name == "id" and "\0" not in value:
            event_id = value


def test_a_cr_ends_its_line_at_once_and_swallows_an_lf_that_comes_later() -> None:
    parser = Parser()
    assert [event.data for event in parser.feed(b"data: 1\r\r")] == ["1"]
    assert list(parser.feed(b"\ndata: 2\r")) == []
    assert list(parser.feed(b"")) == []
    assert [event.data for event in parser.feed(b"\n\r\n")] == ["2"]


def test_a_field_of_megabytes_in_small_pieces_takes_no_more_than_its_length() -> None:
    parser, piece = Parser(), b"x" * 1000
    began = time.process_time()
    list(parser.feed(b"data: "))
    for _ in range(8000):
        list(parser.feed(piece))
    (event,) = parser.feed(b"\n\n")
    assert len(event.data) == 8_000_000
    assert time.process_time() - began < 2  # 40 ms; each piece copying all before it would take minutes


@pytest.mark.parametrize("piece_size", [1, 3, 1000])
@pytest.mark.parametrize(
    "content", [b"data: " + b"x" * 100, b"data: 123456789\n" * 8, b":" + b"x" * 100, b"x" * 100 + b"\n"]
)
def test_an_event_beyond_the_bound_is_refused_after_those_before_it(content: bytes, piece_size: int) -> None:
    parser = Parser(max_event_bytes=64)
    seen: list[str] = []
    content = b"data: " + b"y" * 50 + b"\n\n" + content
    pieces = [content[at : at + piece_size] for at in range(0, len(content), piece_size)]
    with pytest.raises(EventTooLarge, match="more than 64 bytes"):
        seen.extend(event.data for piece in pieces for event in parser.feed(piece))
    assert seen == ["y" * 50]


def test_comments_without_end_do_not_fill_the_bound() -> None:
    parser = Parser(max_event_bytes=64)
    for _ in range(100):
        assert list(parser.feed(b": still here\n")) == []


# --- HTTP -----------------------------------------------------------------------------------------------------------


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
    whole, apart = client._Chunked(), client._Chunked()
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
    chunks = client._Chunked()
    with pytest.raises(ProtocolError):
        b"".join(chunks.feed(byte) for byte in singly(wire))


@given(st.lists(st.binary(max_size=300)), st.data())
def test_every_split_of_gzip_gives_the_same_content(contents: list[bytes], data: st.DataObject) -> None:
    _, pieces = data.draw(split(st.just(b"".join(gzipped(contents)))))
    decoder, seen = client._Gzip(), b""
    for piece in pieces:
        decoder.feed(piece)
        while content := decoder.take():
            seen += content
    assert seen == b"".join(contents)


def test_a_bomb_of_gzip_unfolds_piece_by_piece() -> None:
    decoder = client._Gzip()
    decoder.feed(gzip.compress(bytes(50_000_000)))
    sizes = []
    while content := decoder.take():
        sizes.append(len(content))
    assert sum(sizes) == 50_000_000
    assert max(sizes) <= 2**18


def test_gzip_holds_back_nothing_that_its_bytes_have_unfolded_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_INFLATED_BYTES", 10)
    decoder, whole = client._Gzip(), zlib.decompressobj(wbits=31)
    for byte in singly(gzip.compress(bytes(100_000) + b"end")):
        decoder.feed(byte)
        assert b"".join(iter(decoder.take, b"")) == whole.decompress(byte)


async def body_of(*steps: Step) -> bytes:
    async with Adversary(steps) as server, open_stream(server.url, idle_timeout=5) as response:
        return b"".join([content async for content in response.body()])


CHUNKED = {"Transfer_Encoding": "chunked"}


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


# --- the stream -----------------------------------------------------------------------------------------------------


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


async def test_a_stream_goes_on_over_connections_from_where_it_stopped() -> None:
    async with reading([head(), ONE], [head(), TWO + b"data: lost\n"], [head(), THREE]) as (events, server):
        assert await take(events, 3) == ["1", "2", "3"]
    assert [seen.last_event_id for seen in server.requests] == ["", "a", "b"]


async def test_a_stream_says_who_it_is_and_what_it_wants() -> None:
    async with Adversary([head(), ONE]) as server:
        events = stream(server.url + "?tickers=OLD&x=1", tickers=["AAPL", "brk.b"], last_event_id="evt_ü.1")
        async with events:
            assert await take(events, 1) == ["1"]
        async with stream(server.url, tickers="*", headers={"Accept": "text/event-stream, */*"}) as events:
            await take(events, 1)
    first, second = server.requests
    assert first.target == "/stream?x=1&tickers=AAPL,brk.b"
    assert first.last_event_id == "evt_ü.1"
    assert first.headers["accept"] == "text/event-stream"
    assert first.headers["cache-control"] == "no-store"
    assert "accept-encoding" not in first.headers
    assert second.target == "/stream?tickers=*"
    assert second.headers["accept"] == "text/event-stream, */*"
    assert "last-event-id" not in second.headers


async def test_headers_can_be_asked_for_anew_each_time() -> None:
    tokens = iter(["first", "second"])

    async def headers() -> Mapping[str, str]:
        return {"Authorization": f"Bearer {next(tokens)}"}

    options = Instant().options()
    async with Adversary([head(), ONE]) as server, stream(server.url, headers=headers, options=options) as events:
        await take(events, 2)
    assert [seen.headers["authorization"] for seen in server.requests] == ["Bearer first", "Bearer second"]


async def test_where_a_stream_stands_is_told() -> None:
    states: list[State] = []
    body = b'{"detail":"No"}'
    refusal = head("404 Not Found", Content_Length=str(len(body))) + body
    async with reading([FULL], [head(), ONE], [refusal], on_state=states.append) as (events, _):
        await take(events, 1)
        with pytest.raises(StreamRefused):
            await take(events, 1)
    assert states == [
        State("connecting", 1),
        State("waiting", 2, "unavailable with 503: Full, sorry", 3.0),
        State("connecting", 2),
        State("open", 2),
        State("closed", 1, "ended by the server"),
        State("waiting", 1, "ended by the server", 3.0),
        State("connecting", 1),
        State("refused", 1, "refused with 404: No"),
    ]


async def test_waits_double_up_to_a_bound_and_start_anew_after_an_event() -> None:
    time = Instant()
    async with reading(*REFUSED * 6, [head(), ONE], [FULL], [head(), TWO], time=time) as (events, _):
        assert await take(events, 2) == ["1", "2"]
    assert time.waits == [3, 6, 12, 24, 30, 30, 3, 3]


async def test_waits_are_jittered_in_full_and_never_nothing() -> None:
    for chance, expected in ((0.5, [1.5, 3, 6]), (0.0, [0.05, 0.05, 0.05])):
        time = Instant(chance)
        async with reading(*REFUSED * 3, [head(), ONE], time=time) as (events, _):
            await take(events, 1)
        assert time.waits == expected


async def test_the_servers_retry_is_what_waits_begin_with_also_on_later_connections() -> None:
    time = Instant()
    opening = [head(), b"retry: 100\n\n" + ONE]
    async with reading(opening, [head(), b"retry: no\n"], [FULL], [head(), TWO], time=time) as (events, _):
        await take(events, 2)
    assert time.waits == [0.1, 0.1, 0.2]


async def test_a_retry_of_nothing_does_not_hammer_the_server() -> None:
    time = Instant()
    async with reading([head(), b"retry: 0\n\n" + ONE], time=time) as (events, _):
        await take(events, 4)
    assert time.waits == [0.05] * 3


async def test_a_retry_of_ages_is_obeyed_for_an_hour() -> None:
    time = Instant()
    async with reading([head(), b"retry: 9999999999999999\n\n" + ONE], time=time) as (events, _):
        await take(events, 2)
    assert time.waits == [3600]


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable", "502 Bad Gateway"])
async def test_retry_after_is_obeyed_and_stretched_so_that_not_all_come_back_at_once(status: str) -> None:
    for chance, expected in ((0.0, 30), (1.0, 37.5)):
        time = Instant(chance)
        full = [head(status, Retry_After="30", Content_Length="0")]
        async with reading(full, [head(), ONE], time=time) as (events, _):
            assert await take(events, 1) == ["1"]
        assert time.waits == [expected]


async def test_retry_after_may_be_a_date_and_nonsense_is_nothing() -> None:
    date = format_datetime(datetime.fromtimestamp(1_800_000_010, UTC), usegmt=True)
    for value, expected in ((date, 10), ("Mon, 99 Foo 2027", 0.05), ("-5", 0.05), ("", 0.05)):
        time = Instant(chance=0.0)
        full = [head("503 Service Unavailable", Retry_After=value, Content_Length="0")]
        async with reading(full, [head(), ONE], time=time) as (events, _):
            await take(events, 1)
        assert time.waits == [expected], value


async def test_a_stream_end_says_when_to_come_back_to_this_reader_alone() -> None:
    time, states = Instant(chance=0.5), list[State]()
    end = block('{"reason":"draining","retry_ms":4321}', event="stream_end", event_id="e")
    scripts: list[list[Step]] = [[head(), ONE + b"retry: 9000\n" + end, Ending.SILENCE], [head(), TWO]]
    async with reading(*scripts, time=time, on_state=states.append) as (events, server):
        first, last, second = [await anext(events) for _ in range(3)]
    assert [first.data, last.event, second.data] == ["1", "stream_end", "2"]
    assert time.waits == [4.321]
    assert server.requests[1].last_event_id == "e"
    assert State("closed", 1, "ended by the server: draining") in states


@pytest.mark.parametrize("data", ["", "null", "[]", '{"retry_ms":"soon"}', '{"retry_ms":-1}', "{", '{"reason":5}'])
async def test_a_stream_end_that_says_nothing_is_an_end_all_the_same(data: str) -> None:
    time = Instant()
    async with reading([head(), ONE + block(data, event="stream_end"), Ending.SILENCE], time=time) as (events, _):
        assert await take(events, 4) == ["1", data, "1", data]
    assert time.waits == [3]


@pytest.mark.parametrize("status", [204, 301, 400, 401, 403, 404, 405, 406, 410, 421, 501])
async def test_a_refusal_ends_a_stream_with_the_servers_own_words(status: int) -> None:
    body = b'{"detail":"Because \xe2\x80\xa6"}' if status != 204 else b""
    async with reading([head(f"{status} No", Content_Length=str(len(body))) + body]) as (events, server):
        with pytest.raises(StreamRefused) as refused:
            await take(events, 1)
        assert (refused.value.status, refused.value.detail) == (status, "Because …" if body else "No")
        with pytest.raises(StopAsyncIteration):
            await anext(events)
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"<h1>Gone", b'{"detail":{"a":1}}', b"[1]", b"\xff", b""])
async def test_a_refusal_without_words_is_told_by_its_status_line(body: bytes) -> None:
    async with reading([head("404 Not Found", Content_Length=str(len(body))) + body]) as (events, _):
        with pytest.raises(StreamRefused, match="refused with 404: Not Found"):
            await anext(events)


async def test_a_refusal_whose_body_never_ends_is_a_refusal() -> None:
    async with reading([head("404 Not Found"), Ending.SILENCE], connect_timeout=0.05) as (events, _):
        with pytest.raises(StreamRefused):
            await anext(events)
    began = time.monotonic()
    async with reading([head("404 Not Found"), *[b"x" * 10_000] * 10, Ending.SILENCE]) as (events, _):
        with pytest.raises(StreamRefused):
            await anext(events)
    assert time.monotonic() - began < 4  # it is enough of a body, long before it is silent for too long


@pytest.mark.parametrize("kind", ["text/html", "text/event-streamx", "", "application/json; x=text/event-stream"])
async def test_an_answer_of_another_type_ends_a_stream(kind: str) -> None:
    async with reading([head(content_type=kind), ONE]) as (events, _):
        with pytest.raises(StreamRefused, match="not an event stream") as refused:
            await take(events, 1)
    assert refused.value.status == 200


async def test_a_coding_that_nobody_asked_for_ends_a_stream() -> None:
    async with reading([head(Content_Encoding="br"), ONE]) as (events, _):
        with pytest.raises(StreamRefused, match="in br"):
            await take(events, 1)


@pytest.mark.parametrize("kind", ["text/event-stream;charset=utf-8", "Text/Event-Stream ; bogus", "text/event-stream;"])
async def test_parameters_of_the_type_mean_nothing(kind: str) -> None:
    async with reading([head(content_type=kind), ONE]) as (events, _):
        assert await take(events, 1) == ["1"]


async def test_silence_ends_a_connection_and_not_the_stream() -> None:
    states: list[State] = []
    scripts: list[list[Step]] = [[head(), ONE, Ending.SILENCE], [head(), TWO]]
    async with reading(*scripts, on_state=states.append, idle_timeout=0.05) as (events, server):
        assert await take(events, 2) == ["1", "2"]
    assert State("closed", 1, "silent for 0.05 s") in states
    assert server.requests[1].last_event_id == "a"


async def test_a_comment_breaks_the_silence() -> None:
    comments: list[Step] = [step for _ in range(8) for step in (0.1, b":\n\n")]
    async with reading([head(), ONE, *comments, TWO], idle_timeout=0.4) as (events, server):
        assert await take(events, 2) == ["1", "2"]
    assert len(server.requests) == 1


async def test_a_server_that_is_not_there_is_tried_until_it_is_enough() -> None:
    async with Adversary([]) as server:
        pass
    time = Instant()
    async with stream(server.url, options=time.options(max_attempts=4)) as events:
        with pytest.raises(GaveUp, match="gave up after 4 attempts") as gave_up:
            await anext(events)
    assert isinstance(gave_up.value.__cause__, ConnectionFailed)
    assert time.waits == [3, 3 * 2, 3 * 4]


async def test_attempts_are_counted_from_the_last_event() -> None:
    async with reading([FULL], [FULL], [head(), ONE], [FULL], [FULL], [head(), TWO], max_attempts=3) as (events, _):
        assert await take(events, 2) == ["1", "2"]
    async with reading([head()], max_attempts=3) as (events, server):
        with pytest.raises(GaveUp):
            await anext(events)
    assert len(server.requests) == 3


async def test_an_event_too_large_ends_a_stream_after_those_before_it() -> None:
    async with reading([head(), ONE + TWO + b"data: " + b"x" * 2000], max_event_bytes=1000) as (events, _):
        assert await take(events, 2) == ["1", "2"]
        with pytest.raises(EventTooLarge):
            await anext(events)
        assert events.last_event_id == "b"


async def test_a_field_of_a_megabyte_arrives() -> None:
    async with reading([head(**CHUNKED), chunked([b"data: " + b"x" * 2**20, b"\n\n"])]) as (events, _):
        assert await take(events, 1) == ["x" * 2**20]


async def test_a_stream_in_gzip_arrives_as_it_is_sent() -> None:
    pieces = [chunk(piece) for piece in gzipped([ONE, TWO])]
    answer = head(Content_Encoding="gzip", **CHUNKED)
    async with reading([answer, *pieces, Ending.SILENCE], compression=True) as (events, server):
        assert await take(events, 2) == ["1", "2"]
    assert server.requests[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize("flush", ["sync", "full"])
async def test_one_gzip_member_flushed_event_by_event_arrives_too(flush: str) -> None:
    deflate = zlib.compressobj(wbits=31)
    mode = zlib.Z_SYNC_FLUSH if flush == "sync" else zlib.Z_FULL_FLUSH
    pieces = [deflate.compress(content) + deflate.flush(mode) for content in (ONE, TWO, THREE)]
    answer = head(Content_Encoding="gzip", **CHUNKED)
    wire = b"".join(chunk(piece) for piece in pieces)
    async with reading([answer, *singly(wire), Ending.SILENCE]) as (events, _):
        assert await take(events, 3) == ["1", "2", "3"]


@pytest.mark.parametrize("separator", [b"\n", b"\r", b"\r\n"])
async def test_every_byte_in_a_chunk_and_a_packet_of_its_own_is_the_same_stream(separator: bytes) -> None:
    content = (b"\xef\xbb\xbf" + ONE + b":\n\nretry: x\nid: \0\n" + "data: …\n\n".encode()).replace(b"\n", separator)
    wire = b"".join(chunk(byte) for byte in singly(content))
    async with reading([head(**CHUNKED), *singly(wire), Ending.SILENCE]) as (events, _):
        seen = [await anext(events) for _ in range(2)]
    assert seen == [ServerEvent("message", "1", "a"), ServerEvent("message", "…", "a")]


# --- repeats --------------------------------------------------------------------------------------------------------


def update(item: str, says: str, place: int) -> bytes:
    return block(f"{item}{says}@{place}", event="sentiment_update", event_id=f"evt_{item}-{says}.i.{place}.0")


async def test_an_update_that_says_what_its_item_said_last_is_dropped() -> None:
    before = update("x", "1", 1) + update("y", "1", 2) + update("x", "2", 3)
    after = update("x", "2", 9) + update("y", "1", 9) + update("x", "1", 10) + update("y", "2", 11)
    async with reading([head(), before], [head(), after]) as (events, _):
        assert await take(events, 5) == ["x1@1", "y1@2", "x2@3", "x1@10", "y2@11"]
        assert events.repeats == 2


async def test_a_repeat_that_is_dropped_still_moves_the_place_on() -> None:
    scripts = [[head(), update("x", "1", 1) + update("x", "1", 2)], [head(), update("x", "2", 3)]]
    async with reading(*scripts) as (events, server):
        await take(events, 2)
    assert server.requests[1].last_event_id == "evt_x-1.i.2.0"


async def test_only_updates_with_an_identity_are_ever_dropped() -> None:
    heartbeat = block("beat", event="heartbeat", event_id="evt_a-b.i.1.0")
    foreign = block("foreign", event="sentiment_update", event_id="17")
    async with reading([head(), heartbeat * 2 + foreign * 2]) as (events, _):
        assert await take(events, 4) == ["beat", "beat", "foreign", "foreign"]


async def test_the_memory_for_repeats_is_bounded_and_forgets_the_longest_unheard() -> None:
    sent = [("x", "1"), ("y", "1"), ("x", "1"), ("z", "1"), ("x", "1"), ("y", "1")]
    content = b"".join(update(item, says, place) for place, (item, says) in enumerate(sent))
    async with reading([head(), content, Ending.SILENCE], remember=2) as (events, _):
        assert await take(events, 4) == ["x1@0", "y1@1", "z1@3", "y1@5"]


# --- cut anywhere ---------------------------------------------------------------------------------------------------

HISTORY = [("x", "1"), ("y", "1"), ("x", "2"), ("z", "1"), ("x", "1"), ("y", "3")]
UPDATES = [update(item, says, place) for place, (item, says) in enumerate(HISTORY)]
EXPECTED = [f"{item}{says}@{place}" for place, (item, says) in enumerate(HISTORY)]


def whole_answer(seen: Seen, coding: str) -> bytes:
    """What a server owes this client: all after its place, and, as after a change of instance, the last one again."""
    place = int(seen.last_event_id.split(".")[2]) if seen.last_event_id else 0
    contents = [b"retry: 1\n:\n\n", *UPDATES[place:]]
    if coding == "close":
        return head() + b"".join(contents)
    if coding == "gzip":
        return head(Content_Encoding="gzip", **CHUNKED) + chunked(gzipped(contents))
    return head(**CHUNKED) + chunked(contents)


@pytest.mark.parametrize("ending", [[], [Ending.RESET]], ids=["closed", "reset"])
@pytest.mark.parametrize("coding", ["chunked", "close", "gzip"])
async def test_a_connection_cut_at_any_byte_costs_no_event_and_repeats_none(coding: str, ending: list[Step]) -> None:
    longest = len(whole_answer(Seen("", {}), coding))
    first: set[str] = set()

    def script(seen: Seen) -> Sequence[Step]:
        answer = whole_answer(seen, coding)
        if seen.target in first:
            return [answer, Ending.SILENCE]
        first.add(seen.target)
        return [answer[: int(seen.target.rpartition("/")[2])], *ending]

    async with Adversary(script) as server:
        for cut in range(longest + 1):
            async with stream(f"{server.url}/{cut}", options=Instant().options()) as events:
                assert await take(events, len(EXPECTED)) == EXPECTED, cut


async def test_a_stream_cut_again_and_again_still_arrives_whole() -> None:
    cuts = iter(range(10, 4000, 7))

    def script(seen: Seen) -> Sequence[Step]:
        return [whole_answer(seen, "chunked")[: next(cuts)]]

    async with reading(script) as (events, server):
        assert await take(events, len(EXPECTED)) == EXPECTED
    assert len(server.requests) > 10


# --- reading it -----------------------------------------------------------------------------------------------------


async def test_a_read_that_is_cancelled_loses_nothing() -> None:
    go_on = asyncio.Event()
    async with reading([head(), ONE + TWO[:5], go_on, TWO[5:], Ending.SILENCE]) as (events, server):
        assert await take(events, 1) == ["1"]
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(events), 0.01)
        go_on.set()
        assert await take(events, 1) == ["2"]
    assert len(server.requests) == 1


async def test_a_wait_that_is_cancelled_goes_on_for_the_rest() -> None:
    time = Instant()

    async def half(seconds: float) -> None:
        time.waits.append(seconds)
        time.now += seconds / 2 if len(time.waits) == 1 else seconds
        if len(time.waits) == 1:
            await asyncio.sleep(3600)

    options = time.options()
    options = replace(options, pace=replace(options.pace, sleep=half))
    async with Adversary([FULL], [head(), ONE]) as server, stream(server.url, options=options) as events:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.1)
        assert await take(events, 1) == ["1"]
    assert time.waits == [3, 1.5]


async def test_the_place_is_that_of_the_last_event_given_out() -> None:
    async with reading([head(), ONE + TWO + b"id: d\n\n", Ending.SILENCE]) as (events, _):
        assert events.last_event_id == ""
        await take(events, 1)
        assert events.last_event_id == "a"
        await take(events, 1)
        assert events.last_event_id == "d"


async def test_leaving_ends_the_connection_at_once() -> None:
    states: list[State] = []
    async with reading([head(), ONE, Ending.SILENCE], on_state=states.append) as (events, server):
        async for event in events:
            assert event.data == "1"
            break
        await events.aclose()
        await asyncio.wait_for(server.left.wait(), 5)
        with pytest.raises(StopAsyncIteration):
            await anext(events)
    assert states[-1] == State("closed", 1, "closed by the reader")


async def test_a_stream_closed_by_another_task_ends_for_who_reads_it() -> None:
    states: list[State] = []
    async with reading([head(), ONE, Ending.SILENCE], on_state=states.append) as (events, server):
        await take(events, 1)
        reader = asyncio.create_task(take_all(events))
        await asyncio.sleep(0.01)
        await events.aclose()
        assert await asyncio.wait_for(reader, 5) == []
    assert len(server.requests) == 1
    assert [state.name for state in states] == ["connecting", "open", "closed"]


async def test_a_stream_closed_while_it_connects_leaves_no_connection() -> None:
    answer = asyncio.Event()
    async with reading([answer, head(), Ending.SILENCE]) as (events, server):
        reader = asyncio.create_task(take_all(events))
        while not server.requests:
            await asyncio.sleep(0.001)
        await events.aclose()
        answer.set()
        assert await asyncio.wait_for(reader, 5) == []
        await asyncio.wait_for(server.left.wait(), 5)


async def test_a_connection_that_is_cancelled_while_it_is_made_is_let_go() -> None:
    async with reading([Ending.SILENCE], [head(), ONE]) as (events, server):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.05)
        await asyncio.wait_for(server.left.wait(), 5)
        assert await take(events, 1) == ["1"]


async def test_a_refusal_that_is_cancelled_half_read_is_not_taken_for_a_stream() -> None:
    slow = head("404 Not Found", Content_Length="100") + b"data: no event\n\n"
    async with reading([slow, Ending.SILENCE], [head(), ONE]) as (events, server):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.05)
        await asyncio.wait_for(server.left.wait(), 5)
        assert await take(events, 1) == ["1"]


async def take_all(events: Stream) -> list[ServerEvent]:
    return [event async for event in events]


async def test_hundreds_of_streams_in_one_process_each_get_their_own() -> None:
    def script(seen: Seen) -> Sequence[Step]:
        return [head(**CHUNKED), *(chunk(block(f"{seen.target} {n}")) for n in range(5)), Ending.SILENCE]

    async def read(url: str) -> list[str]:
        async with stream(url) as events:
            return await take(events, 5)

    async with Adversary(script) as server:
        seen = await asyncio.gather(*(read(f"{server.url}/{n}") for n in range(400)))
    assert seen == [[f"/stream/{n} {k}" for k in range(5)] for n in range(400)]
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


# --- TLS ------------------------------------------------------------------------------------------------------------


@contextmanager
def certificate(directory: Path) -> Iterator[tuple[Path, Path]]:
    """A key and a certificate for localhost that only who is told to trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    key_file, certificate_file = directory / "key.pem", directory / "certificate.pem"
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    yield key_file, certificate_file


async def test_a_stream_over_tls_is_read_from_who_is_trusted_only(tmp_path: Path) -> None:
    with certificate(tmp_path) as (key_file, certificate_file):
        served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        served.load_cert_chain(certificate_file, key_file)
        trusting = ssl.create_default_context(cafile=str(certificate_file))
        async with Adversary([head(), ONE + TWO, Ending.SILENCE], tls=served) as server:
            async with stream(server.url, options=Instant().options(tls=trusting)) as events:
                assert await take(events, 2) == ["1", "2"]
            async with stream(server.url, options=Instant().options(max_attempts=2)) as events:
                with pytest.raises(GaveUp, match="certificate verify failed"):
                    await anext(events)
