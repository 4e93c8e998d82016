"""Both of our clients' parsers make the same of a stream, however it is cut: what the HTML standard says it is."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from quartsse.client import Parser

type Found = list[tuple[str, str, str]]
type Parse = Callable[[Sequence[str]], Found]

PROGRAM = Path(__file__).parents[1] / "javascript_parser.mjs"

STREAMS: dict[str, tuple[str, Found]] = {
    "every line ending": ("data: 1\r\rdata: 2\n\ndata: 3\r\n\r\n", [("message", "", n) for n in "123"]),
    "line endings mixed within an event": ("event: a\rid: 1\r\ndata: x\ndata: y\r\n\r", [("a", "1", "x\ny")]),
    "a BOM at the start": ("\ufeffdata: 1\n\n", [("message", "", "1")]),
    "a second BOM is part of a field's name": ("\ufeff\ufeffdata: 1\n\ndata: 2\n\n", [("message", "", "2")]),
    "an id with NUL is no id": ("id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n", [("message", "1", one) for one in "ab"]),
    "an id without data stays for later": ("id: 1\n\ndata: a\n\n", [("message", "1", "a")]),
    "an empty id forgets the last one": ("id: 1\n\nid\ndata: b\n\n", [("message", "", "b")]),
    "a bogus retry is nothing": ("retry: 1x\nretry: -1\nretry: \u0661\ndata: a\n\n", [("message", "", "a")]),
    "comments": (":\n: x\ndata: a\n:data: b\n\n", [("message", "", "a")]),
    "one blank is taken off": ("data:  a\ndata:b\ndata:\n\n", [("message", "", " a\nb\n")]),
    "an event that the end cuts off is none": ("data: a\n\ndata: b\n", [("message", "", "a")]),
    "separators that are none": ("data: \u2028\x85\x0b\x0c\n\n", [("message", "", "\u2028\x85\x0b\x0c")]),
    "a name without data": ("event: x\n\ndata: a\n\n", [("message", "", "a")]),
}  # fmt: skip


def python(pieces: Sequence[str]) -> Found:
    parser = Parser()
    return [(found.event, found.id, found.data) for piece in pieces for found in parser.feed(piece.encode())]


@pytest.fixture(scope="module")
def javascript() -> Iterator[Parse]:
    """Our JavaScript client's parser, in a process that stays."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    with subprocess.Popen(["node", str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def parse(pieces: Sequence[str]) -> Found:
            print(json.dumps(pieces), file=process.stdin, flush=True)
            return [(name, of, data) for name, of, data in json.loads(process.stdout.readline())]  # type: ignore[union-attr]

        yield parse
        process.kill()


def cuts(text: str) -> Iterator[list[str]]:
    """A text whole, in two pieces at every place, and one by one."""
    yield [text]
    yield from ([text[:at], text[at:]] for at in range(1, len(text)))
    yield list(text)


@pytest.mark.parametrize(("text", "meant"), STREAMS.values(), ids=STREAMS)
def test_however_a_stream_is_cut_both_parsers_find_what_was_meant(text: str, meant: Found, javascript: Parse) -> None:
    for pieces in cuts(text):
        assert python(pieces) == meant, pieces
        assert javascript(pieces) == meant, pieces


def test_megabytes_in_one_field_are_one_event_in_no_more_time_than_their_length_takes(javascript: Parse) -> None:
    pieces = ["data: ", *["x" * 1000] * 8000, "\n\n"]
    began = time.monotonic()
    assert python(pieces) == javascript(pieces) == [("message", "", "x" * 8_000_000)]
    assert time.monotonic() - began < 12  # half a second; each piece with all before it searched anew takes 27
