import base64
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quartsse.errors import Unauthorized
from quartsse.hub.clock import Clock
from quartsse.web.auth import HeaderAuth, JwtAuth, User, jwt_auth

NOW = 1_764_671_400.0
SHARED = "a shared key of at least thirty-two bytes"
ISSUER = "https://login.example.com/"
AUDIENCE = "quartsse"

type Claims = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """A private key, and its public half as PEM."""

    private: Any

    @property
    def public(self) -> str:
        return str(self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


@pytest.fixture(scope="session")
def rsa_pair() -> Pair:
    return Pair(rsa.generate_private_key(65537, 2048))


@pytest.fixture(scope="session")
def ec_pair() -> Pair:
    return Pair(ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def auth(rsa_pair: Pair) -> JwtAuth:
    return verifier(rsa_pair.public)


def clock() -> Clock:
    return Clock(monotonic=lambda: 0.0, wall=lambda: NOW)


def verifier(key: str = SHARED, **more: Any) -> JwtAuth:
    return jwt_auth(clock(), key=key, **({"issuer": ISSUER, "audience": AUDIENCE} | more))


def claims(**changed: object) -> Claims:
    usual = {"sub": "alice", "exp": NOW + 60, "iss": ISSUER, "aud": AUDIENCE} | changed
    return {name: value for name, value in usual.items() if value is not None}


def bearer(token: str | bytes) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + (token.encode() if isinstance(token, str) else token))]


def encoded(part: object) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def raw_claims(payload: bytes, key: str = SHARED) -> str:
    """A token whose payload is exactly these bytes."""
    return jwt.api_jws.encode(payload, key, "HS256")


async def assert_refused(auth: JwtAuth, headers: list[tuple[bytes, bytes]], detail: str = "Invalid token") -> None:
    with pytest.raises(Unauthorized) as refusal:
        await auth.user(headers)
    assert refusal.value.body() == {"detail": detail}
    assert refusal.value.headers() == {"WWW-Authenticate": "Bearer"}
    assert refusal.value.__context__ is None


# A header that someone else sets


def x_user_id(*sent: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"x-user-id", value) for value in sent]


@pytest.mark.parametrize("name", ["alice", "a", "x" * 256, "ålice ✓", "user@example.com", "a#b", "日" * 85])
async def test_the_header_says_who_the_user_is(name: str) -> None:
    assert await HeaderAuth().user([(b"host", b"x"), *x_user_id(name.encode())]) == User(name)


async def test_blanks_around_the_header_are_not_part_of_it() -> None:
    assert await HeaderAuth().user(x_user_id(b" alice\t")) == User("alice")


@pytest.mark.parametrize(
    "sent",
    [
        [],
        [b""],
        [b" \t "],
        [b"alice", b"alice"],
        [b"alice", b"bob"],
        [b"alice", b""],
        [b"x" * 257],
        "é".encode() * 129,
        [b"al\x00ice"],
        [b"alice\r\nX-User-ID: bob"],
        [b"alice\nevent: admin"],
        [b"\x7f"],
        ["a\x85b".encode()],
        ["a\u2028b".encode()],
        [b"caf\xe9"],
        [b"\xed\xa0\x80"],
        [b"\xc0\xaf"],
    ],
)
async def test_anything_else_in_the_header_is_nobody(sent: list[bytes] | bytes) -> None:
    with pytest.raises(Unauthorized) as refusal:
        await HeaderAuth().user(x_user_id(sent) if isinstance(sent, bytes) else x_user_id(*sent))
    assert refusal.value.body() == {"detail": "Missing user identification"}
    assert refusal.value.headers() == {}
    assert refusal.value.__context__ is None


@given(st.binary(max_size=300))
async def test_no_bytes_in_the_header_are_more_than_a_user_or_nobody(value: bytes) -> None:
    try:
        user = await HeaderAuth().user(x_user_id(value))
    except Unauthorized:
        return
    assert user.id.encode() == value.strip(b" \t")
    assert not set(user.id) & set("\r\n\0")


# A token


async def test_a_token_says_who_the_user_is_and_for_how_long(rsa_pair: Pair) -> None:
    token = jwt.encode(claims(), rsa_pair.private, "RS256")
    assert await verifier(rsa_pair.public).user(bearer(token)) == User("alice", NOW + 60)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_a_shared_key_serves_the_algorithms_it_is_long_enough_for(algorithm: str) -> None:
    key = "k" * 64
    token = jwt.encode(claims(), key, algorithm)
    assert (await verifier(key, algorithms=[algorithm]).user(bearer(token))).id == "alice"


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256"])
async def test_an_rsa_key_serves_what_is_asked_for_and_nothing_else(algorithm: str, rsa_pair: Pair) -> None:
    auth = verifier(rsa_pair.public.replace("\n", "\\n"), algorithms=[algorithm])
    assert (await auth.user(bearer(jwt.encode(claims(), rsa_pair.private, algorithm)))).id == "alice"
    await assert_refused(auth, bearer(jwt.encode(claims(), rsa_pair.private, "RS384")))


