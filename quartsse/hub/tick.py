"""Ticks: what a channel gets at once, made ready once for all its readers in every form that they take."""

from dataclasses import dataclass
from typing import NamedTuple

from quartsse.hub.compression import deflated


class Piece(NamedTuple):
    """A part of a tick that waits for a reader: its bytes, and the form in which this reader takes them."""

    plain: bytes
    coded: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Where updates come from, to tell how old they are when they are handed over."""

    read_at: float
    """When the read that saw them began, on the monotonic clock."""
    stamp: float | None
    """The source's own time of the oldest change, in Unix seconds."""


@dataclass(slots=True)
class Tick:
    """What one channel got at once: updates, joined, and perhaps the totals after them. Shared by all its readers."""

    updates: bytes
    metrics: bytes
    place: str
    """Where a reader who has had it goes on from."""
    serial: int
    """Later ticks of a hub have greater ones."""
    events: int = 1
    origin: Origin | None = None
    _chunk: bytes | None = None
    _gzip_chunk: bytes | None = None
    _gzip_pieces: tuple[Piece, Piece] | None = None

    @property
    def data(self) -> bytes:
        """The bytes of the stream."""
        return self.updates + self.metrics if self.metrics else self.updates

    @property
    def chunk(self) -> bytes:
        """The same as one chunk of HTTP/1.1's chunked coding (RFC 9112, section 7.1), made once for all readers."""
        if self._chunk is None:
            self._chunk = chunk(self.data)
        return self._chunk

    @property
    def gzip_chunk(self) -> bytes:
        """The same for readers who take gzip, compressed once for all of them."""
        if self._gzip_chunk is None:
            self._gzip_chunk = chunk(deflated(self.data))
        return self._gzip_chunk

    def joined(self, later: "Tick") -> "Tick":
        """Both as one, the later totals instead of these; where it has none, these stay where they are."""
        updates = (self.updates if later.metrics else self.data) + later.updates
        events = self.events + later.events - bool(self.metrics and later.metrics)
        return Tick(updates, later.metrics, later.place, later.serial, events, self.origin or later.origin)

    def size(self, *, gzip: bool) -> int:
        """Bytes of the stream, without a chunk's frame; compressed if asked for."""
        if not gzip:
            return len(self.updates) + len(self.metrics)
        return len(self.gzip_chunk) - self.gzip_chunk.index(b"\r\n") - 4

    def pieces(self, *, gzip: bool) -> tuple[Piece, Piece]:
        """Updates and totals apart, for readers who wait: of several totals they get only the last."""
        if not gzip:
            return Piece(self.updates, self.updates), Piece(self.metrics, self.metrics)
        if self._gzip_pieces is None:
            self._gzip_pieces = Piece(self.updates, deflated(self.updates)), Piece(self.metrics, deflated(self.metrics))
        return self._gzip_pieces


def chunk(data: bytes) -> bytes:
    """Bytes in HTTP/1.1's chunked coding; there is no state between chunks, so anyone may send them."""
    return b"%x\r\n%b\r\n" % (len(data), data)
