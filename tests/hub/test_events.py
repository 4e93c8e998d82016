import json
import random
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from quartsse.client import Parser
from quartsse.hub.events import KEEP_ALIVE, Configuration, Event, SentimentUpdate, StreamEnd, event, retry_field
from quartsse.hub.ids import NOWHERE, digest
from quartsse.hub.tick import chunk
from tests.hub.building import parsed, sentiment

PLACE = "abcdefgh.7.1764671400000"

HOSTILE = [
    "\r\nevent: forged",
    "\n\ndata: forged",
    "\rid: 7",
    "\x00",
    "\ufeff",
    "\u2028data: forged",
    "\u2029",
    "\u0085",
    "\x0b\x0c\x1c\x1d\x1e",
    ":",
    " ",
    "retry: 1",
    "</script><script>",
    '"}\n',
    "\\n\\n",
    "\U0010ffff",
    "\ufffe",
    "é" * 100,
    "\u202e",
    "a" * 1000,
]
"""Pieces of text that break naive framing somewhere: every line end that any language knows, and fields."""


def hostile_strings(count: int) -> list[str]:
    chance = random.Random(7)
    return [
        "".join(
            chance.choice(HOSTILE) if chance.random() < 0.7 else chr(chance.randrange(0xD800))
            for _ in range(chance.randint(0, 6))
        )
        for _ in range(count)
    ]


def test_a_frame_is_these_bytes() -> None:
    one = event("stream_end", "s1", StreamEnd(reason="draining", retry_ms=250))
    assert one.frame(PLACE) == (
        b'id: evt_s1.abcdefgh.7.1764671400000\nevent: stream_end\ndata: {"reason":"draining","retry_ms":250}\n\n'
    )


def test_an_event_without_a_place_leads_to_a_new_opening() -> None:
    assert b"id: evt_s1.~\n" in Event("heartbeat", "s1", b"{}").frame(NOWHERE)


@pytest.mark.parametrize("separately", [True, False])
def test_five_thousand_hostile_names_and_sources_arrive_as_they_were_in_one_event_each(separately: bool) -> None:
    strings = hostile_strings(5_000)
    frames = [sentiment(digest(text, 8), "AAPL", text).frame(PLACE) for text in strings]
    frames += [event("configuration", "c1", Configuration(config_id=text, name=text, tickers=[text])).frame(PLACE)
               for text in strings]  # fmt: skip
    parser = Parser()
    pieces = frames if separately else [b"".join(frames)]
    events = [one for piece in pieces for one in parser.feed(piece)]
    assert [one.event for one in events] == ["sentiment_update"] * 5_000 + ["configuration"] * 5_000
    assert [one.json()["source"] for one in events[:5_000]] == strings
    assert [one.json() for one in events[5_000:]] == [
        {"config_id": text, "name": text, "tickers": [text]} for text in strings
    ]
    assert parser.retry is None


@given(st.text(), st.lists(st.text(), max_size=3))
@example("\r", ["\n"])
@example("\x85\u2028", [""])
def test_any_payload_comes_back_as_exactly_one_event(name: str, tickers: list[str]) -> None:
    frame = event("configuration", "c1", Configuration(config_id="x", name=name, tickers=tickers)).frame(PLACE)
    assert re.fullmatch(rb"id: [^\r\n\0]+\nevent: configuration\ndata: [^\r\n]+\n\n", frame)
    (one,) = parsed(frame)
    assert (one.event, one.id, one.retry) == ("configuration", f"evt_c1.{PLACE}", None)
    assert one.json() == {"config_id": "x", "name": name, "tickers": tickers}


@given(st.lists(st.text(max_size=20), max_size=5), st.data())
def test_frames_cut_anywhere_are_the_same_events(names: list[str], data: st.DataObject) -> None:
    frames = b"".join(
        event("configuration", f"c{number}", Configuration(config_id="x", name=name, tickers=[])).frame(PLACE)
        for number, name in enumerate(names)
    )
    cut = data.draw(st.integers(0, len(frames)))
    parser = Parser()
    assert [*parser.feed(frames[:cut]), *parser.feed(frames[cut:])] == parsed(frames)
    assert len(parsed(frames)) == len(names)


def test_data_is_compact_json_in_utf_8() -> None:
    data = event("configuration", "c", Configuration(config_id="c", name="Zürich 📈", tickers=["A"])).data
    assert data == '{"config_id":"c","name":"Zürich 📈","tickers":["A"]}'.encode()


def test_half_a_character_makes_no_event() -> None:
    """Half of a surrogate pair has no UTF-8; the feed replaces it where it enters."""
    with pytest.raises(ValueError, match="surrogates not allowed"):
        sentiment("a", "AAPL", "\ud83d")


def test_a_score_that_is_no_number_is_refused_and_never_sent() -> None:
    payload = json.loads(sentiment("a", "AAPL", "x").data)
    for score in (float("nan"), float("inf"), 1.01):
        with pytest.raises(ValidationError):
            SentimentUpdate(**(payload | {"score": score}))


def test_a_comment_and_a_retry_are_no_events() -> None:
    parser = Parser()
    assert list(parser.feed(KEEP_ALIVE + retry_field(2500) + b"\n")) == []
    assert parser.retry == 2500


def test_a_retry_before_a_frame_belongs_to_its_block() -> None:
    (one,) = parsed(retry_field(40) + Event("stream_end", "s1", b"{}").frame(PLACE))
    assert (one.event, one.retry) == ("stream_end", 40)


@given(st.binary(min_size=1, max_size=300))
def test_a_chunk_says_how_long_it_is(data: bytes) -> None:
    size, _, rest = chunk(data).partition(b"\r\n")
    assert int(size, 16) == len(data)
    assert rest == data + b"\r\n"
