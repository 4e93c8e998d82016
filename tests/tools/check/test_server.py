"""`quartsse check URL`: a service that is well is found well, and each prepared fault on the way is found and named.

The proxies are real ones (nginx), the service is the real one, and what no proxy does a small raw server does.
"""

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from quartsse.feed.configurations import Saved
from quartsse.tools.check import streams
from quartsse.tools.check.command import check
from quartsse.tools.check.report import Finding, Report, Style, failed, ok
from quartsse.tools.check.server import Asked, Visit
from quartsse.web.handover import UvloopWithDoors
from tests.dynamodb import Tables, record
from tests.end_to_end.targets import behind_nginx
from tests.processes import clean_environment, eventually, free_port
from tests.web.serving import item, serving

QUICK: dict[str, Any] = {"SSE_HEARTBEAT_INTERVAL": "0.3", "SSE_METRICS_INTERVAL": "0.2"}
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)

NGINX = """
daemon off; pid {folder}/pid; worker_processes 1; error_log stderr;
events {{ }}
http {{
  access_log off; client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  server {{
    listen 127.0.0.1:{listen};
    location / {{
      proxy_pass http://127.0.0.1:{port}; proxy_set_header Connection "";
      proxy_set_header Host localhost;
      {settings}
    }}
  }}
}}
"""
BUFFERING = "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering; proxy_http_version 1.0;"
"""To nginx a body without chunks is one whose buffers are sent on when they are full."""

# Buffers of a few bytes let the plain stream through; the compressor keeps what it is not told to flush.
COMPRESSING = (
    "proxy_http_version 1.1; proxy_buffering on; proxy_ignore_headers X-Accel-Buffering; proxy_buffer_size 1k; "
    "proxy_buffers 64 32; proxy_busy_buffers_size 1k; postpone_output 0; "
    "gzip on; gzip_types *; gzip_min_length 0; gzip_proxied any;"
)
FLUSHED = "proxy_http_version 1.1; proxy_buffering off; gzip on; gzip_types *; gzip_min_length 0; gzip_proxied any;"


