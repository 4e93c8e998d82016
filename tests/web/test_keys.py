import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from quartsse.errors import Unauthorized, Unavailable
from quartsse.hub.clock import Clock
from quartsse.web import keys as module
from quartsse.web.auth import JwtAuth, User, jwt_auth
from quartsse.web.keys import KeySet, check_url

NOW = 1_764_671_400.0

type Jwk = dict[str, Any]
type Answer = Callable[[BaseHTTPRequestHandler], object]


@dataclass
class Time:
    """Both clocks, standing still until they are told."""

    passed: float = 0.0

    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.passed, wall=lambda: NOW + self.passed)


@dataclass
class Provider:
    """An identity provider: a real HTTP server on a loopback address that answers with a key set, or as it is told."""

    keys: list[Jwk] = field(default_factory=list)
    answer: Answer | None = None
    fetches: int = 0
    url: str = ""

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        self.fetches += 1
        if self.answer is not None:
            self.answer(handler)
            return
        send(handler, json.dumps({"keys": self.keys}).encode())


def send(
    handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, length: int | None = None, location: str = "/"
) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.send_header("Location", location)
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def provider() -> Iterator[Provider]:
    here = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                here.respond(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        here.url = f"http://127.0.0.1:{server.server_address[1]}/jwks.json"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield here
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="session")
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def rsa_jwk(key: rsa.RSAPrivateKey, **more: object) -> Jwk:
    return RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "r1", "use": "sig"} | more


def ec_jwk(key: ec.EllipticCurvePrivateKey, **more: object) -> Jwk:
    return ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "e1", "use": "sig"} | more


def token(key: Any, algorithm: str = "RS256", kid: str | None = "r1", sub: str = "alice") -> list[tuple[bytes, bytes]]:
    headers = None if kid is None else {"kid": kid}
    signed = jwt.encode({"sub": sub, "exp": NOW + 86400}, key, algorithm, headers=headers)
    return [(b"authorization", f"Bearer {signed}".encode())]


def verifier(provider: Provider, time: Time | None = None, algorithms: tuple[str, ...] = ()) -> JwtAuth:
    return jwt_auth((time or Time()).clock(), jwks_url=provider.url, algorithms=algorithms)


async def refused(auth: JwtAuth, headers: list[tuple[bytes, bytes]]) -> bool:
    try:
        await auth.user(headers)
    except Unauthorized as refusal:
        return refusal.detail == "Invalid token"
    return False


