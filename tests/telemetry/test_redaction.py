import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quartsse.telemetry.redaction import redacted

SECRET = "s3cr3t-Value_0.9~x"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"GET /s?ticket={SECRET} 200", "GET /s?ticket=*** 200"),
        (f"/s?tickers=AAPL&ticket={SECRET}&on_limit=retry", "/s?tickers=AAPL&ticket=***&on_limit=retry"),
        (f"/s?TICKET={SECRET}", "/s?TICKET=***"),
        (f"/s?%74ick%65t={SECRET}", "/s?%74ick%65t=***"),
        (f"/login?next=%2Fs%3Fticket%3D{SECRET}", "/login?next=%2Fs%3Fticket%3D***"),
        (f'{{"ticket":"{SECRET}","expires_in":30}}', '{"ticket":"***","expires_in":30}'),
        (f"{{'ticket': '{SECRET}'}}", "{'ticket': '***'}"),
        (f'{{"body":"{{\\"ticket\\": \\"{SECRET}\\"}}"}}', '{"body":"{\\"ticket\\": \\"***\\"}"}'),
        (f"sent Bearer {SECRET}, refused", "sent Bearer ***, refused"),
        (f"bearer%20{SECRET}", "bearer%20***"),
        (f"Authorization: Bearer {SECRET}\r\nHost: x", "Authorization: ***\r\nHost: x"),
        (f"x-app-authorization: Basic {SECRET}", "x-app-authorization: ***"),
        (f'Authorization: Digest username="a", response="{SECRET}"', "Authorization: ***"),
        (f"{{'Authorization': 'Basic {SECRET}', 'Host': 'x'}}", "{'Authorization': '***', 'Host': 'x'}"),
        (f"[(b'authorization', b'Basic {SECRET}')]", "[(b'authorization', b'***')]"),
        (f"the token {JWT} is bad", "the token *** is bad"),
        (f"?access_token={JWT}", "?access_token=***"),
    ],
)
def test_a_secret_is_not_shown_and_the_rest_is(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "GET /api/v2/stream?tickers=AAPL 200",
        "Authorization, X-User-ID, Last-Event-ID",
        "tickets are off",
        "",
        "eyJ",
        "a.b",
    ],
)
def test_what_holds_no_secret_is_left_as_it_is(text: str) -> None:
    assert redacted(text) == text


@given(
    before=st.text(),
    after=st.text(),
    ticket=st.text("ABCDEFabcdef0123456789-_", min_size=12, max_size=60),
    frame=st.sampled_from(["?ticket={}", "&ticket={}", '"ticket": "{}"', "Bearer {}", "Authorization: X {}"]),
)
def test_no_surroundings_bring_a_secret_back(before: str, after: str, ticket: str, frame: str) -> None:
    secret = f"Q{ticket}Q"
    assert secret not in redacted(f"{before} {frame.format(secret)} {after}".replace(secret * 2, ""))


@given(st.text())
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redacted(text)
    assert redacted(once) == once


@pytest.mark.parametrize(
    "piece",
    [
        "ticket",
        "ticket=",
        "%74",
        "%74%69",
        "eyJ",
        "eyJ.",
        "eyJ-eyJ.",
        "bearer ",
        "bearer",
        " ",
        '"ticket"',
        "authorization:",
        'authorization:="',
        'authorization=="',
        "authorization ",
        '"ticket"  ',
        "=",
        '="',
        "%3d",
        "b'",
        "authorization'\\",
    ],
)
def test_the_time_grows_with_the_length_and_not_with_its_square(piece: str) -> None:
    began = time.process_time()
    for prefix in ("", "bearer", '"ticket"', "authorization:", "eyJ"):
        redacted(prefix + piece * (300_000 // len(piece)))
    # A pattern that goes back over what it has read takes minutes here.
    assert time.process_time() - began < 5