@contextmanager
def nginx(port: int, folder: Path, settings: str) -> Iterator[int]:
    """A proxy in front of a port, that treats streams as its settings say; gives its own port."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("nginx is not installed")
    listen, configuration = free_port(), folder / "conf"
    configuration.write_text(NGINX.format(folder=folder, listen=listen, port=port, settings=settings))
    command = [program, "-p", str(folder), "-e", "stderr", "-c", str(configuration)]
    with subprocess.Popen(command, env=clean_environment(), stderr=subprocess.PIPE) as process:
        try:
            assert eventually(lambda: (folder / "pid").exists() or process.poll() is not None)
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            yield listen
        finally:
            process.terminate()


type Script = Callable[[asyncio.StreamWriter, dict[str, str]], object]


@asynccontextmanager
async def raw(script: Script) -> AsyncIterator[str]:
    """A small server of one's own: `script` is handed the writer and the request's headers; gives its address."""
    tasks: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in lines if line)
            result = script(writer, fields | {"method": first.split(" ")[0], "path": first.split(" ")[1]})
            if asyncio.iscoroutine(result):
                await result
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/events"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def visited(url: str, **options: object) -> Report:
    """What a visit finds."""
    report = Report(url)
    asked = Asked(url, **{"seconds": 1.5, "heartbeat": 0.5, **options})  # type: ignore[arg-type]
    async for told in Visit(asked, facts=report.facts).run():
        report.take(told)
    return report


def found(report: Report, name: str) -> Finding:
    """The finding of a name."""
    named = {finding.name: finding for _, finding in report.findings}
    assert name in named, report.findings
    return named[name]


def bad(report: Report) -> dict[str, str]:
    """What is not well, and what was seen of it."""
    return {one.name: one.seen for _, one in report.findings if one.state in {"failed", "warning"}}


async def test_a_service_that_is_well_is_found_well() -> None:
    async with serving(item("a:1", "AAPL", at=1e9), **QUICK, SSE_CORS_ORIGINS="https://a.example") as service:
        url = f"http://127.0.0.1:{service.port}/api/v2/stream?tickers=*"
        report = await visited(url, origin="https://a.example")
        assert bad(report) == {}
        assert found(report, "resume").seen.startswith("exact")
        assert found(report, "400").state == found(report, "405").state == found(report, "406").state == "ok"
        assert found(report, "CORS on errors").state == "ok"
        await asyncio.sleep(0.2)
        assert service.parts.slots.taken == 0, "nothing is left open"


async def test_the_address_of_the_server_alone_will_do() -> None:
    async with serving(**QUICK) as service:
        report = await visited(f"http://127.0.0.1:{service.port}", seconds=1)
    assert bad(report) == {}
    assert report.facts["url"].endswith("/api/v2/stream")


def test_a_service_behind_nginx_as_documented_is_found_well(table: Tables, tmp_path: Path) -> None:
    asyncio.run(table.fill([record(None, "AAPL", age=60 * n, sentiment="positive") for n in range(1, 20)]))
    with behind_nginx(table.environment() | QUICK, tmp_path) as url:
        report = asyncio.run(visited(f"{url}/api/v2/stream?tickers=*"))
    assert bad(report) == {}
    assert found(report, "resume").seen.startswith("exact")
    assert found(report, "X-Accel-Buffering").state == "note"
    assert found(report, "buffering").state == "ok"


def behind(settings: str, folder: Path, **options: object) -> Report:
    """What a visit finds of a service that does not compress itself, behind nginx with some settings."""

    async def run() -> Report:
        async with serving(**QUICK, SSE_COMPRESSION="off") as service:
            with nginx(service.port, folder, settings) as port:
                return await visited(f"http://127.0.0.1:{port}/api/v2/stream?tickers=*", **options)

    with asyncio.Runner(loop_factory=UvloopWithDoors) as runner:
        return runner.run(run())


def test_a_proxy_that_buffers_is_found(tmp_path: Path) -> None:
    report = behind(BUFFERING, tmp_path)
    assert report.status(strict=False) == 1
    assert found(report, "buffering").state == "failed"
    assert "proxy_buffering off" in found(report, "buffering").cure


def test_a_proxy_that_compresses_and_holds_back_is_found(tmp_path: Path) -> None:
    report = behind(COMPRESSING, tmp_path, seconds=3)
    assert found(report, "compression").state == "failed", report.findings
    assert "gzip off" in found(report, "compression").cure


def test_compression_that_is_flushed_is_fine(tmp_path: Path) -> None:
    report = behind(FLUSHED, tmp_path)
    assert bad(report) == {}
    assert "gzip, flushed" in found(report, "compression").seen


async def test_a_wrong_content_type_is_found() -> None:
    async with raw(lambda writer, _: writer.write(HEAD.replace(b"text/event-stream", b"text/plain"))) as url:
        report = await visited(url)
    assert bad(report) == {"content type": "text/plain"}
    assert "text/event-stream" in found(report, "content type").cure


STEP = 0.2


def foreign(place: Callable[[int, int], int]) -> Script:
    """A foreign server: an event every moment, the same for all; `place`, of the last id and the newest, is where
    a reader that comes back goes on."""
    began = time.monotonic()

    async def script(writer: asyncio.StreamWriter, request: dict[str, str]) -> None:
        writer.write(HEAD)
        if request["method"] == "HEAD":
            return
        writer.write(chunk(b"retry: 2000\n\n"))
        newest = int((time.monotonic() - began) / STEP)
        after = place(int(request["last-event-id"]), newest) if "last-event-id" in request else newest
        for number in range(after + 1, 1000):
            await asyncio.sleep(max(0.0, began + STEP * number - time.monotonic()))
            writer.write(chunk(b"id: %d\ndata: {}\n\n:\n\n" % number))
            await writer.drain()

    return script


async def test_a_foreign_server_is_judged_by_what_is_right_for_any() -> None:
    async with raw(foreign(lambda last, _: last)) as url:
        report = await visited(url)
    assert bad(report) == {}
    names = {finding.name for _, finding in report.findings}
    assert not names & {"400", "405", "406", "form", "feed"}, "what quartsse alone promises"
    assert found(report, "ids").state == found(report, "retry").state == found(report, "gaps").state == "ok"


@pytest.mark.parametrize(
    ("place", "finding"),
    [(lambda _, newest: newest + 1, "gaps"), (lambda last, _: last - 2, "repeats")],
    ids=["forgets", "repeats"],
)
async def test_a_server_that_does_not_go_on_where_one_stopped_is_found(
    place: Callable[[int, int], int], finding: str
) -> None:
    async with raw(foreign(place)) as url:
        report = await visited(url)
    assert list(bad(report)) == [finding]
    assert "Last-Event-ID" in found(report, finding).cure


async def test_a_heartbeat_that_is_missing_is_found() -> None:
    async def silent(writer: asyncio.StreamWriter, _: dict[str, str]) -> None:
        writer.write(HEAD + chunk(b"id: 1\ndata: {}\n\n"))
        await writer.drain()
        await asyncio.sleep(30)

    async with raw(silent) as url:
        report = await visited(url, seconds=1.1)
    assert found(report, "heartbeat").state == "warning"
    assert "comment line" in found(report, "heartbeat").cure
    async with serving(SSE_HEARTBEAT_INTERVAL="30") as service:
        report = await visited(f"http://127.0.0.1:{service.port}/api/v2/stream", seconds=1.5)
    assert found(report, "heartbeat").state == "failed"
    assert "SSE_HEARTBEAT_INTERVAL" in found(report, "heartbeat").cure


async def test_what_comes_in_bunches_is_found() -> None:
    async def bunched(writer: asyncio.StreamWriter, _: dict[str, str]) -> None:
        from quartsse.hub.clock import iso

        writer.write(HEAD)
        held, wall = b"", time.time
        for number in range(40):
            held += b'id: evt_%d.a.1.1\nevent: heartbeat\ndata: {"timestamp":"%b","feed":"live"}\n\n' % (
                number,
                iso(wall()).encode(),
            )
            if number % 4 == 3:
                writer.write(chunk(held))
                held = b""
            await asyncio.sleep(0.4)

    async with raw(bunched) as url:
        report = await visited(url, seconds=2.5, heartbeat=5)
    assert found(report, "buffering").state == "failed"


async def test_a_full_server_is_told_from_a_broken_one() -> None:
    async with serving(SSE_MAX_CONNECTIONS="1") as service:
        kept = await service.get("/api/v2/stream")
        report = await visited(f"http://127.0.0.1:{service.port}/api/v2/stream")
        kept.close()
    assert list(bad(report)) == ["status"]
    assert "Retry-After: 30" in found(report, "status").seen
    assert "SSE_MAX_CONNECTIONS" in found(report, "status").cure


async def test_a_server_that_drains_during_the_visit_is_told_by_its_farewell() -> None:
    async with serving(**QUICK) as service:
        asyncio.get_running_loop().call_later(0.7, service.stop.set)
        report = await visited(f"http://127.0.0.1:{service.port}/api/v2/stream", seconds=3)
    assert bad(report).keys() == {"end", "resume"}
    assert found(report, "end").seen.endswith("draining")
    assert found(report, "requests").state == "skipped"


@pytest.mark.parametrize(
    ("state", "judged"), [("live", "ok"), ("idle", "ok"), ("starting", "warning"), ("stale", "failed")]
)
def test_what_a_server_says_of_its_feed_is_judged(state: str, judged: str) -> None:
    feed = {"state": state, "age_seconds": 60.0, "items": 5, "reason": "cannot read news", "advice": "allow it"}
    *_, connections, told = streams.status({"connections": 90, "max_connections": 100, "feed": feed})
    assert (connections.state, told.state) == ("warning", judged)
    assert ("`quartsse check`" in told.cure) == ("cannot read news" in told.seen) == (judged != "ok")


async def test_a_private_stream_asks_for_its_user() -> None:
    kept = {("u", "c"): Saved("c", "Mine", ("AAPL",))}
    async with serving(saved=kept, **QUICK) as service:
        url = f"http://127.0.0.1:{service.port}/api/v2/configurations/c/stream"
        refused = await visited(url)
        report = await visited(url, headers={"X-User-ID": "u"})
    assert list(bad(refused)) == ["status"]
    assert "--header" in found(refused, "status").cure
    assert bad(report) == {}


async def test_the_limit_is_tried_where_that_is_asked_for() -> None:
    async with serving(**QUICK, SSE_MAX_CONNECTIONS="6") as service:
        report = await visited(f"http://127.0.0.1:{service.port}/api/v2/stream", limit=20)
    assert "then 503" in found(report, "limit").seen
    assert found(report, "limit").state == "ok"


async def _endless(writer: asyncio.StreamWriter, _: dict[str, str]) -> None:
    writer.write(HEAD)
    while True:
        writer.write(chunk(b"x" * 65_536))
        await writer.drain()


async def _drip(writer: asyncio.StreamWriter, _: dict[str, str]) -> None:
    for byte in HEAD:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.5)


HOSTILE: dict[str, tuple[Script, str]] = {
    "a line without end": (_endless, "event size"),
    "a head that drips": (_drip, "connection"),
    "not HTTP": (lambda writer, _: writer.write(b"\x00\xffSSH-2.0\r\n\r\n"), "connection"),
    "binary": (lambda writer, _: writer.write(HEAD + chunk(bytes(range(256)) * 40) + b"0\r\n\r\n"), "events"),
    "broken chunks": (lambda writer, _: writer.write(HEAD + b"zz\r\n"), "end"),
    "elsewhere": (
        lambda writer, _: writer.write(b"HTTP/1.1 302 X\r\nLocation: http://example.invalid/\r\n\r\n"),
        "redirect",
    ),
    "in a circle": (lambda writer, _: writer.write(b"HTTP/1.1 302 X\r\nLocation: /events\r\n\r\n"), "redirect"),
    "a length": (
        lambda writer, _: writer.write(
            b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nContent-Length: 4\r\n\r\n:\n\n\n"
        ),
        "framing",
    ),
    "brotli": (lambda writer, _: writer.write(HEAD[:-2] + b"Content-Encoding: br\r\n\r\n"), "content coding"),
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_hostile_server_is_named_and_not_waited_for(kind: str) -> None:
    script, name = HOSTILE[kind]
    async with raw(script) as url, asyncio.timeout(15):
        report = await visited(url, seconds=1)
    assert found(report, name).state == "failed"
    assert found(report, name).cure


async def test_tls_where_none_is_spoken_is_told() -> None:
    async with raw(lambda writer, _: writer.close()) as url:
        report = await visited(url.replace("http:", "https:"))
    assert "https" in found(report, "connection").cure


@pytest.mark.parametrize("url", ["nonsense", "ftp://x/", "http://user@x/"])
async def test_an_address_that_cannot_be_asked_is_told(url: str) -> None:
    assert (await visited(url)).status(strict=False) == 1


def test_the_command_tells_json_and_a_status() -> None:
    result = CliRunner().invoke(check, ["http://127.0.0.1:1/", "--json", "-s", "1"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["findings"][0]["name"] == "connection"
    assert CliRunner().invoke(check, ["http://127.0.0.1:1/", "-H", "nonsense"]).exit_code == 2


def test_a_server_cannot_write_to_the_terminal_and_a_state_is_never_colour_alone() -> None:
    style = Style(colour=False, signs=True, width=80)
    lines = "\n".join(style.lines(failed("x", "\x1b[2Jred\n", "why " * 45, "cure " * 40)))
    assert "\x1b" not in lines
    assert "✗" in lines
    assert all(len(line) <= 100 for line in lines.split("\n"))
    assert "ok" in "".join(Style().lines(ok("x", "fine")))
