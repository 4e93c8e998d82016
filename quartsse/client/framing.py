"""How a body's end is known (RFC 9112, section 6.3)."""

import re
from collections.abc import Callable
from typing import Protocol

from quartsse.client.errors import ConnectionFailed, ProtocolError

_CHUNK_LINE_BYTES = 8192
_TRAILER_LINES = 100


class Framing(Protocol):
    """How a body's end is known (RFC 9112, section 6.3). `whole` is whether the end was seen."""

    whole: bool

    def feed(self, wire: bytes) -> bytes:
        """The content among the next bytes of the wire."""
        ...

    def end(self) -> None:
        """The connection has ended: raise `ConnectionFailed` if the body had not."""
        ...


class Chunked:
    """A chunked body (RFC 9112, section 7.1): a chunk's bytes are passed on as they come. Extensions are ignored."""

    def __init__(self) -> None:
        self.whole = False
        self._left = 0
        self._line = bytearray()
        self._on_line: Callable[[bytes], None] = self._take_size
        self._trailers = 0

    def feed(self, wire: bytes) -> bytes:
        """The content, free of chunks. Raises ProtocolError."""
        content, at = [], 0
        while at < len(wire) and not self.whole:
            if self._left:
                piece = wire[at : at + self._left]
                content.append(piece)
                self._left -= len(piece)
            else:
                piece = wire[at : wire.find(b"\n", at) + 1 or len(wire)]
                self._take_line(piece)
            at += len(piece)
        return b"".join(content)

    def end(self) -> None:
        """Raises ConnectionFailed before the last chunk."""
        if not self.whole:
            raise ConnectionFailed("cut before the last chunk")

    def _take_line(self, piece: bytes) -> None:
        self._line += piece
        if len(self._line) > _CHUNK_LINE_BYTES:
            raise ProtocolError("a chunk's line has no end")
        if self._on_line == self._take_chunk_end and not b"\r\n".startswith(self._line):
            raise ProtocolError("a chunk is longer than it said")
        if not piece.endswith(b"\n"):
            return
        if not self._line.endswith(b"\r\n"):
            raise ProtocolError("a chunk's line ends without CR")
        line = bytes(self._line[:-2])
        self._line.clear()
        self._on_line(line)

    def _take_size(self, line: bytes) -> None:
        size = line.partition(b";")[0].rstrip(b" \t")
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", size):
            raise ProtocolError(f"no chunk size: {size[:20]!r}")
        self._left = int(size, 16)
        self._on_line = self._take_chunk_end if self._left else self._take_trailer

    def _take_chunk_end(self, line: bytes) -> None:  # noqa: ARG002 - it is empty: anything else was refused above
        self._on_line = self._take_size

    def _take_trailer(self, line: bytes) -> None:
        self.whole = not line
        self._trailers += 1
        if self._trailers > _TRAILER_LINES:
            raise ProtocolError("trailers without end")


class Counted:
    """A body of as many bytes as `Content-Length` says."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.whole = not length

    def feed(self, wire: bytes) -> bytes:
        """As much as is left of it."""
        content = wire[: self._left]
        self._left -= len(content)
        self.whole = not self._left
        return content

    def end(self) -> None:
        """Raises ConnectionFailed before the last byte."""
        if self._left:
            raise ConnectionFailed(f"cut {self._left} bytes before the end")


class UntilClose:
    """A body that ends with its connection: whether it was cut cannot be told."""

    whole = False

    def feed(self, wire: bytes) -> bytes:
        """All of it."""
        return wire

    def end(self) -> None:
        """It is whole, as far as anybody can tell."""
        self.whole = True
