"""The keys that tokens are verified with: one from the settings, or a set that an identity provider publishes.

PyJWT and cryptography are imported when a key is first needed, not before: they cost a cold start some 50 ms.
"""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from math import inf
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from quartsse.errors import Unavailable
from quartsse.hub.clock import Clock
from quartsse.web.origins import is_loopback

if TYPE_CHECKING:
    from jwt.algorithms import AllowedPublicKeys

SHARED_ALGORITHMS = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Those with one key for both sides, and the fewest bytes that it may have (RFC 7518, section 3.2)."""

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
PUBLIC_ALGORITHMS = {
    ("RSA", None): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
"""What a public key can verify, by type and curve; the first is the default."""
SHORTEST_RSA = 2048
"""Bits (NIST SP 800-131A)."""

REFRESH_SECONDS = 600
"""A set older than this is read again before it is used."""
STALE_SECONDS = 3600
"""A set older than this is not used, even when it cannot be read again: a key that was withdrawn ends here."""
UNKNOWN_SECONDS = 60
"""While there are keys: at most one fetch in this time, whatever tokens ask for."""
RETRY_SECONDS = 5
"""While there are none."""
PATIENCE_SECONDS = 5
"""How long a request waits for a fetch."""
SOCKET_SECONDS = 3
LARGEST_SET = 256 * 1024
MOST_KEYS = 100

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Key:
    """One key, and all that it may verify: fixed here and never by a token, so HS and RS cannot be confused."""

    key_id: str | None
    material: "AllowedPublicKeys | bytes"
    algorithms: frozenset[str]


class Keys(Protocol):
    """Where keys come from."""

    async def find(self, key_id: str | None, algorithm: str) -> Key | None:
        """The key that a token's header asks for, None if there is none; `Unavailable` if nobody can say."""


class OneKey:
    """The key from the settings, whatever key id a token names."""

    def __init__(self, key: Key) -> None:
        self._key = key

    async def find(self, key_id: str | None, algorithm: str) -> Key | None:  # noqa: ARG002 - there is no choice by id
        """The key, if it is one for this algorithm."""
        return self._key if algorithm in self._key.algorithms else None


