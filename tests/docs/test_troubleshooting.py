"""The troubleshooting page: every way to be refused or ended is on it, and what it says to type answers."""

import asyncio
import re
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import pytest

from quartsse.errors import FeedStarting, LimitReached, ShuttingDown, StoreUnavailable, TooManyStreams
from quartsse.hub.events import EndReason
from quartsse.web import auth, configurations, tickets
from tests.docs.blocks import ROOT
from tests.dynamodb import Tables
from tests.end_to_end.targets import behind_nginx
from tests.served import Served

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
DETAILS = {
    *(
        error.detail
        for error in (FeedStarting(), LimitReached(1), ShuttingDown(), StoreUnavailable(), TooManyStreams())
    ),
    *(auth.MISSING, auth.INVALID, tickets.INVALID),
    *(configurations.NOT_FOUND, configurations.NO_CONFIGURATIONS, configurations.NO_TICKETS),
}
SAID_IN_PLACE = {
    "Token keys unavailable": "quartsse/web/keys.py",
    "This server does not answer to that host name. ": "quartsse/web/origins.py",
    "a token was refused": "quartsse/web/auth.py",
}
"""What is said where it happens, and nowhere by a name."""
COMMANDS = re.findall(r"`((?:time )?curl [^`]+)`", PAGE)
SHOWS = {
    "stream_end": r"event: stream_end\ndata: \{\"reason\":\"max_age\"",
    "Origin": r"(?m)^access-control-allow-origin: https://your\.page$",
    "--compressed": "event: heartbeat",
    "-sN": "event: heartbeat",
    "-sI": "HTTP/1.1 200",
    "-s -m": "event: heartbeat",
    "/status": r"\"max_connections\":100",
    "/health/feed": r"\"state\":\"(live|idle|starting)\"",
    "/health": r"^1\.1\n$",
}
"""What a command shows of a service that is well; the first that fits a command is meant."""


def show(command: str, url: str) -> str:
    """What a command of the page prints."""
    ported = re.sub(r"\b(URL|INSIDE)\b", url, command)
    return subprocess.run(["bash", "-c", ported], check=False, capture_output=True, text=True, timeout=15).stdout


def test_every_detail_is_on_the_page() -> None:
    assert {detail for detail in DETAILS if f"`{detail}`" not in PAGE} == set()


@pytest.mark.parametrize(("text", "place"), SAID_IN_PLACE.items())
def test_what_is_said_in_place_is_on_the_page_and_there(text: str, place: str) -> None:
    assert f"`{text}" in PAGE
    assert f'"{text}' in (ROOT / place).read_text()


def test_every_reason_of_an_end_is_on_the_page() -> None:
    rows = PAGE.partition("| after | `reason` |")[2].partition("\n\n")[0]
    assert {reason for reason in get_args(EndReason) if f"`{reason}`" not in rows} == set()


async def test_every_command_ends_by_itself_and_shows_what_is_right(
    serve: Callable[..., Served], table: Tables
) -> None:
    settings = {"SSE_MAX_STREAM_AGE": "2", "SSE_CORS_ORIGINS": "https://your.page"}
    served = await asyncio.to_thread(serve, **settings)
    assert len(COMMANDS) > 9

    shown = await asyncio.gather(*(asyncio.to_thread(show, command, served.url) for command in COMMANDS))
    for command, output in zip(COMMANDS, shown, strict=True):
        meant = next(pattern for part, pattern in SHOWS.items() if part in command)
        assert re.search(meant, output), (command, output)


COMPRESSING = {
    "proxy_buffering off;": "proxy_ignore_headers X-Accel-Buffering;",
    "gzip off;": 'gzip on; gzip_types text/event-stream; gzip_min_length 0; proxy_set_header Accept-Encoding "";',
}


def test_the_commands_tell_a_proxy_that_compresses(table: Tables, tmp_path: Path) -> None:
    plain, compressed = (next(word for word in COMMANDS if word.startswith(f"curl -sN -m 5 {start}"))
                         for start in ("URL", "--compressed"))  # fmt: skip
    with behind_nginx(table.environment(), tmp_path, COMPRESSING) as url, ThreadPoolExecutor() as pool:
        told, held_back = pool.map(show, (plain, compressed), (url, url))
    assert "event: heartbeat" in told
    assert held_back == ""


def test_an_end_by_an_idle_time_out_has_no_reason(table: Tables, tmp_path: Path) -> None:
    (command,) = (word for word in COMMANDS if word.startswith("time "))
    with behind_nginx(table.environment(), tmp_path, {"proxy_read_timeout 75s;": "proxy_read_timeout 1s;"}) as url:
        began = time.monotonic()
        assert show(command, url) == ""
        assert time.monotonic() - began < 10
