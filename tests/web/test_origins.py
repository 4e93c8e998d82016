import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quartsse.errors import WrongHost
from quartsse.web.origins import Cors, Hosts, address_group, client_address, is_loopback, is_preflight, origin_of

APP = "https://app.example.com"


def host(value: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", value.encode("latin-1"))]


def origin(value: str) -> list[tuple[bytes, bytes]]:
    return [(b"origin", value.encode("latin-1"))]


LOOPBACK = [
    "localhost",
    "localhost:8080",
    "LOCALHOST:1",
    "localhost.",
    "127.0.0.1",
    "127.0.0.1:8080",
    "[::1]",
    "[::1]:80",
]
FOREIGN = [
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.nip.io",
    "0.0.0.0",
    "[::]",
    "192.0.2.1",
]
NO_NAME = [
    "local host",
    "localhost localhost",
    "user@localhost",
    "user:secret@localhost:80",
    "localhost@evil.example",
    "::1",
    "[::1",
    "::1]",
    "[::1]x",
    "[evil]",
    "[127.0.0.1]",
    "[::1%25lo]",
    "localhost..",
    ".localhost",
    ".",
    "localhost:x",
    "localhost:-1",
    "localhost:65536",
    "localhost:999999",
    "localhost:80:80",
    "localhost/",
    "localhost?",
    "localhost#",
    "http://localhost",
    "localhost,evil.example",
    "localhost\x00",
    "localhost\n",
    "lòcalhost",
    "a" * 300,
]


@pytest.mark.parametrize("bind", ["127.0.0.1", "localhost", "::1", "[::1]"])
def test_a_server_on_loopback_answers_to_loopback_names_only(bind: str) -> None:
    hosts = Hosts((), bind)
    assert [name for name in LOOPBACK if not hosts.allow(host(name))] == []
    assert [name for name in [*FOREIGN, *NO_NAME, ""] if hosts.allow(host(name))] == []
    assert not hosts.allow([])


def test_it_also_answers_to_the_address_it_is_bound_to() -> None:
    assert Hosts((), "127.0.0.5").allow(host("127.0.0.5:8080"))
    assert not Hosts((), "127.0.0.1").allow(host("127.0.0.5:8080"))


@pytest.mark.parametrize("hosts", [Hosts((), "0.0.0.0"), Hosts((), "::"), Hosts(("*",), "127.0.0.1")])
def test_any_other_server_answers_to_every_name_but_not_to_what_is_none(hosts: Hosts) -> None:
    assert [name for name in [*LOOPBACK, *FOREIGN, ""] if not hosts.allow(host(name))] == []
    assert [name for name in NO_NAME if hosts.allow(host(name))] == []
    assert hosts.allow([])


@pytest.mark.parametrize(
    ("entry", "answers", "refuses"),
    [
        (
            "sse.example.com",
            ["sse.example.com", "SSE.example.com.", "sse.example.com:8443"],
            ["x.sse.example.com", "example.com"],
        ),
        ("sse.example.com:8443", ["sse.example.com:8443"], ["sse.example.com", "sse.example.com:443"]),
        ("[2001:DB8::1]:80", ["[2001:db8:0::1]:80"], ["[2001:db8::1]", "[2001:db8::2]:80"]),
        ("192.0.2.1", ["192.0.2.1", "192.0.2.1:80"], ["192.0.2.10", "localhost"]),
    ],
)
def test_the_list_is_exact(entry: str, answers: list[str], refuses: list[str]) -> None:
    hosts = Hosts((entry,), "127.0.0.1")
    assert [name for name in answers if not hosts.allow(host(name))] == []
    assert [name for name in refuses if hosts.allow(host(name))] == []


def test_two_different_host_fields_are_no_host() -> None:
    hosts = Hosts((), "127.0.0.1")
    assert not hosts.allow(host("localhost") + host("evil.example"))
    assert not hosts.allow(host("evil.example") + host("localhost"))


@pytest.mark.parametrize(
    "entry", ["", "*.example.com", "https://example.com", "example.com/x", "a b", "example.com:0x50"]
)
def test_an_entry_that_is_no_name_is_refused_at_the_start(entry: str) -> None:
    with pytest.raises(ValueError, match="is no host name: expected a name or an address"):
        Hosts((entry,), "0.0.0.0")


def test_another_name_is_answered_with_421() -> None:
    Hosts((), "127.0.0.1").check(host("localhost"))
    with pytest.raises(WrongHost) as refusal:
        Hosts((), "127.0.0.1").check(host("evil.example"))
    assert refusal.value.status == 421
    assert "evil" not in refusal.value.detail


@given(st.binary(max_size=300))
def test_no_host_field_is_more_than_refused(value: bytes) -> None:
    assert not Hosts((), "127.0.0.1").allow([(b"host", b"x" + value)])
    Hosts((), "0.0.0.0").allow([(b"host", value)])


@pytest.mark.parametrize(
    ("name", "loopback"),
    [
        ("localhost", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.com", False),
        ("", False),
    ],
)
def test_loopback_is_what_only_this_machine_can_reach(name: str, loopback: bool) -> None:
    assert is_loopback(name) is loopback


def test_an_allowed_page_may_read_answers_with_credentials() -> None:
    assert Cors((APP,)).headers(origin(APP)) == {
        "Access-Control-Allow-Origin": APP,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "ETag, Retry-After, WWW-Authenticate, X-Amzn-Trace-Id",
        "Vary": "Origin",
    }


@pytest.mark.parametrize(
    "sent",
    [
        "null",
        "*",
        "",
        "https://app.example.com.evil",
        "https://evilapp.example.com",
        "https://evil.example/?https://app.example.com",
        "https://app.example.com@evil.example",
        "https://app.example.com:8443",
        "https://app.example.com/",
        "https://APP.example.com",
        "http://app.example.com",
        "https://app.example.com https://app.example.com",
        "https://app-example.com",
        "https://app.example.co",
    ],
)
def test_any_other_page_gets_nothing_but_vary(sent: str) -> None:
    cors = Cors((APP,))
    assert cors.headers(origin(sent)) == {"Vary": "Origin"}
    assert cors.preflight(origin(sent), ["GET"]) == {"Vary": "Origin"}


def test_no_page_or_two_of_them_get_nothing_either() -> None:
    assert Cors((APP,)).headers([]) == {"Vary": "Origin"}
    assert Cors((APP,)).headers(origin(APP) + origin(APP)) == {"Vary": "Origin"}
    assert Cors(()).headers(origin(APP)) == {"Vary": "Origin"}


@given(st.binary(max_size=80))
def test_only_the_origins_on_the_list_are_ever_answered(value: bytes) -> None:
    assert Cors((APP,)).headers([(b"origin", b"https://" + value)]) == {"Vary": "Origin"}


def test_a_preflight_says_what_the_path_takes() -> None:
    assert Cors((APP,)).preflight(origin(APP), ["GET", "HEAD", "OPTIONS"]) == {
        "Access-Control-Allow-Origin": APP,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
        "Access-Control-Allow-Headers": "Authorization, X-User-ID, Last-Event-ID, X-App-Authorization, Cache-Control, "
        "Content-Type, X-Amz-Content-Sha256",
        "Access-Control-Max-Age": "7200",
        "Vary": "Origin",
    }


def test_a_preflight_is_told_from_plain_options() -> None:
    asking = [*origin(APP), (b"access-control-request-method", b"GET")]
    assert is_preflight("OPTIONS", asking)
    assert not is_preflight("GET", asking)
    assert not is_preflight("OPTIONS", origin(APP))


@pytest.mark.parametrize(
    ("setting", "sent"),
    [
        ("https://app.example.com", "https://app.example.com"),
        (" HTTPS://App.Example.com:443 ", "https://app.example.com"),
        ("http://localhost:5173", "http://localhost:5173"),
        ("http://localhost:80", "http://localhost"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_an_origin_in_the_settings_means_what_a_browser_sends(setting: str, sent: str) -> None:
    assert origin_of(setting) == sent


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("*", "name each origin in full"),
        ("https://*.example.com", "name each origin in full"),
        ("null", "name each origin in full"),
        ("app.example.com", "starts with https:// or http://"),
        ("ftp://example.com", "starts with https:// or http://"),
        ("", "starts with https:// or http://"),
        ("https://example.com/", "nothing after it"),
        ("https://example.com/path", "nothing after it"),
        ("https://example.com?x", "nothing after it"),
        ("https://u:p@example.com", "nothing after it"),
        ("https://", "no host name"),
        ("https://example.com.", "no host name"),
        ("https://example.com:", "no host name"),
        ("https://exämple.com", "no host name"),
        ("https://a b", "no host name"),
        ("https://example.com:99999", "no host name"),
    ],
)
def test_an_origin_that_no_browser_sends_is_refused_at_the_start(setting: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Cors((setting,))


def forwarded(*fields: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-forwarded-for", field.encode("latin-1")) for field in fields]


def address(headers: list[tuple[bytes, bytes]], hops: int, peer: str | None = "10.0.0.9") -> str:
    return client_address(headers, peer, hops, on_lambda=False)


@pytest.mark.parametrize(
    ("fields", "hops", "expected"),
    [
        (["203.0.113.7"], 0, "10.0.0.9"),
        (["203.0.113.7"], 1, "203.0.113.7"),
        (["1.1.1.1, 203.0.113.7"], 1, "203.0.113.7"),
        (["1.1.1.1", "2.2.2.2, 203.0.113.7"], 1, "203.0.113.7"),
        (["1.1.1.1, 203.0.113.7, 10.0.0.1"], 2, "203.0.113.7"),
        (["1.1.1.1, 203.0.113.7", "10.0.0.1"], 2, "203.0.113.7"),
        (["203.0.113.7"], 2, "10.0.0.9"),
        ([], 1, "10.0.0.9"),
        ([""], 1, "10.0.0.9"),
        (["203.0.113.7,"], 1, "10.0.0.9"),
        (["203.0.113.7:4711"], 1, "203.0.113.7"),
        (["[2001:db8::1]:4711"], 1, "2001:db8::1"),
        (["[2001:db8::1]"], 1, "2001:db8::1"),
        (["2001:0DB8:0::1"], 1, "2001:db8::1"),
        (["::ffff:203.0.113.7"], 1, "203.0.113.7"),
        (["unknown"], 1, "10.0.0.9"),
        (["203.0.113.7\x00"], 1, "10.0.0.9"),
        (["203.0.113.700"], 1, "10.0.0.9"),
        (["203.0.113.7:x"], 1, "10.0.0.9"),
        (["[203.0.113.7"], 1, "10.0.0.9"),
    ],
)
def test_the_client_is_as_many_hops_from_the_right_as_are_trusted(fields: list[str], hops: int, expected: str) -> None:
    assert address(forwarded(*fields), hops) == expected


@given(forged=st.lists(st.binary(max_size=60), max_size=4), hops=st.integers(1, 3))
def test_whatever_a_client_forges_changes_nothing(forged: list[bytes], hops: int) -> None:
    proxies = ["203.0.113.7", *[f"10.0.0.{n}" for n in range(1, hops)]]
    headers = [(b"x-forwarded-for", value) for value in forged] + forwarded(", ".join(proxies))
    assert address(headers, hops) == "203.0.113.7"
    assert address(headers, 0) == "10.0.0.9"


def test_a_client_without_an_address_is_unknown() -> None:
    assert address([], 0, peer=None) == "unknown"
    assert address([], 0, peer="unix:") == "unknown"
    assert address([], 0, peer="fe80::1%eth0") == "fe80::1"


def on_lambda(context: object, *more: tuple[bytes, bytes]) -> str:
    raw = context if isinstance(context, bytes) else json.dumps(context).encode()
    return client_address([(b"x-amzn-request-context", raw), *more], "127.0.0.1", 1, on_lambda=True)


def test_on_lambda_the_address_is_the_one_that_lambda_saw() -> None:
    context = {"http": {"method": "GET", "sourceIp": "203.0.113.7"}}
    assert on_lambda(context) == "203.0.113.7"
    assert on_lambda(context, *forwarded("1.1.1.1")) == "203.0.113.7"
    assert on_lambda({"identity": {"sourceIp": "2001:db8::7"}}) == "2001:db8::7"
    assert client_address(forwarded("1.1.1.1"), "127.0.0.1", 1, on_lambda=True) == "127.0.0.1"
    assert on_lambda(context, (b"x-amzn-request-context", b'{"http":{"sourceIp":"1.1.1.1"}}')) == "127.0.0.1"


def test_off_lambda_that_header_is_the_clients_own_and_counts_for_nothing() -> None:
    headers = [(b"x-amzn-request-context", b'{"http":{"sourceIp":"1.1.1.1"}}')]
    assert address(headers, 1) == "10.0.0.9"


@pytest.mark.parametrize(
    "context",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 20000,
        b"[" * 70000,
        [],
        None,
        7,
        {"http": 7},
        {"http": {"sourceIp": ["1.1.1.1"]}},
        {"http": {}},
        {"http": {"sourceIp": "x"}},
    ],
)
def test_a_malformed_context_gives_the_peer(context: object) -> None:
    assert on_lambda(context) == "127.0.0.1"
    assert on_lambda(context, (b"x-amzn-request-context", b'{"http":{"sourceIp":"1.1.1.1"}}')) == "127.0.0.1"


@pytest.mark.parametrize(
    ("one", "group"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("unknown", "unknown"),
    ],
)
def test_a_limit_counts_the_network_of_one_subscriber(one: str, group: str) -> None:
    assert address_group(one) == group
