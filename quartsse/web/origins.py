"""Where a request comes from: the name it was sent to, the page that sent it, and the address behind the proxies.

Headers are what ASGI gives (`scope["headers"]`): pairs of bytes, names in lower case, values as they were received.
"""

import ipaddress
import json
import re
from collections.abc import Sequence

from quartsse.errors import WrongHost

type Headers = Sequence[tuple[bytes, bytes]]

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")

UNKNOWN_ADDRESS = "unknown"
"""The address of a client that has none, as behind a UNIX socket: all of these count as one."""

ALLOWED_HEADERS = (
    "Authorization, X-User-ID, Last-Event-ID, X-App-Authorization, Cache-Control, Content-Type, X-Amz-Content-Sha256"
)
EXPOSED_HEADERS = "ETag, Retry-After, WWW-Authenticate, X-Amzn-Trace-Id"
PREFLIGHT_SECONDS = 7200
"""How long a browser may remember a preflight's answer; Chromium's own upper bound."""

_LONGEST_HOST = 262
"""253 characters of a name, a last dot, a colon, a port, and some room."""
_LONGEST_CONTEXT = 65536
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?)(?::(?P<port>[0-9]{0,5}))?")
_WITH_PORT = re.compile(r"(?:(?P<v4>[0-9.]+)|\[(?P<v6>[0-9A-Fa-f:.]+)\])(?::[0-9]{1,5})?")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def values(headers: Headers, name: bytes) -> list[bytes]:
    """Every value that a header was sent with, in order, without the blanks around it (RFC 9110, section 5.5)."""
    return [value.strip(b" \t") for key, value in headers if key.lower() == name]


def is_loopback(host: str) -> bool:
    """Whether a bind address or a URL's host can only be reached from this machine."""
    if host.lower() == "localhost":
        return True
    address = _address(host.strip("[]"))
    return address is not None and address.is_loopback


class Hosts:
    """The names that this server answers to, against pages that let their own name point here (DNS rebinding).

    `allowed` are names with or without a port (one without a port goes with any), or `*`; nothing else is a wildcard.
    When it is empty, a server bound to a loopback address answers to loopback names and any other server to every
    name: a page can make its name point at a laptop's loopback, but has nothing to gain from doing so with a public
    address. Raises `ValueError` for an entry that is no name.
    """

    def __init__(self, allowed: Sequence[str], bind: str) -> None:
        names = list(allowed) or ([*LOOPBACK_NAMES, _bracketed(bind)] if is_loopback(bind) else ["*"])
        self._names = None if "*" in names else frozenset(_entry(name) for name in names)

    def allow(self, headers: Headers) -> bool:
        """Whether the request was sent to one of the names; what is not even the form of a name never is.

        HTTP/1.0 and empty `Host` fields name nobody: they pass only where every name does.
        """
        sent = set(values(headers, b"host"))
        if not sent or sent == {b""}:
            return self._names is None
        parsed = _host(sent.pop().decode("latin-1"))
        if sent or parsed is None:
            return False
        name, port = parsed
        return self._names is None or (name, port) in self._names or (name, None) in self._names

    def check(self, headers: Headers) -> None:
        """Raise `WrongHost` for a request that was sent to another name."""
        if not self.allow(headers):
            raise WrongHost("This server does not answer to that host name. SSE_ALLOWED_HOSTS lists those it does.")


def _bracketed(bind: str) -> str:
    return f"[{bind}]" if ":" in bind and not bind.startswith("[") else bind


def _entry(entry: str) -> tuple[str, int | None]:
    parsed = _host(entry.strip())
    if parsed is None:
        raise ValueError(f"{entry!r} is no host name: expected a name or an address, perhaps with :port, or *")
    return parsed


def _host(text: str) -> tuple[str, int | None] | None:
    """Name and port of a `Host` field (RFC 9110, section 7.2): lower case, no last dot; None for anything else."""
    match = _HOST.fullmatch(text.lower()) if text.isascii() and len(text) <= _LONGEST_HOST else None
    if match is None:
        return None
    name, port = _name(match["name"]), int(match["port"] or 0)
    return None if name is None or port > 65535 else (name, port or None)


def _name(text: str) -> str | None:
    if not text.startswith("["):
        return text.removesuffix(".")
    address = _address(text[1:-1])
    return f"[{address}]" if isinstance(address, ipaddress.IPv6Address) else None


