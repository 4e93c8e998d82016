"""The parser: as the standard says, however the bytes are cut."""

import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import given

from quartsse.client import (
    EventTooLarge,
    Parser,
    ServerEvent,
)
from tests.adversary import singly
from tests.client.pieces import CONTENT, split


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
