"""Tickets: how a browser's EventSource, which cannot set headers, says who its user is, once and within 30 seconds."""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import struct
from collections import deque

from quartsse.errors import Unauthorized
from quartsse.hub.clock import Clock
from quartsse.web.auth import LONGEST_USER, User

INVALID = "Invalid ticket"
LIFETIME_SECONDS = 30
SKEW_SECONDS = 5
"""How far ahead the clock of the instance that issued a ticket may be."""
SHORTEST_SECRET = 32
"""Bytes."""
REMEMBERED = 50_000
"""Tickets in the memory of used ones, some 10 MB: 1,400 new streams a second for as long as a ticket lives."""
KEPT = 5000
"""Used tickets that are remembered also when they are dead: a wall clock that is set back would let them live again."""

_VERSION = 1
_PURPOSE = b"quartsse ticket\0"
"""Signed with everything, so that no other use of the secret can make a ticket."""
_HEAD = struct.Struct(">Bdd16s")
"""Version, issued at, the user's own expiry (0 for none), nonce; the user's id follows, then the signature."""
_DIGEST_BYTES = 32
_FORM = re.compile(r"[A-Za-z0-9_-]+")
LONGEST_TICKET = -(-(_HEAD.size + LONGEST_USER + _DIGEST_BYTES) * 4 // 3)


class Tickets:
    """Issues tickets and takes them back, each once.

    A ticket holds all there is to know, so another instance with the same secret takes it too. What was taken is
    remembered here, at least until the ticket would have died anyway; another instance cannot know it. When that memory
    is full tickets are refused: a ticket that works twice would be worse than one that does not work.

    `secret` has at least 32 bytes, else `ValueError`; `challenge` is whether refusals carry `WWW-Authenticate: Bearer`.
    """

    def __init__(self, secret: str | bytes, clock: Clock, *, challenge: bool = False) -> None:
        self._secret = secret.encode() if isinstance(secret, str) else secret
        if len(self._secret) < SHORTEST_SECRET:
            raise ValueError(f"SSE_TICKET_SECRET has {len(self._secret)} bytes, fewer than {SHORTEST_SECRET}")
        self._clock = clock
        self._challenge = challenge
        self._used: set[bytes] = set()
        self._forget: deque[tuple[float, bytes]] = deque()

    def issue(self, user: User) -> str:
        """A ticket for a user; it dies after 30 s, or with the user's own expiry if that is sooner."""
        head = _HEAD.pack(_VERSION, self._clock.wall(), user.expires_at or 0.0, secrets.token_bytes(16))
        payload = head + user.id.encode()
        return base64.urlsafe_b64encode(payload + self._sign(payload)).rstrip(b"=").decode()

    def redeem(self, ticket: str, *, keep: bool = False) -> User:
        """The user that a ticket stands for; `Unauthorized` if it is no ticket of ours, has died, or was used here.

        `keep` leaves it good for one stream.
        """
        user = self._redeem(ticket, keep=keep)
        if user is None:
            raise Unauthorized(INVALID, challenge=self._challenge)
        return user

    def _redeem(self, ticket: str, *, keep: bool) -> User | None:
        payload = self._payload(ticket)
        if payload is None:
            return None
        _, issued_at, expires_at, nonce = _HEAD.unpack(payload[: _HEAD.size])
        now = self._clock.wall()
        if not now - LIFETIME_SECONDS < issued_at <= now + SKEW_SECONDS or 0 < expires_at <= now:
            return None
        if nonce in self._used or not (keep or self._use(nonce)):
            return None
        return User(payload[_HEAD.size :].decode(), expires_at or None)

    def _payload(self, ticket: str) -> bytes | None:
        """What a ticket says, if it is signed by us; nothing in it is looked at before that is known."""
        signed = _decoded(ticket)
        if signed is None or not 0 < len(signed) - _HEAD.size - _DIGEST_BYTES <= LONGEST_USER:
            return None
        payload, signature = signed[:-_DIGEST_BYTES], signed[-_DIGEST_BYTES:]
        if not hmac.compare_digest(self._sign(payload), signature) or payload[0] != _VERSION:
            return None
        return payload

    def _sign(self, payload: bytes) -> bytes:
        return hmac.digest(self._secret, _PURPOSE + payload, hashlib.sha256)

    def _use(self, nonce: bytes) -> bool:
        """Remember a ticket as used; False if nothing more can be remembered."""
        now = self._clock.monotonic()
        while len(self._forget) > KEPT and self._forget[0][0] <= now:
            self._used.remove(self._forget.popleft()[1])
        if len(self._used) >= REMEMBERED:
            return False
        self._used.add(nonce)
        self._forget.append((now + LIFETIME_SECONDS + SKEW_SECONDS, nonce))
        return True


def _decoded(ticket: str) -> bytes | None:
    """The bytes of a ticket in its one spelling: base64 has others for the same bytes, and none of them is ours."""
    if len(ticket) > LONGEST_TICKET or not _FORM.fullmatch(ticket):
        return None
    try:
        signed = base64.urlsafe_b64decode(ticket + "=" * (-len(ticket) % 4))
    except binascii.Error:
        return None
    return signed if base64.urlsafe_b64encode(signed).rstrip(b"=").decode() == ticket else None