async def test_a_key_set_is_fetched_once_for_all_its_keys(
    provider: Provider, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    provider.keys = [rsa_jwk(rsa_key), ec_jwk(ec_key)]
    auth = verifier(provider)
    assert provider.fetches == 0
    assert await auth.user(token(rsa_key)) == User("alice", NOW + 86400)
    assert (await auth.user(token(ec_key, "ES256", "e1"))).id == "alice"
    assert provider.fetches == 1


async def test_verifications_that_need_a_fetch_share_it(provider: Provider, rsa_key: rsa.RSAPrivateKey) -> None:
    provider.keys = [rsa_jwk(rsa_key)]
    auth = verifier(provider)
    users = await asyncio.gather(*(auth.user(token(rsa_key, sub=f"user-{n}")) for n in range(100)))
    assert [user.id for user in users] == [f"user-{n}" for n in range(100)]
    assert provider.fetches == 1


async def test_one_that_goes_away_does_not_take_the_answer_from_the_others(
    provider: Provider, rsa_key: rsa.RSAPrivateKey
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slow(handler: BaseHTTPRequestHandler) -> None:
        asked.set()
        go_on.wait(5)
        send(handler, json.dumps({"keys": [rsa_jwk(rsa_key)]}).encode())

    provider.answer = slow
    auth = verifier(provider)
    first, second = (asyncio.create_task(auth.user(token(rsa_key))) for _ in range(2))
    await asyncio.to_thread(asked.wait, 5)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go_on.set()
    assert (await second).id == "alice"
    assert provider.fetches == 1


async def test_two_thousand_unknown_key_ids_cost_one_fetch_a_minute(
    provider: Provider, rsa_key: rsa.RSAPrivateKey
) -> None:
    provider.keys = [rsa_jwk(rsa_key)]
    time = Time()
    auth = verifier(provider, time)
    await auth.user(token(rsa_key))
    forger = "x" * 2048
    signed = jwt.encode({"sub": "mallory", "exp": NOW + 60}, rsa_key, "RS256").partition(".")[2]

    def forged(n: int) -> list[tuple[bytes, bytes]]:
        header = jwt.utils.base64url_encode(json.dumps({"alg": "RS256", "kid": f"{forger[:8]}{n}"}).encode()).decode()
        return [(b"authorization", f"Bearer {header}.{signed}".encode())]

    for n in range(2000):
        assert await refused(auth, forged(n))
        time.passed += 0.1
        assert provider.fetches <= 1 + time.passed // 60
    assert provider.fetches == 1 + 2000 * 0.1 // 60
    assert all(await asyncio.gather(*(refused(auth, forged(n)) for n in range(500))))
    assert provider.fetches == 4
    assert (await auth.user(token(rsa_key))).id == "alice"


async def test_a_new_key_is_known_a_minute_after_the_last_fetch(provider: Provider, rsa_key: rsa.RSAPrivateKey) -> None:
    provider.keys = [rsa_jwk(rsa_key, kid="old")]
    time = Time()
    auth = verifier(provider, time)
    await auth.user(token(rsa_key, kid="old"))
    provider.keys = [rsa_jwk(rsa_key, kid="new")]
    time.passed = 59
    assert await refused(auth, token(rsa_key, kid="new"))
    time.passed = 60
    assert (await auth.user(token(rsa_key, kid="new"))).id == "alice"
    assert await refused(auth, token(rsa_key, kid="old"))


async def test_a_set_is_read_again_after_ten_minutes(provider: Provider, rsa_key: rsa.RSAPrivateKey) -> None:
    provider.keys = [rsa_jwk(rsa_key)]
    time = Time()
    auth = verifier(provider, time)
    for passed, fetches in ((0, 1), (599, 1), (600, 2), (1199, 2), (1200, 3)):
        time.passed = passed
        await auth.user(token(rsa_key))
        assert provider.fetches == fetches


async def test_when_the_provider_is_down_the_last_keys_are_good_for_an_hour(
    provider: Provider, rsa_key: rsa.RSAPrivateKey, caplog: pytest.LogCaptureFixture
) -> None:
    provider.keys = [rsa_jwk(rsa_key)]
    time = Time()
    auth = verifier(provider, time)
    await auth.user(token(rsa_key))
    provider.answer = lambda handler: send(handler, b"down", status=503)
    for _ in range(30):
        time.passed += 119.9
        assert (await auth.user(token(rsa_key))).id == "alice"
    assert "cannot read the token keys from http://127.0.0.1" in caplog.text
    assert "HTTPError: HTTP Error 503" in caplog.text
    time.passed = 3600
    with pytest.raises(Unavailable):
        await auth.user(token(rsa_key))
    provider.answer = None
    time.passed += 5
    assert (await auth.user(token(rsa_key))).id == "alice"


async def test_without_any_keys_the_answer_is_503_and_one_fetch_in_five_seconds(
    provider: Provider, rsa_key: rsa.RSAPrivateKey
) -> None:
    provider.answer = lambda handler: send(handler, b"", status=500)
    time = Time()
    auth = verifier(provider, time)
    for n in range(100):
        with pytest.raises(Unavailable) as refusal:
            await auth.user(token(rsa_key, kid=f"k{n}"))
        assert refusal.value.status == 503
        assert refusal.value.body() == {"detail": "Token keys unavailable", "retry_after": 5}
        assert refusal.value.headers() == {"Retry-After": "5"}
        time.passed += 0.1
    assert provider.fetches == 2
    # What can be told to be no token needs no keys.
    assert await refused(auth, [(b"authorization", b"Bearer nonsense")])
    assert await refused(auth, token("k" * 32, "HS256"))


async def test_the_name_of_nobody_is_503_too(rsa_key: rsa.RSAPrivateKey) -> None:
    closed = Provider(url="http://127.0.0.1:1/jwks.json")
    with pytest.raises(Unavailable):
        await verifier(closed).user(token(rsa_key))


BAD_ANSWERS: dict[str, Answer] = {
    "not JSON": lambda handler: send(handler, b"<html>"),
    "no object": lambda handler: send(handler, b"[]"),
    "no keys": lambda handler: send(handler, b'{"keys":[]}'),
    "keys that are none": lambda handler: send(handler, b'{"keys":[1,null,"x",[],{}]}'),
    "too deep": lambda handler: send(handler, b"[" * 100_000),
    "cut short": lambda handler: send(handler, b'{"keys":[', length=400),
    "a redirect": lambda handler: send(handler, b"", 302, location="/other"),
    "another protocol": lambda handler: handler.wfile.write(b"220 smtp.example.com ESMTP\r\n"),
    "nothing": lambda _: None,
    "no text": lambda handler: send(handler, b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_an_answer_that_is_no_key_set_is_no_answer(
    name: str, provider: Provider, rsa_key: rsa.RSAPrivateKey
) -> None:
    provider.answer = BAD_ANSWERS[name]
    with pytest.raises(Unavailable):
        await verifier(provider).user(token(rsa_key))
    assert provider.fetches == 1


@pytest.mark.parametrize(("blanks", "taken"), [(250_000, True), (262_144, False)])
async def test_a_key_set_may_be_a_quarter_of_a_megabyte(
    blanks: int, taken: bool, provider: Provider, rsa_key: rsa.RSAPrivateKey
) -> None:
    body = json.dumps({"keys": [rsa_jwk(rsa_key)]}).encode() + b" " * blanks
    provider.answer = lambda handler: send(handler, body)
    if taken:
        assert (await verifier(provider).user(token(rsa_key))).id == "alice"
        return
    with pytest.raises(Unavailable):
        await verifier(provider).user(token(rsa_key))


async def test_a_provider_that_drips_is_given_up_on(
    provider: Provider, rsa_key: rsa.RSAPrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.3)
    enough = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not enough.wait(0.02):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    provider.answer = drip
    time_ = Time()
    auth = verifier(provider, time_)
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await auth.user(token(rsa_key))
    assert time.monotonic() - began < 2
    reader = next((thread for thread in threading.enumerate() if thread.name == "token-keys"), None)
    if reader is not None:
        await asyncio.to_thread(reader.join, 5)
        assert not reader.is_alive()
    enough.set()


async def test_a_provider_that_never_answers_holds_one_thread_and_delays_no_second_request(
    provider: Provider, rsa_key: rsa.RSAPrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.2)
    enough = threading.Event()
    provider.answer = lambda _: enough.wait(5)
    time_ = Time()
    auth = verifier(provider, time_)
    began = time.monotonic()
    for _ in range(5):
        with pytest.raises(Unavailable):
            await auth.user(token(rsa_key))
        time_.passed += 10
    assert time.monotonic() - began < 2
    assert [thread.name for thread in threading.enumerate()].count("token-keys") == 1
    enough.set()


@pytest.mark.parametrize(
    "change",
    [
        {"use": "enc"},
        {"key_ops": ["encrypt"]},
        {"key_ops": "verify"},
        {"alg": "HS256"},
        {"alg": "RS512"},
        {"alg": "RSA-OAEP"},
        {"alg": ["RS256"]},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": ["RSA"]},
        {"crv": "P-256"},
        {"d": "AQAB"},
        {"n": ""},
        {"n": 7},
        {"n": "AQAB"},
        {"n": None},
        {"e": "!"},
        {"kid": "other"},
        {"kid": 7},
    ],
    ids=repr,
)
async def test_a_key_that_is_not_for_this_verifies_nothing(
    change: Jwk, provider: Provider, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    provider.keys = [ec_jwk(ec_key), rsa_jwk(rsa_key) | change]
    assert await refused(verifier(provider), token(rsa_key))


async def test_a_key_that_is_published_with_its_private_half_proves_nothing(
    provider: Provider, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    provider.keys = [RSAAlgorithm.to_jwk(rsa_key, as_dict=True) | {"kid": "r1", "key_ops": ["verify"]}, ec_jwk(ec_key)]
    assert await refused(verifier(provider), token(rsa_key))


async def test_keys_that_say_no_algorithm_serve_what_is_allowed(provider: Provider, rsa_key: rsa.RSAPrivateKey) -> None:
    provider.keys = [rsa_jwk(rsa_key, key_ops=["verify"])]
    assert (await verifier(provider, algorithms=("PS384",)).user(token(rsa_key, "PS384"))).id == "alice"
    assert await refused(verifier(provider, algorithms=("PS384",)), token(rsa_key, "RS256"))


async def test_a_short_rsa_key_is_passed_over(provider: Provider, ec_key: ec.EllipticCurvePrivateKey) -> None:
    short = rsa.generate_private_key(65537, 1024)
    provider.keys = [rsa_jwk(short), ec_jwk(ec_key)]
    signed = jwt.api_jws.PyJWS()
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        forged = signed.encode(b'{"sub":"a","exp":1864671400}', short, "RS256", {"kid": "r1"})
    assert await refused(verifier(provider), [(b"authorization", f"Bearer {forged}".encode())])


async def test_a_token_without_key_id_is_verified_if_there_is_one_key_for_it(
    provider: Provider, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    provider.keys = [rsa_jwk(rsa_key), ec_jwk(ec_key)]
    assert (await verifier(provider).user(token(rsa_key, kid=None))).id == "alice"
    provider.keys = [rsa_jwk(rsa_key), rsa_jwk(rsa_key, kid="r2")]
    assert await refused(verifier(provider), token(rsa_key, kid=None))


async def test_a_key_is_used_for_its_own_kind_of_signature_only(
    provider: Provider, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    provider.keys = [rsa_jwk(rsa_key), ec_jwk(ec_key)]
    auth = verifier(provider)
    assert await refused(auth, token(ec_key, "ES256", kid="r1"))
    assert await refused(auth, token(rsa_key, "RS256", kid="e1"))
    assert await refused(auth, token("k" * 32, "HS256", kid="r1"))
    other = rsa.generate_private_key(65537, 2048)
    assert await refused(auth, token(other, "RS256", kid="r1"))


async def test_keys_that_arrive_after_the_loop_has_closed_disturb_nothing(provider: Provider) -> None:
    loop = asyncio.new_event_loop()
    answer = loop.create_future()
    loop.close()
    KeySet(provider.url, Time().clock())._read(loop, answer)
    assert provider.fetches == 1
    assert not answer.done()


@pytest.mark.parametrize(
    "url",
    [
        "https://login.example.com/jwks",
        "https://x.example:8443/a?b=c",
        "http://localhost:9/k",
        "http://127.0.0.1/k",
        "http://[::1]:1/",
    ],
)
def test_a_key_set_is_fetched_over_https_or_from_this_machine(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://login.example.com/jwks",
        "file:///etc/jwks",
        "ftp://x.example/",
        "data:,x",
        "https://",
        "https://u:p@x.example/",
        "https://x.example/#a",
        "https://x example/",
        "https://x.example/\n",
        "https://[::1",
        "https://x.example:y/",
        "jwks",
        "",
        "http://127.0.0.1.nip.io/",
        "https://exämple.com/",
    ],
)
def test_any_other_url_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="SSE_JWT_JWKS_URL must be an https:// URL") as refusal:
        check_url(url)
    assert "u:p" not in str(refusal.value)