class KeySet:
    """A JSON Web Key Set (RFC 7517) behind a URL, read in a thread and kept for ten minutes.

    Verifications that need a fetch share it. A key id that is not in the set causes one, but never a second one within
    a minute: tokens with made-up ids cost the provider nothing, and a new key is known a minute after it is used. When
    the provider does not answer, the last set is used for up to an hour. Without one, `find` raises `Unavailable`
    (503): a 401 would say that the token does not hold, and send every user to a new login, which helps nobody; a 503
    says when to come back, and on the operator's side it is an outage, not a wave of forged tokens.

    One thread at most reads; it is a daemon, since a process that ends does not wait for keys.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._keys: tuple[Key, ...] = ()
        self._read_at = -inf
        self._tried_at = -inf
        self._reading = False
        self._answer: asyncio.Future[None] | None = None

    async def find(self, key_id: str | None, algorithm: str) -> Key | None:
        """The key for a token; one without a key id gets the only key that fits, if there is just one."""
        if self._age() >= REFRESH_SECONDS or self._match(key_id, algorithm) is None:
            await self._refresh()
        if self._age() >= STALE_SECONDS:
            raise Unavailable("Token keys unavailable", retry_after=RETRY_SECONDS)
        return self._match(key_id, algorithm)

    def _age(self) -> float:
        return self._clock.monotonic() - self._read_at

    def _match(self, key_id: str | None, algorithm: str) -> Key | None:
        fitting = [key for key in self._keys if algorithm in key.algorithms]
        if key_id is None:
            return fitting[0] if len(fitting) == 1 else None
        return next((key for key in fitting if key.key_id == key_id), None)

    async def _refresh(self) -> None:
        """Wait for the fetch that is under way, or start one if it is time for one."""
        pause = RETRY_SECONDS if self._age() >= STALE_SECONDS else UNKNOWN_SECONDS
        if not self._reading and self._clock.monotonic() - self._tried_at >= pause:
            self._start()
        if self._answer is not None:
            # A request that goes away must not take the answer from the others.
            await asyncio.shield(self._answer)

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._reading, self._tried_at = True, self._clock.monotonic()
        self._answer = answer = loop.create_future()
        # The thread's time-outs do not cover the name's resolution, which may take half a minute.
        patience = loop.call_later(PATIENCE_SECONDS, _resolve, answer)
        answer.add_done_callback(lambda _: patience.cancel())
        threading.Thread(target=self._read, args=(loop, answer), name="token-keys", daemon=True).start()

    def _read(self, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[None]) -> None:
        keys: tuple[Key, ...] = ()
        try:
            keys = read_keys(self._url)
        except (OSError, HTTPException, ValueError, RecursionError) as error:
            _log.warning("cannot read the token keys from %s: %s: %s", self._url, type(error).__name__, error)
        with suppress(RuntimeError):  # the loop is closed: the process is ending
            loop.call_soon_threadsafe(self._arrive, keys, answer)

    def _arrive(self, keys: tuple[Key, ...], answer: asyncio.Future[None]) -> None:
        self._reading = False
        if keys:
            self._keys, self._read_at = keys, self._clock.monotonic()
        _resolve(answer)


def _resolve(answer: asyncio.Future[None]) -> None:
    if not answer.done():
        answer.set_result(None)


def read_keys(url: str) -> tuple[Key, ...]:
    """Read a key set, blocking for seconds at most. Raises `OSError`, `HTTPException` or `ValueError`.

    What is not a usable public key for signatures is passed over; if nothing is left, that is a `ValueError`, so that
    a provider's empty answer is treated like no answer.
    """
    document = json.loads(_fetch(url))
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("the answer is no JSON Web Key Set")  # noqa: TRY004 - what is wrong is the answer, not a caller
    keys = tuple(key for entry in entries[:MOST_KEYS] if isinstance(entry, dict) and (key := _public_key(entry)))
    if not keys:
        raise ValueError("the key set holds no public key for signatures that can be used")
    return keys


def _fetch(url: str) -> bytes:
    from urllib import request

    from quartsse import __version__

    opener = request.OpenerDirector()
    # No redirects, no other schemes; a proxy only for what leaves this machine.
    proxies: dict[str, str] | None = None if url.startswith("https:") else {}
    for handler in (request.ProxyHandler(proxies), request.HTTPHandler(), request.HTTPSHandler()):
        opener.add_handler(handler)
    opener.add_handler(request.HTTPErrorProcessor())
    opener.add_handler(request.HTTPDefaultErrorHandler())
    asked = request.Request(url, headers={"Accept": "application/json", "User-Agent": f"quartsse/{__version__}"})  # noqa: S310 - `check_url` allows https and loopback
    end = time.monotonic() + PATIENCE_SECONDS
    body = bytearray()
    with opener.open(asked, timeout=SOCKET_SECONDS) as response:
        while chunk := response.read1(65536):
            body += chunk
            if len(body) > LARGEST_SET:
                raise ValueError(f"the answer is larger than {LARGEST_SET} bytes")
            if time.monotonic() > end:
                raise TimeoutError(f"the answer took more than {PATIENCE_SECONDS} s")
    return bytes(body)


def _public_key(entry: dict[str, Any]) -> Key | None:
    import jwt

    kind, curve = entry.get("kty"), entry.get("crv")
    if not isinstance(kind, str) or not isinstance(curve, str | None) or not _verifies(entry):
        return None
    possible = PUBLIC_ALGORITHMS.get((kind, curve), ())
    algorithms = frozenset(name for name in possible if entry.get("alg") in {None, name})
    if not algorithms:
        return None
    try:
        material = jwt.PyJWK(entry, algorithm=min(algorithms)).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    key_id = entry.get("kid")
    return Key(key_id if isinstance(key_id, str) else None, material, algorithms)


def _verifies(entry: dict[str, Any]) -> bool:
    """Whether a key is for verifying; one that is published with its private half is nobody's proof of anything."""
    operations = entry.get("key_ops")
    if "d" in entry or entry.get("use") not in {None, "sig"} or not isinstance(entry.get("alg"), str | None):
        return False
    return operations is None or (isinstance(operations, list) and "verify" in operations)


