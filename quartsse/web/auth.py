"""Who the user is: taken from a header that a trusted layer sets, or from a token that is verified here."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from quartsse.errors import Unauthorized
from quartsse.hub.clock import Clock
from quartsse.web.keys import Key, Keys, KeySet, OneKey, allowed_algorithms, check_url, key_from_setting
from quartsse.web.origins import Headers, values

if TYPE_CHECKING:
    from jwt.types import Options

MISSING = "Missing user identification"
INVALID = "Invalid token"

LONGEST_USER = 256
"""Bytes of UTF-8."""
TOKEN_LIMIT = 8192
"""A token of this many bytes or more is refused unread."""
LEEWAY_SECONDS = 30
"""How far the clock of whoever issues tokens may be from ours."""

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_TOKEN = re.compile(rb"[A-Za-z0-9_-]+=*\.[A-Za-z0-9_-]+=*\.[A-Za-z0-9_-]+=*")
_LATEST = 2.0**53
"""Times beyond the year 285 million are a mistake, and no float would hold them exactly."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class User:
    """Whoever opens a stream; `expires_at` is when that has to be shown anew, in Unix seconds, None for never."""

    id: str
    expires_at: float | None = None


class Authenticator(Protocol):
    """Says who a request's user is."""

    async def user(self, headers: Headers) -> User:
        """The user; raises `Unauthorized` when there is none, `Unavailable` when it cannot be told now."""


class HeaderAuth:
    """The `X-User-ID` header, set by the layer in front, which must not let a client's own one through."""

    async def user(self, headers: Headers) -> User:
        """The header's value as UTF-8; sent twice, empty, too long or with control characters it is nobody."""
        sent = values(headers, b"x-user-id")
        name = _utf8(sent[0]) if len(sent) == 1 else None
        if name is None or not is_user_id(name):
            raise Unauthorized(MISSING)
        return User(name)


class JwtAuth:
    """An `Authorization: Bearer` token (RFC 7519), verified; its `sub` is the user.

    A token has to name its user and its end, be signed by an allowed algorithm that belongs to the key, and come from
    the issuer and for the audience that are set; one that names an audience where none is set is refused, as RFC 7519
    (section 4.1.3) says. Keys that cannot be had are `Unavailable`, see `KeySet`.

    The log gets one line for each refusal, which says why in words of its own and holds nothing of the token.
    """

    def __init__(
        self,
        keys: Keys,
        algorithms: frozenset[str],
        clock: Clock,
        *,
        issuer: str | None = None,
        audience: str | None = None,
    ) -> None:
        self._keys = keys
        self._algorithms = algorithms
        self._clock = clock
        self._issuer = issuer
        self._audience = audience

    async def user(self, headers: Headers) -> User:
        """The token's user, whose `expires_at` is the token's.

        A token taken only thanks to the leeway has that much longer, or its streams would end as they begin.
        """
        verdict = await self._verify(_bearer(headers))
        if isinstance(verdict, User):
            return verdict
        _log.info("a token was refused: %s", verdict)
        raise Unauthorized(INVALID, challenge=True)

    async def _verify(self, token: bytes) -> User | str:
        """The user, or why there is none. Nothing is raised here, so no error can carry a piece of the token."""
        if len(token) >= TOKEN_LIMIT:
            return "too long"
        if not _TOKEN.fullmatch(token):
            return "not the form of a token"
        key = await self._key(token)
        if isinstance(key, str):
            return key
        claims = self._claims(token, key)
        return claims if isinstance(claims, str) else self._user(claims)

    async def _key(self, token: bytes) -> Key | str:
        import jwt

        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError) as error:
            return type(error).__name__
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            return "an algorithm that is not allowed"
        return await self._keys.find(key_id, algorithm) or "an unknown key"

    def _claims(self, token: bytes, key: Key) -> dict[str, Any] | str:
        import jwt

        # Times are checked by `_times`, on the clock that is handed in.
        options: Options = {
            "require": ["exp", "sub"],
            "verify_exp": False,
            "verify_nbf": False,
            "verify_iat": False,
            "enforce_minimum_key_length": True,
        }
        try:
            return jwt.decode(
                token,
                key.material,
                algorithms=sorted(key.algorithms & self._algorithms),
                options=options,
                issuer=self._issuer,
                audience=self._audience,
            )
        except (jwt.PyJWTError, ValueError) as error:
            return type(error).__name__

    def _user(self, claims: dict[str, Any]) -> User | str:
        if not is_user_id(claims["sub"]):
            return "no user in it"
        now = self._clock.wall()
        expires_at = _moment(claims["exp"])
        if expires_at is None or expires_at + LEEWAY_SECONDS <= now:
            return "expired"
        for name in ("nbf", "iat"):
            begins_at = _moment(claims.get(name, 0))
            if begins_at is None or begins_at > now + LEEWAY_SECONDS:
                return "not yet valid"
        return User(claims["sub"], expires_at if expires_at > now else expires_at + LEEWAY_SECONDS)


def jwt_auth(
    clock: Clock,
    *,
    jwks_url: str | None = None,
    key: str | None = None,
    algorithms: Sequence[str] = (),
    issuer: str | None = None,
    audience: str | None = None,
) -> JwtAuth:
    """The verifier that the `SSE_JWT_…` settings describe; `ValueError` names the one that is wrong and why.

    Either the URL of a key set or a key, never both. Nothing is fetched before the first token.
    """
    if (jwks_url is None) == (key is None):
        raise ValueError("SSE_AUTH=jwt needs either SSE_JWT_JWKS_URL or SSE_JWT_KEY, and not both")
    if jwks_url is not None:
        keys: Keys = KeySet(check_url(jwks_url), clock)
        return JwtAuth(keys, allowed_algorithms(algorithms, None), clock, issuer=issuer, audience=audience)
    one = key_from_setting(key or "")
    return JwtAuth(OneKey(one), allowed_algorithms(algorithms, one), clock, issuer=issuer, audience=audience)


def is_user_id(text: str) -> bool:
    """Whether a text can be a user's id: 1 to 256 bytes of UTF-8 without control characters."""
    if not text or len(text) > LONGEST_USER or _UNPRINTABLE.search(text):
        return False
    return len(text.encode()) <= LONGEST_USER


def _utf8(value: bytes) -> str | None:
    """A field's bytes as text. Latin-1, what HTTP once said, is not guessed: two spellings would be one user."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _bearer(headers: Headers) -> bytes:
    sent = values(headers, b"authorization")
    if len(sent) > 1:
        raise Unauthorized(INVALID, challenge=True)
    scheme, _, token = sent[0].partition(b" ") if sent else (b"", b"", b"")
    if scheme.lower() != b"bearer":
        raise Unauthorized(MISSING, challenge=True)
    return token.strip(b" ")


def _moment(value: object) -> float | None:
    """A NumericDate (RFC 7519, section 2): a finite number of seconds and nothing that merely looks like one."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < _LATEST:
        return None
    return float(value)
