"""Starts that are refused: one line that names the variable, exit status 2, by the real command."""

import subprocess
import sys

import pytest

from tests.processes import clean_environment

ON_PURPOSE = (
    "SSE_AUTH must be set on purpose where others can connect and USERS_TABLE is set: "
    "`jwt`, or `header` if a trusted layer in front sets X-User-ID"
)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"SSE_CORS_ORIGINS": "https://ok.example,ftp://x"},
            "SSE_CORS_ORIGINS: 'ftp://x' is no origin: it starts with https:// or http://",
        ),
        (
            {"SSE_CORS_ORIGINS": "*"},
            "SSE_CORS_ORIGINS: '*' cannot be allowed: name each origin in full, as https://app.example.com",
        ),
        (
            {"SSE_ALLOWED_HOSTS": "a b"},
            "SSE_ALLOWED_HOSTS: 'a b' is no host name: expected a name or an address, perhaps with :port, or *",
        ),
        ({"SSE_AUTH": "jwt"}, "SSE_AUTH=jwt needs either SSE_JWT_JWKS_URL or SSE_JWT_KEY, and not both"),
        (
            {"SSE_AUTH": "jwt", "SSE_JWT_KEY": "a short secret"},
            "SSE_JWT_KEY is a shared key of 14 bytes: HS256 needs at least 32",
        ),
        (
            {"SSE_AUTH": "jwt", "SSE_JWT_JWKS_URL": "http://login.example.com/keys"},
            "SSE_JWT_JWKS_URL must be an https:// URL (http:// on a loopback address), without user or #",
        ),
        (
            {"SSE_AUTH": "jwt", "SSE_JWT_KEY": "x" * 32, "SSE_JWT_ALGORITHMS": "none"},
            "SSE_JWT_ALGORITHMS: 'none' is not one of ",
        ),
        (
            {"SSE_AUTH": "jwt", "SSE_JWT_KEY": "x" * 32, "SSE_JWT_ALGORITHMS": "RS256"},
            "SSE_JWT_ALGORITHMS: RS256 cannot be used with the key in SSE_JWT_KEY, only HS256",
        ),
        ({"SSE_TICKET_SECRET": "a short secret"}, "SSE_TICKET_SECRET is …: at least 32 bytes"),
        (
            {"HOST": "0.0.0.0", "USERS_TABLE": "users"},
            ON_PURPOSE,
        ),
        (
            {"AWS_LAMBDA_FUNCTION_NAME": "quartsse", "USERS_TABLE": "users"},
            ON_PURPOSE,
        ),
    ],
    ids=str,
)
def test_a_start_with_a_setting_that_cannot_be_used_is_refused_in_one_line(settings: dict[str, str], line: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "quartsse", "serve"],
        env={**clean_environment(), "SENTIMENTS_TABLE": "news", "PORT": "0", **settings},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"quartsse: {line}")
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr, "a secret is not repeated"