class Cors:
    """The pages of other origins that may read our answers, by exact origin: no patterns, and `null` never.

    Credentials are always allowed to those, so every answer names one origin and none says `*` (the Fetch standard,
    section 3.3.5). Raises `ValueError` for an origin that no browser would send.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origin_of(origin).encode() for origin in origins)

    def headers(self, request: Headers) -> dict[str, str]:
        """The headers of every answer, errors too: without `Vary` a cache would give one page's answer to another."""
        origin = self._allowed(request)
        if origin is None:
            return {"Vary": "Origin"}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": EXPOSED_HEADERS,
            "Vary": "Origin",
        }

    def preflight(self, request: Headers, methods: Sequence[str]) -> dict[str, str]:
        """The headers of the answer to `OPTIONS` on a path that has these methods; it is the same for every question.

        A `Last-Event-ID` above 128 bytes or with unusual ones makes a browser ask, so it is among those allowed.
        """
        headers = self.headers(request)
        if "Access-Control-Allow-Origin" not in headers:
            return headers
        del headers["Access-Control-Expose-Headers"]
        return headers | {
            "Access-Control-Allow-Methods": ", ".join(methods),
            "Access-Control-Allow-Headers": ALLOWED_HEADERS,
            "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
        }

    def _allowed(self, request: Headers) -> str | None:
        sent = values(request, b"origin")
        return sent[0].decode() if len(sent) == 1 and sent[0] in self._origins else None


def is_preflight(method: str, headers: Headers) -> bool:
    """Whether a request is a browser's question before the real one (the Fetch standard, section 3.3.2)."""
    return method == "OPTIONS" and bool(
        values(headers, b"origin") and values(headers, b"access-control-request-method")
    )


def origin_of(text: str) -> str:
    """An origin as browsers write it: lower case, without the scheme's own port. Raises `ValueError` for any other."""
    scheme, separator, rest = text.strip().lower().partition("://")
    if "*" in text or scheme == "null":
        raise ValueError(f"{text!r} cannot be allowed: name each origin in full, as https://app.example.com")
    if not separator or scheme not in _DEFAULT_PORTS:
        raise ValueError(f"{text!r} is no origin: it starts with https:// or http://")
    if set(rest) & set("/?#@"):
        raise ValueError(f"{text!r} is more than an origin: scheme://host[:port] and nothing after it")
    host = _host(rest)
    if host is None or rest.endswith((".", ":")):
        raise ValueError(f"{text!r} has no host name that a browser would send (other scripts are written as xn--…)")
    name, port = host
    return f"{scheme}://{name}" if port in {None, _DEFAULT_PORTS[scheme]} else f"{scheme}://{name}:{port}"


def client_address(headers: Headers, peer: str | None, trusted_hops: int, *, on_lambda: bool) -> str:
    """The address that a request comes from, in its usual spelling, for limits and logs.

    Behind `trusted_hops` proxies of one's own it is that entry of `X-Forwarded-For`, from the right: each proxy adds
    the address it was called from at the right end, so whatever a client wrote itself stays further left and is never
    looked at. The port must be out of reach for all but those proxies. On Lambda the field counts for nothing: the
    address is the one that Lambda saw, which the Web Adapter hands on. What is missing or malformed gives the peer.
    """
    claimed = _lambda_source(headers) if on_lambda else _forwarded(headers, trusted_hops)
    address = _address(claimed) if claimed else None
    if address is None:
        address = _address(peer or "")
    return str(address) if address is not None else UNKNOWN_ADDRESS


def address_group(address: str) -> str:
    """What a limit by address counts together: an IPv4 address, or the /64 that one IPv6 subscriber owns."""
    parsed = _address(address)
    if not isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed or address)
    return str(ipaddress.IPv6Network((int(parsed), 64), strict=False))


def _forwarded(headers: Headers, hops: int) -> str:
    if hops < 1:
        return ""
    entries = b",".join(values(headers, b"x-forwarded-for")).rsplit(b",", hops)
    entry = entries[-hops] if len(entries) >= hops else b""
    return _without_port(entry.strip(b" \t").decode("latin-1"))


def _without_port(entry: str) -> str:
    """Some balancers keep the client's port: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    match = _WITH_PORT.fullmatch(entry)
    return (match["v4"] or match["v6"]) if match else entry


def _lambda_source(headers: Headers) -> str:
    """`http.sourceIp` (function URLs, HTTP APIs) or `identity.sourceIp` (REST APIs) of the request's context."""
    sent = values(headers, b"x-amzn-request-context")
    if len(sent) != 1 or len(sent[0]) > _LONGEST_CONTEXT:
        return ""
    try:
        context = json.loads(sent[0])
    except (ValueError, RecursionError):
        return ""
    return _text(context, "http", "sourceIp") or _text(context, "identity", "sourceIp")


def _text(document: object, *path: str) -> str:
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    return document if isinstance(document, str) else ""


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address without zone; an IPv4 one that IPv6 wraps (`::ffff:192.0.2.1`) is that IPv4 one."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or ipaddress.IPv6Address(int(address))
    return address
