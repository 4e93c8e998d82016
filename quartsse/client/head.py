"""A response's head, and what it says of the body."""

import re
from dataclasses import dataclass

from quartsse.client.coding import Decoder, Gzip, NoCoding, UnknownCoding
from quartsse.client.errors import ProtocolError
from quartsse.client.framing import Chunked, Counted, Framing, UntilClose


@dataclass(frozen=True, slots=True)
class Head:
    """A response's head: what it says, and its bytes."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    raw: bytes

    def header(self, name: str) -> str | None:
        """A header's value, several joined by commas."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None

    def framing(self, method: str) -> Framing:
        """How the body ends; several lengths that agree are one (RFC 9112, section 6.3)."""
        if method == "HEAD" or self.status in (204, 304):
            return Counted(0)
        coding, length = self.header("Transfer-Encoding"), self.header("Content-Length")
        if coding is not None:
            if coding.lower() != "chunked":
                raise ProtocolError(f"transfer coding {coding!r}")
            return Chunked()
        if length is None:
            return UntilClose()
        lengths = {part.strip() for part in length.split(",")}
        if len(lengths) > 1 or not re.fullmatch(r"[0-9]{1,18}", one := lengths.pop()):
            raise ProtocolError(f"content length {length!r}")
        return Counted(int(one))

    def decoder(self) -> Decoder:
        """What undoes the content coding."""
        coding = (self.header("Content-Encoding") or "identity").lower()
        if coding in ("gzip", "x-gzip"):
            return Gzip()
        return NoCoding() if coding == "identity" else UnknownCoding(coding)


_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: ([^\r\n]*))?")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)


def parse_head(raw: bytes) -> Head:
    """A head, from its bytes up to the empty line. Raises ProtocolError."""
    first, *lines = raw.removesuffix(b"\r\n\r\n").split(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(first)
    if status_line is None:
        raise ProtocolError(f"no HTTP/1.1 status line: {first[:60]!r}")
    return Head(
        int(status_line[1]),
        (status_line[2] or b"").decode("latin-1"),
        tuple(_parse_field(line.decode("latin-1")) for line in lines),
        raw,
    )


def _parse_field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not is_field(name, value):
        raise ProtocolError(f"no header line: {line[:60]!r}")
    return name, value.strip(" \t")


def is_field(name: str, value: str) -> bool:
    """RFC 9110, section 5: a token, and a value that cannot pass for another line."""
    return _NAME.fullmatch(name) is not None and not any(sign in value for sign in "\r\n\0")
