"""Event ids: what an event is, and the place to go on from.

An id is `evt_<identity>.<place>`, at most 128 bytes of `[A-Za-z0-9._~-]`, so that a cross-origin `Last-Event-ID`
needs no preflight (Fetch standard, "CORS-safelisted request-header": 128 bytes, no unsafe ones). The place is
`<instance>.<number>.<watermark in milliseconds>`, or `~` for a reader who has none yet.
"""

import re
import secrets
from base64 import b32encode
from dataclasses import dataclass
from hashlib import blake2b

NOWHERE = "~"
"""The place of a reader who has none: coming back with it leads to a new opening."""

_ID = re.compile(r"evt_[A-Za-z0-9_~-]{1,60}\.([a-z0-9]{1,16})\.([0-9]{1,15})\.([0-9]{1,15})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """A point in what one instance has published: everything up to `number`.

    `watermark` (Unix seconds): what was visible in the index at that moment had been published before.
    """

    instance: str
    number: int
    watermark: float

    def __str__(self) -> str:
        return f"{self.instance}.{self.number}.{int(self.watermark * 1000)}"


def place_in(event_id: str) -> Place | None:
    """The place that an id carries; None if it carries none, or is not one of ours."""
    found = _ID.fullmatch(event_id)
    if found is None:
        return None
    return Place(found[1], int(found[2]), int(found[3]) / 1000)


def own_place(event_id: str | None) -> str:
    """The place in an id as it was written, to be given back unchanged; `~` if there is none."""
    place = place_in(event_id) if event_id else None
    return NOWHERE if place is None or event_id is None else event_id.split(".", 1)[1]


def new_instance() -> str:
    """A name for this process that no other has: 8 characters, 40 random bits."""
    return b32encode(secrets.token_bytes(5)).decode().lower()


def digest(text: str, size: int) -> str:
    """The same short name for the same text on every instance: BLAKE2b of `size` bytes in base 32."""
    return (
        b32encode(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest())
        .decode()
        .rstrip("=")
        .lower()
    )
