"""Content codings undone, in pieces of bounded size."""

import zlib
from typing import Protocol

from quartsse.client.errors import ProtocolError

_INFLATED_BYTES = 262144


class Decoder(Protocol):
    """A content coding undone: bytes in, and out in pieces of bounded size."""

    def feed(self, content: bytes) -> None:
        """Take the next bytes of the body."""
        ...

    def take(self) -> bytes:
        """The next piece; b"" when there is no more for now."""
        ...


class UnknownCoding:
    """A body in a coding that nobody asked for: it can be seen on the wire, not read."""

    def __init__(self, coding: str) -> None:
        self._coding = coding

    def feed(self, content: bytes) -> None:
        """Raises ProtocolError for any byte."""
        if content:
            raise ProtocolError(f"content coding {self._coding!r}, which was not asked for")

    def take(self) -> bytes:
        """There is never any."""
        return b""


class NoCoding:
    """A body in no coding."""

    def __init__(self) -> None:
        self._content = b""

    def feed(self, content: bytes) -> None:
        """Take the next bytes, once those before are taken."""
        self._content = content

    def take(self) -> bytes:
        """The same bytes."""
        content, self._content = self._content, b""
        return content


class Gzip:
    """A gzip body, given out in pieces of bounded size however much a few bytes unfold to."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._rest = b""
        self._more = False

    def feed(self, content: bytes) -> None:
        """Take the next bytes; nothing is unfolded yet."""
        self._rest += content

    def take(self) -> bytes:
        """What the bytes so far unfold to, piece by piece. Raises ProtocolError."""
        while self._rest or self._more:
            try:
                piece = self._inflate.decompress(self._rest, _INFLATED_BYTES)
            except zlib.error as error:
                raise ProtocolError(f"not gzip: {error}") from error
            self._rest, self._more = self._inflate.unconsumed_tail, len(piece) == _INFLATED_BYTES
            if self._inflate.eof:  # another member may follow (RFC 1952, section 2.2)
                self._rest, self._more = self._inflate.unused_data, False
                self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
            if piece:
                return piece
        return b""
