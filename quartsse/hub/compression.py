"""gzip for streams that many read: each tick is compressed once for all of them, and each stream ends with a true sum.

A gzip stream (RFC 1952) is a header, a sequence of deflate blocks (RFC 1951), and a trailer: the CRC and the length of
what they hold. Blocks that end with a full flush lean on nothing before them, so the same ones can be given to every
reader, whenever it joined. Only the trailer differs from reader to reader; sums can be put together from those of the
pieces.
"""

import struct
import zlib
from array import array
from functools import cache
from typing import NamedTuple

HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""Deflate, no name, no time, an unknown system (RFC 1952, section 2.3)."""

WORTH_IT = 240
"""Bytes below which deflate's own tables eat up what it saves, or nearly so: they go out as they are."""

_LONGEST_STORED = 65_535
_FINAL = b"\x03\x00"  # an empty block with the bit that says "last"
_ORDER = 2**32 - 1  # so many zero bits behind a CRC-32 lead back to it: its polynomial is primitive


def deflated(data: bytes) -> bytes:
    """Deflate blocks that hold some bytes and can stand anywhere in a stream: compressed where that is shorter."""
    if len(data) < WORTH_IT:
        return stored(data)
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    blocks = compressor.compress(data) + compressor.flush(zlib.Z_FULL_FLUSH)
    return min(blocks, stored(data), key=len)


def stored(data: bytes) -> bytes:
    """The same uncompressed: five bytes more for each 64 KiB (RFC 1951, section 3.2.4)."""
    pieces = (data[at : at + _LONGEST_STORED] for at in range(0, len(data), _LONGEST_STORED))
    return b"".join(struct.pack("<xHH", len(piece), len(piece) ^ 0xFFFF) + piece for piece in pieces)


class Sum(NamedTuple):
    """What a trailer says of some bytes: their CRC-32, and how many they are."""

    crc: int
    length: int

    def plus(self, data: bytes) -> "Sum":
        """The sum of these bytes and more behind them."""
        return Sum(zlib.crc32(data, self.crc), self.length + len(data))

    def plus_span(self, start: "Sum", end: "Sum") -> "Sum":
        """The sum of these bytes and, behind them, those between two points of another sequence."""
        length = end.length - start.length
        return Sum(_behind(self.crc ^ start.crc, length) ^ end.crc, self.length + length)

    @property
    def trailer(self) -> bytes:
        """The end of a gzip stream that holds these bytes."""
        return _FINAL + struct.pack("<II", self.crc, self.length & 0xFFFFFFFF)


NOTHING = Sum(0, 0)


class Gzip:
    """One reader's stream as gzip: what it was sent so far, so that it can end with a true trailer.

    What is made for this reader alone is summed up as it is encoded. What it shares with others is not: between
    `follow` and `settle` the reader is given all that its channel gets, and the channel's sum stands for it.
    """

    __slots__ = ("_began", "_since", "_sum")

    def __init__(self) -> None:
        self._began = False
        self._sum = NOTHING
        self._since: Sum | None = None

    def encode(self, data: bytes, *, compressed: bool = True) -> bytes:
        """Bytes for this reader alone; `compressed` off where a secret might stand beside what somebody else chose."""
        return self.account(data, deflated(data) if compressed else stored(data))

    def account(self, data: bytes, blocks: bytes) -> bytes:
        """Blocks that are already made of some bytes; before the first ones comes the header."""
        self._sum = self._sum.plus(data)
        if self._began:
            return blocks
        self._began = True
        return HEADER + blocks

    def finish(self, data: bytes) -> bytes:
        """The last bytes, and the trailer."""
        return self.account(data, stored(data)) + self._sum.trailer

    def follow(self, channel: Sum) -> None:
        """From here on the reader gets what the channel gets, whose sum is this now."""
        if self._since is None:
            self._since = channel

    def settle(self, channel: Sum) -> None:
        """No longer; the channel's sum at what the reader got last is this. Without `follow` before, nothing."""
        if self._since is not None:
            self._sum = self._sum.plus_span(self._since, channel)
            self._since = None


def _behind(crc: int, length: int) -> int:
    """What a CRC contributes once so many bytes stand behind it; linear, so differences can be moved as well."""
    length %= _ORDER
    power = 0
    while length:
        if length & 1:
            one, two, three, four = _behind_power(power)
            crc = one[crc & 255] ^ two[crc >> 8 & 255] ^ three[crc >> 16 & 255] ^ four[crc >> 24]
        length >>= 1
        power += 1
    return crc


type _Table = tuple[array[int], array[int], array[int], array[int]]


@cache
def _behind_power(power: int) -> _Table:
    """`_behind` for 2 ** power bytes: what each value of each of the CRC's four bytes becomes. 4 KiB for each power."""
    if power == 0:
        # A zero byte behind it, without the inversions that `crc32` begins and ends with.
        columns = [zlib.crc32(b"\0", (1 << bit) ^ 0xFFFFFFFF) ^ 0xFFFFFFFF for bit in range(32)]
    else:
        half = 1 << (power - 1)
        columns = [_behind(_behind(1 << bit, half), half) for bit in range(32)]
    one, two, three, four = (_combinations(columns[at : at + 8]) for at in range(0, 32, 8))
    return one, two, three, four


def _combinations(columns: list[int]) -> array[int]:
    """For each byte what its bits contribute together."""
    values = array("I", [0])
    for column in columns:
        values.extend([value ^ column for value in values])
    return values