async def test_curves_have_their_own_algorithm(ec_pair: Pair) -> None:
    assert (await verifier(ec_pair.public).user(bearer(jwt.encode(claims(), ec_pair.private, "ES256")))).id == "alice"
    edwards = Pair(ed25519.Ed25519PrivateKey.generate())
    assert (await verifier(edwards.public).user(bearer(jwt.encode(claims(), edwards.private, "EdDSA")))).id == "alice"


async def test_the_scheme_is_written_in_any_case_and_the_key_id_does_not_matter() -> None:
    token = jwt.encode(claims(), SHARED, "HS256", headers={"kid": "whatever"})
    assert (await verifier().user([(b"authorization", b"bEARER   " + token.encode())])).id == "alice"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"x-user-id", b"alice")],
        [(b"authorization", b"")],
        [(b"authorization", b"Basic YWxpY2U6eA==")],
        [(b"authorization", b"AWS4-HMAC-SHA256 Credential=x")],
        [(b"authorization", b"Bearerish x.y.z")],
    ],
)
async def test_no_token_at_all_is_no_user(headers: list[tuple[bytes, bytes]]) -> None:
    await assert_refused(verifier(), headers, "Missing user identification")


async def test_two_tokens_are_none() -> None:
    good = bearer(jwt.encode(claims(), SHARED, "HS256"))
    await assert_refused(verifier(), good + good)
    await assert_refused(verifier(), [*good, (b"authorization", b"Basic x")])


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", None, 7, ["RS256"], {"a": 1}])
@pytest.mark.parametrize("signature", ["", encoded(b"x" * 32)])
async def test_a_token_that_chooses_no_algorithm_is_refused(name: object, signature: str, auth: JwtAuth) -> None:
    header = encoded({"alg": name, "typ": "JWT"})
    await assert_refused(auth, bearer(f"{header}.{encoded(claims())}.{signature}"))


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_a_public_key_is_never_taken_for_a_shared_one(algorithm: str, rsa_pair: Pair, auth: JwtAuth) -> None:
    der = rsa_pair.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for known in (rsa_pair.public.encode(), rsa_pair.public.strip().encode(), der):
        signed = f"{encoded({'alg': algorithm})}.{encoded(claims())}"
        mac = jwt.get_algorithm_by_name(algorithm).sign(signed.encode(), known)
        await assert_refused(auth, bearer(f"{signed}.{encoded(mac)}"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": None},
        {"iss": "https://login.example.com"},
        {"iss": [ISSUER]},
        {"iss": 7},
        {"aud": None},
        {"aud": "quartsse2"},
        {"aud": []},
        {"aud": ["other"]},
        {"aud": {"quartsse": 1}},
        {"aud": [AUDIENCE, 7]},
        {"exp": None},
        {"exp": NOW - 30},
        {"exp": NOW - 3600},
        {"exp": 0},
        {"exp": -1},
        {"exp": True},
        {"exp": str(NOW + 60)},
        {"exp": [NOW + 60]},
        {"exp": 2**53},
        {"exp": 10**400},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"nbf": NOW + 31},
        {"nbf": "yesterday"},
        {"nbf": True},
        {"nbf": float("inf")},
        {"iat": NOW + 31},
        {"iat": []},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": ["alice"]},
        {"sub": "x" * 257},
        {"sub": "é" * 129},
        {"sub": "a\nb"},
        {"sub": "a\x00"},
        {"sub": "\ud800"},
        {"jti": 7},
    ],
    ids=repr,
)
async def test_a_claim_that_does_not_hold_is_refused(wrong: Claims, rsa_pair: Pair, auth: JwtAuth) -> None:
    await assert_refused(auth, bearer(jwt.encode({}, rsa_pair.private, "RS256")))
    payload = json.dumps(claims(**wrong)).encode()
    await assert_refused(auth, bearer(jwt.api_jws.encode(payload, rsa_pair.private, "RS256")))