def check_url(url: str) -> str:
    """The URL of a key set; `ValueError` unless it is https, or http that does not leave this machine."""
    problem = ValueError("SSE_JWT_JWKS_URL must be an https:// URL (http:// on a loopback address), without user or #")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise problem from None
    if not host or "@" in parts.netloc or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise problem
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)):
        return url
    raise problem


def key_from_setting(text: str) -> Key:
    r"""The key in `SSE_JWT_KEY`: a PEM public key, or else a shared secret. `ValueError` for anything doubtful.

    A line break in PEM may be written as `\n`. What looks like a public key without its frame is refused: taken for a
    shared secret, everyone who knows it could sign.
    """
    text = text.strip()
    if text.startswith("-----BEGIN "):
        return _pem_key(text.replace("\\n", "\n"))
    if text.startswith(("{", "[", "ssh-", "ecdsa-", "MII", "MIG", "MFkw", "MHYw", "MCow")):
        raise ValueError(
            "SSE_JWT_KEY looks like a key without its frame: a public key begins -----BEGIN PUBLIC KEY-----"
        )
    secret = text.encode()
    fitting = frozenset(name for name, least in SHARED_ALGORITHMS.items() if len(secret) >= least)
    if not fitting:
        raise ValueError(f"SSE_JWT_KEY is a shared key of {len(secret)} bytes: HS256 needs at least 32")
    return Key(None, secret, fitting)


def _pem_key(text: str) -> Key:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if "PRIVATE KEY" in text:
        raise ValueError("SSE_JWT_KEY holds a private key: give this service the public one, it signs nothing")
    try:
        material = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("SSE_JWT_KEY is no PEM public key that can be read") from None
    match material:
        case RSAPublicKey(key_size=size) if size >= SHORTEST_RSA:
            return Key(None, material, frozenset(_RSA))
        case EllipticCurvePublicKey(curve=curve) if curve.name in _CURVES:
            return Key(None, material, frozenset(PUBLIC_ALGORITHMS["EC", _CURVES[curve.name]]))
        case Ed25519PublicKey():
            return Key(None, material, frozenset(PUBLIC_ALGORITHMS["OKP", "Ed25519"]))
    raise ValueError(
        f"SSE_JWT_KEY must be RSA of at least {SHORTEST_RSA} bits, EC on P-256, P-384 or P-521, or Ed25519"
    )


_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def allowed_algorithms(asked: Sequence[str], key: Key | None) -> frozenset[str]:
    """The allow-list: what `SSE_JWT_ALGORITHMS` asks for, or the usual ones for this key (None: for a key set).

    `ValueError` for a name that is none (`none` itself is never one), and for one that the key cannot be used with:
    the shared-key algorithms beside public keys are how a token gets signed with what everybody knows.
    """
    public = {name for names in PUBLIC_ALGORITHMS.values() for name in names}
    possible = public if key is None else key.algorithms
    if not asked:
        return frozenset({"RS256", "ES256"} if key is None else {_default(key)})
    for name in asked:
        if name not in public and name not in SHARED_ALGORITHMS:
            raise ValueError(
                f"SSE_JWT_ALGORITHMS: {name!r} is not one of {', '.join(sorted({*public, *SHARED_ALGORITHMS}))}"
            )
        if name not in possible:
            what = "keys from SSE_JWT_JWKS_URL" if key is None else "the key in SSE_JWT_KEY"
            raise ValueError(
                f"SSE_JWT_ALGORITHMS: {name} cannot be used with {what}, only {', '.join(sorted(possible))}"
            )
    return frozenset(asked)


def _default(key: Key) -> str:
    return "RS256" if "RS256" in key.algorithms else min(key.algorithms)
