"""Compressed once: blocks that stand anywhere, sums that are put together, streams that end with a true trailer."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quartsse.hub import compression
from quartsse.hub.compression import HEADER, NOTHING, WORTH_IT, Gzip, Sum, deflated, stored

FRAME = b'id: evt_a-b.c.1.2\nevent: sentiment_update\ndata: {"ticker":"AAPL","score":0.5,"source":"tiingo"}\n\n'


def inflated(blocks: bytes) -> bytes:
    """What some blocks hold, as far as a decoder can tell that has them and nothing else."""
    return zlib.decompressobj(-15).decompress(blocks)


@given(st.lists(st.binary(max_size=5_000), max_size=5), st.integers(0, 4))
def test_blocks_hold_the_same_whatever_stands_before_them(ticks: list[bytes], missed: int) -> None:
    blocks = [deflated(tick) for tick in ticks]
    for tick, block in zip(ticks, blocks, strict=True):
        assert inflated(block) == tick
    assert inflated(b"".join(blocks[missed:])) == b"".join(ticks[missed:])


def test_every_block_can_be_read_the_moment_it_is_there() -> None:
    decoder = zlib.decompressobj(31)
    assert decoder.decompress(HEADER) == b""
    for tick in (b":\n\n", FRAME * 50, FRAME, b"", FRAME * 5):
        assert decoder.decompress(deflated(tick)) == tick


def test_five_events_take_less_than_half_and_small_ones_are_left_as_they_are() -> None:
    assert len(deflated(FRAME * 5)) < 2.5 * len(FRAME)
    short = FRAME[:WORTH_IT]
    assert deflated(short) == stored(short)
    assert len(stored(short)) == len(short) + 5


def test_what_does_not_become_shorter_is_stored() -> None:
    noise = bytes((n * n * 31 + n * 7) % 251 for n in range(WORTH_IT + 20)) * 1
    assert len(deflated(noise)) <= len(noise) + 5


@pytest.mark.parametrize("length", [0, 1, 65_535, 65_536, 200_000])
def test_stored_blocks_hold_any_length(length: int) -> None:
    assert inflated(stored(b"x" * length)) == b"x" * length


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=300))
def test_the_sum_of_a_span_stands_for_its_bytes(own: bytes, before: bytes, span: bytes) -> None:
    start = NOTHING.plus(before)
    assert NOTHING.plus(own).plus_span(start, start.plus(span)) == NOTHING.plus(own + span)


@pytest.mark.parametrize("length", [2**16, 2**24 + 1, 2**25 + 12_345])
def test_the_sum_of_a_long_span_is_right(length: int) -> None:
    span = bytes(length)
    start = NOTHING.plus(b"before")
    end = Sum(zlib.crc32(span, start.crc), start.length + length)
    assert NOTHING.plus(b"own").plus_span(start, end).crc == zlib.crc32(span, zlib.crc32(b"own"))


def test_a_span_of_any_length_is_summed_up_in_few_steps() -> None:
    """Zero bits behind a CRC come back to it after 2**32 - 1 of them: more need not be counted."""
    assert compression._behind(0x12345678, 2**32 - 1) == 0x12345678
    assert compression._behind(0x12345678, 2**63 + 5) == compression._behind(0x12345678, (2**63 + 5) % (2**32 - 1))


def test_a_trailer_tells_the_length_as_far_as_it_can() -> None:
    assert Sum(1, 2**32 + 5).trailer == Sum(1, 5).trailer


def test_a_stream_of_ones_own_is_gzip() -> None:
    stream = Gzip()
    body = stream.encode(FRAME) + stream.encode(FRAME * 9) + stream.encode(FRAME, compressed=False)
    assert gzip.decompress(body + stream.finish(b"end")) == FRAME * 11 + b"end"


def test_a_stream_that_ends_before_it_began_is_gzip() -> None:
    assert gzip.decompress(Gzip().finish(b"all")) == b"all"


@given(st.lists(st.tuples(st.sampled_from(["shared", "own", "missed"]), st.binary(min_size=1, max_size=400))))
def test_what_is_shared_and_what_is_ones_own_are_summed_up_together(steps: list[tuple[str, bytes]]) -> None:
    stream, channel = Gzip(), NOTHING
    body, expected = stream.encode(b"opening"), b"opening"
    stream.follow(channel)
    for kind, data in steps:
        if kind == "own":
            stream.settle(channel)
            body += stream.encode(data)
            stream.follow(channel)
        else:
            if kind == "missed":
                stream.settle(channel)
            channel = channel.plus(data)
            if kind == "missed":
                stream.follow(channel)
                continue
            body += deflated(data)
        expected += data
    stream.settle(channel)
    assert gzip.decompress(body + stream.finish(b"end")) == expected + b"end"


def test_who_follows_already_goes_on_doing_so() -> None:
    stream, channel = Gzip(), NOTHING
    body = stream.encode(b"")
    stream.follow(channel)
    channel = channel.plus(FRAME)
    stream.follow(channel)
    stream.settle(channel)
    assert gzip.decompress(body + deflated(FRAME) + stream.finish(b"")) == FRAME