@pytest.mark.parametrize(
    "fine",
    [
        {"aud": ["other", AUDIENCE]},
        {"nbf": NOW + 29},
        {"iat": NOW + 29},
        {"nbf": NOW - 1},
        {"sub": "é" * 128},
        {"exp": int(NOW) + 60},
    ],
    ids=repr,
)
async def test_a_claim_that_just_holds_is_taken(fine: Claims) -> None:
    token = raw_claims(json.dumps(claims(**fine)).encode())
    assert (await verifier().user(bearer(token))).id == claims(**fine)["sub"]


async def test_where_no_audience_is_set_a_token_for_somebody_is_not_for_us() -> None:
    open_to_all = verifier(issuer=None, audience=None)
    assert (await open_to_all.user(bearer(jwt.encode(claims(aud=None), SHARED, "HS256")))).id == "alice"
    await assert_refused(open_to_all, bearer(jwt.encode(claims(), SHARED, "HS256")))


@pytest.mark.parametrize(
    ("exp", "until"), [(NOW + 60, NOW + 60), (NOW + 0.5, NOW + 0.5), (NOW, NOW + 30), (NOW - 29, NOW + 1)]
)
async def test_a_token_within_the_leeway_lasts_until_it_would_be_refused(exp: float, until: float) -> None:
    # With its own end it would open streams that end at once, one after the other.
    token = jwt.encode(claims(exp=exp), SHARED, "HS256")
    assert await verifier().user(bearer(token)) == User("alice", until)


async def test_a_token_of_eight_kilobytes_is_not_even_read(monkeypatch: pytest.MonkeyPatch) -> None:
    short = jwt.encode(claims(pad="x" * 5000), SHARED, "HS256")
    assert (await verifier().user(bearer(short))).id == "alice"
    monkeypatch.setattr(jwt, "get_unverified_header", lambda _: pytest.fail("it was read"))
    long = jwt.encode(claims(pad="x" * 6000), SHARED, "HS256")
    assert 8192 <= len(long) < 8400
    await assert_refused(verifier(), bearer(long))
    await assert_refused(verifier(), bearer("a." + "x" * 10_000_000 + ".b"))


async def test_a_changed_token_is_refused() -> None:
    token = jwt.encode(claims(), SHARED, "HS256")
    header, payload, signature = token.split(".")
    for changed in (
        f"{header}.{encoded(claims(sub='bob'))}.{signature}",
        f"{encoded({'alg': 'HS256', 'typ': 'JWT', 'kid': 'x'})}.{payload}.{signature}",
        f"{header}.{payload}.{signature[::-1]}",
        f"{header}.{payload}.{signature[:-4]}",
        f"{header}.{payload}",
        f"{header}.{payload}.",
        f".{payload}.{signature}",
        f"{header}.{payload}.{signature}.{signature}",
        f" {header} .{payload}.{signature}",
        f"{token}\x00",
    ):
        await assert_refused(verifier(), bearer(changed))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b'"sub"',
        b"{",
        b"\xff",
        b"[" * 5000,
        b'{"exp":' + b"9" * 4800 + b"}",
        b'{"exp":1e999,"sub":"a"}',
    ],
    ids=lambda payload: repr(payload[:16]),
)
async def test_a_payload_that_is_no_object_is_refused_though_it_is_signed(payload: bytes) -> None:
    await assert_refused(verifier(), bearer(raw_claims(payload)))


@pytest.mark.parametrize(
    "header",
    [
        [],
        "x",
        None,
        {},
        {"alg": "HS256", "kid": 7},
        {"alg": "HS256", "kid": None},
        {"alg": "HS256", "crit": ["exp"]},
        {"alg": "HS256", "b64": False, "crit": ["b64"]},
        b"{" * 3000,
        b"\xff\xfe",
    ],
    ids=lambda header: repr(header)[:40],
)
async def test_a_header_that_is_none_is_refused(header: object) -> None:
    await assert_refused(verifier(), bearer(f"{encoded(header)}.{encoded(claims())}.{encoded(b'x' * 32)}"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=200), st.from_regex(rb"[A-Za-z0-9_=-]{0,40}(\.[A-Za-z0-9_=-]{0,40}){0,4}", fullmatch=True)
    )
)
async def test_garbage_is_refused_and_nothing_else_happens(auth: JwtAuth, garbage: bytes) -> None:
    await assert_refused(auth, bearer(garbage))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku"]), JSON | st.just("RS256")
    ),
    payload=JSON,
)
async def test_no_json_in_a_forged_token_is_more_than_refused(auth: JwtAuth, header: object, payload: object) -> None:
    await assert_refused(auth, bearer(f"{encoded(header)}.{encoded(payload)}.{encoded(b'signature')}"))


@given(st.dictionaries(st.sampled_from(["sub", "exp", "nbf", "iat", "iss", "aud", "jti"]), JSON))
async def test_no_claims_of_an_issuer_gone_mad_are_more_than_refused(mad: Claims) -> None:
    payload = json.dumps(claims() | mad).encode()
    try:
        user = await verifier().user(bearer(raw_claims(payload)))
    except Unauthorized as refusal:
        why = refusal.detail
    else:
        assert user.id.encode()
        assert user.expires_at is not None
        assert user.expires_at > NOW
        return
    assert why == "Invalid token"


async def test_the_log_says_why_and_nothing_of_the_token(
    caplog: pytest.LogCaptureFixture, rsa_pair: Pair, auth: JwtAuth
) -> None:
    caplog.set_level(logging.DEBUG)
    sign: Callable[..., str] = jwt.encode
    for token in (
        sign(claims(sub="mallory\nforged line", iss="https://evil.example"), rsa_pair.private, "RS256"),
        sign(claims(exp=NOW - 60, sub="mallory"), rsa_pair.private, "RS256"),
        sign(claims(sub="mallory"), SHARED, "HS256", headers={"kid": "mallory\nforged"}),
        f"{encoded({'alg': 'mallory'})}.mallory.mallory",
        "mallory",
    ):
        await assert_refused(auth, bearer(token))
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("quartsse")]
    assert lines == [
        "a token was refused: InvalidIssuerError",
        "a token was refused: expired",
        "a token was refused: an algorithm that is not allowed",
        "a token was refused: DecodeError",
        "a token was refused: not the form of a token",
    ]


# Settings


def private_pem(pair: Pair) -> str:
    return str(pair.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def test_settings_that_cannot_be_meant_are_refused_at_the_start(rsa_pair: Pair, ec_pair: Pair) -> None:
    small = Pair(rsa.generate_private_key(65537, 1024))
    koblitz = Pair(ec.generate_private_key(ec.SECP256K1()))
    naked = "".join(rsa_pair.public.splitlines()[1:-1])
    for wrong, why in (
        ({}, "either SSE_JWT_JWKS_URL or SSE_JWT_KEY"),
        ({"key": SHARED, "jwks_url": "https://x.example/jwks"}, "either SSE_JWT_JWKS_URL or SSE_JWT_KEY"),
        ({"key": ""}, "0 bytes: HS256 needs at least 32"),
        ({"key": "x" * 31}, "31 bytes: HS256 needs at least 32"),
        ({"key": SHARED, "algorithms": ["HS512"]}, "HS512 cannot be used with the key in SSE_JWT_KEY"),
        ({"key": SHARED, "algorithms": ["RS256"]}, "RS256 cannot be used with the key in SSE_JWT_KEY"),
        ({"key": SHARED, "algorithms": ["none"]}, "'none' is not one of"),
        ({"key": SHARED, "algorithms": ["HS256", "hs384"]}, "'hs384' is not one of"),
        ({"key": rsa_pair.public, "algorithms": ["RS256", "HS256"]}, "HS256 cannot be used with the key"),
        ({"key": rsa_pair.public, "algorithms": ["ES256"]}, "ES256 cannot be used with the key"),
        ({"key": ec_pair.public, "algorithms": ["ES384"]}, "ES384 cannot be used with the key"),
        (
            {"jwks_url": "https://x.example/jwks", "algorithms": ["RS256", "HS256"]},
            "HS256 cannot be used with keys from",
        ),
        ({"key": private_pem(rsa_pair)}, "holds a private key"),
        ({"key": naked}, "without its frame"),
        ({"key": '{"kty":"RSA","n":"AQAB","e":"AQAB","alg":"RS256"}'}, "without its frame"),
        ({"key": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"}, "no PEM public key"),
        ({"key": small.public}, "RSA of at least 2048 bits"),
        ({"key": koblitz.public}, "RSA of at least 2048 bits"),
    ):
        with pytest.raises(ValueError, match=why) as refusal:
            jwt_auth(clock(), **wrong)
        assert SHARED not in str(refusal.value)


def test_starting_with_a_key_set_imports_no_cryptography() -> None:
    program = (
        "import sys; from quartsse.hub.clock import Clock; from quartsse.web.auth import jwt_auth\n"
        "jwt_auth(Clock(), jwks_url='https://x.example/jwks'); jwt_auth(Clock(), key='k' * 32)\n"
        "print([name for name in ('jwt', 'cryptography', 'urllib.request', 'ssl', 'quart') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert [name for name in ("jwt", "cryptography", "quart") if f"'{name}'" in shown.stdout] == []
