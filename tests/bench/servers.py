"""The servers that are measured: how each is started, and how it is given events."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.bench.listening import Load
from tests.bench.machine import SERVER_CORE, pinned, wait_for_port
from tests.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
BUILD = ROOT / "build" / "bench"
FILTERS = 500
DATA = 244
"""Bytes of data that make a peer's event about as long on the wire as ours."""


def payload(number: int) -> bytes:
    """The data of an event: JSON with its number, the time, and as many bytes as ours have."""
    mark = f"@{number}@{time.monotonic_ns()};"
    return b'{"source":"%b","pad":"%b"}' % (mark.encode(), b"x" * (DATA - 23 - len(mark)))


class Server:
    """A server in a process of its own, that is gone at the end. Knows nothing of ours unless said otherwise."""

    name = ""
    paths: Sequence[str] = ("/sse",)
    """What its readers ask for, in turn."""
    most = 20_000
    """More streams than it can be asked for."""
    gzip = False
    """Whether its readers ask for it."""

    def __init__(self) -> None:
        self.port = 0
        self.number = 0
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def missing() -> str | None:
        """What has to be installed first; None if all is there."""
        return None

    def command(self) -> list[str]:
        """How it is started."""
        raise NotImplementedError

    def publish(self, count: int) -> None:
        """Give it so many events at once."""
        raise NotImplementedError

    def payloads(self, count: int) -> list[bytes]:
        """The next events."""
        first, self.number = self.number + 1, self.number + count
        return [payload(number) for number in range(first, first + count)]

    @property
    def pid(self) -> int:
        """Its first process."""
        assert self._process is not None
        return self._process.pid

    def readers(self, count: int) -> Load:
        """So many streams of it, opened."""
        return Load(compiled("load"), self.port, count, self.paths, gzip=self.gzip)

    def environment(self) -> dict[str, str]:
        """What it is told by its environment: what is written in Go, that it has one core."""
        return {**os.environ, "GOMAXPROCS": "1"}

    def write(self, data: bytes) -> None:
        """Send it something on its standard input."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def __enter__(self) -> Self:
        BUILD.mkdir(parents=True, exist_ok=True)
        self.port, self.number = free_port(), 0
        with (BUILD / f"{self.name}.log").open("wb") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=self.environment(),
                preexec_fn=pinned(SERVER_CORE),  # noqa: PLW1509 - no threads here
                start_new_session=True,
            )
        wait_for_port(self.port)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()


class Quartsse(Server):
    """Ours: the whole service, poller included, over a table in memory."""

    name = "quartsse"
    paths: Sequence[str] = ("/api/v2/stream?tickers=SHARED",)
    handover = "1"

    def command(self) -> list[str]:
        """Its own process, as `quartsse serve`."""
        return [sys.executable, "-m", "tests.bench.service"]

    def environment(self) -> dict[str, str]:
        """As many streams as the process may open files; logs go to a file, as in production."""
        files = {"SSE_MAX_CONNECTIONS": "19900", "PORT": str(self.port), "SENTIMENTS_TABLE": "bench"}
        return {**os.environ, **files, "SSE_HANDOVER": self.handover}

    def publish(self, count: int) -> None:
        """Credits: so many items change before the next read."""
        self.write(b"credits %d\n" % count)

    def pace(self, seconds: float, events: int) -> None:
        """Let so many items change at every read, one read every so many seconds."""
        self.write(b"pace %g %d\n" % (seconds, events))

    def own(self, seconds: float) -> None:
        """Let one item of every reader's own ticker change at every read."""
        self.write(b"own %g\n" % seconds)

    def rest(self) -> None:
        """Let nothing change."""
        self.write(b"rest\n")


class Compressed(Quartsse):
    """Ours, read by readers who take gzip."""

    name = "quartsse-gzip"
    gzip = True


class Filtered(Quartsse):
    """Ours, where every second reader has a filter of its own, and each tick an event for each filter."""

    name = "quartsse-500-filters"
    paths: Sequence[str] = tuple(f"/api/v2/stream?tickers=O{number}" for number in range(FILTERS))

    def pace(self, seconds: float, events: int) -> None:
        """Whatever is asked for: an event for each reader."""
        self.own(seconds)


class NginxGzip(Quartsse):
    """Ours without compression, and nginx's in front of it: a compressor for each stream."""

    name = "nginx-gzip"
    gzip = True
    most = 1000

    def __init__(self) -> None:
        super().__init__()
        self._behind = 0

    @staticmethod
    def missing() -> str | None:
        """Debian's package."""
        return None if shutil.which("nginx") else "apt-get install nginx"

    def command(self) -> list[str]:
        """Both, as one tree of processes: the shell becomes ours."""
        self._behind = free_port()
        path = BUILD / "gzip.conf"
        path.write_text(NGINX_GZIP.format(build=BUILD, port=self.port, behind=self._behind, user=_user()))
        nginx = shlex.join(["nginx", "-p", str(BUILD), "-c", str(path), "-e", str(BUILD / "gzip-errors.log")])
        return ["sh", "-c", f"{nginx} <&- & exec {shlex.join(super().command())}"]

    def environment(self) -> dict[str, str]:
        """Ours listens behind nginx."""
        return super().environment() | {"PORT": str(self._behind), "SSE_COMPRESSION": "off"}

    def __enter__(self) -> Self:
        super().__enter__()
        wait_for_port(self._behind)
        return self


class Ordinary(Quartsse):
    """Ours without the hand-over."""

    name = "quartsse-ordinary"
    handover = "0"


class Floor(Server):
    """A loop in C that does nothing but send."""

    name = "floor"

    @staticmethod
    def missing() -> str | None:
        """A compiler."""
        return None if shutil.which("cc") else "cc"

    def command(self) -> list[str]:
        """Compiled on the spot."""
        return [str(compiled("floor")), str(self.port)]

    def publish(self, count: int) -> None:
        """A line an event."""
        self.write(b"".join(line + b"\n" for line in self.payloads(count)))


class HttpServer(Server):
    """A server that takes events by HTTP."""

    publish_path = "/pub"

    def __init__(self) -> None:
        super().__init__()
        self._publisher: socket.socket | None = None

    @property
    def publish_port(self) -> int:
        """Where it takes them."""
        return self.port

    def bodies(self, count: int) -> list[bytes]:
        """The bodies of the requests, sent one behind the other."""
        return [b"\n".join(self.payloads(count))]

    def publish(self, count: int) -> None:
        """Send, and wait until all is answered."""
        if self._publisher is None:
            self._publisher = socket.create_connection(("127.0.0.1", self.publish_port), timeout=10)
        bodies = self.bodies(count)
        head = "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
        self._publisher.sendall(b"".join(head.format(self.publish_path, len(body)).encode() + body for body in bodies))
        answers = b""
        while answers.count(b"HTTP/1.") < len(bodies):
            answers += (got := self._publisher.recv(65_536))
            if not got:
                raise RuntimeError(f"{self.name} took no events: {answers!r}")
        if len(re.findall(rb"HTTP/1\.. 2", answers)) != len(bodies):
            raise RuntimeError(answers.decode(errors="replace"))
        if answers.startswith(b"HTTP/1.0") or b"onnection: close" in answers:
            self._publisher.close()
            self._publisher = None

    def __exit__(self, *_: object) -> None:
        if self._publisher is not None:
            self._publisher.close()
        super().__exit__()


class Nchan(HttpServer):
    """nginx with nchan, one worker."""

    name = "nchan"
    paths: Sequence[str] = ("/sub",)
    module = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")

    @staticmethod
    def missing() -> str | None:
        """Debian's packages."""
        there = Nchan.module.exists() and shutil.which("nginx")
        return None if there else "apt-get install nginx libnginx-mod-nchan"

    def command(self) -> list[str]:
        """With a configuration of its own."""
        BUILD.mkdir(parents=True, exist_ok=True)
        path = BUILD / "nchan.conf"
        path.write_text(NCHAN.format(module=self.module, build=BUILD, port=self.port, user=_user()))
        return ["nginx", "-p", str(BUILD), "-c", str(path), "-e", str(BUILD / "nchan-errors.log")]

    def bodies(self, count: int) -> list[bytes]:
        """A request an event."""
        return self.payloads(count)


class Pushpin(HttpServer):
    """pushpin; whoever answers behind it is not measured."""

    name = "pushpin"
    publish_path = "/publish/"
    most = 1000

    def __init__(self) -> None:
        super().__init__()
        self._control = free_port()
        self._origin = free_port()
        self._behind: list[subprocess.Popen[bytes]] = []

    @staticmethod
    def missing() -> str | None:
        """Debian's package."""
        return None if shutil.which("pushpin") else "apt-get install pushpin"

    @property
    def publish_port(self) -> int:
        """Its own, beside the viewers'."""
        return self._control

    def command(self) -> list[str]:
        """With a configuration of its own."""
        run = BUILD / "pushpin"
        run.mkdir(parents=True, exist_ok=True)
        original = Path("/etc/pushpin/pushpin.conf").read_text()
        changed = {
            "rundir": run, "logdir": run, "push_in_http_port": self._control, "push_in_spec": f"ipc://{run}/in",
            "push_in_sub_specs": f"ipc://{run}/sub", "command_spec": f"ipc://{run}/command", "log_level": 0,
            "http_port": self.port, "message_rate": 10_000_000, "message_hwm": 1_000_000,
        }  # fmt: skip
        lines = [
            f"{name}={changed[name]}" if (name := line.partition("=")[0]) in changed else line
            for line in original.splitlines()
        ]
        zurl = {"zurl_out_specs": "in", "zurl_out_stream_specs": "in-stream", "zurl_in_specs": "out"}
        specs = [f"{name}=ipc://{run}/zurl-{end}" for name, end in zurl.items()]
        lines[lines.index("[proxy]") + 1 : lines.index("[proxy]") + 1] = specs
        (run / "pushpin.conf").write_text("\n".join(lines))
        route = f"* 127.0.0.1:{self._origin}"
        return ["pushpin", "--config", str(run / "pushpin.conf"), "--port", str(self.port), "--route", route]

    def bodies(self, count: int) -> list[bytes]:
        """One request with all events."""
        items = b",".join(
            b'{"channel":"bench","formats":{"http-stream":{"content":%b}}}' % _quoted(b"data: %b\n\n" % data)
            for data in self.payloads(count)
        )
        return [b'{"items":[%b]}' % items]

    def __enter__(self) -> Self:
        run = BUILD / "pushpin"
        run.mkdir(parents=True, exist_ok=True)
        original = Path("/etc/zurl.conf").read_text().replace("/var/run/zurl/", f"{run}/")
        (run / "zurl.conf").write_text(re.sub("(?m)^deny=.*", "deny=", original))  # it would not ask loopback addresses
        zurl = ["zurl", f"--config={run}/zurl.conf", "--loglevel=0"]
        origin = [sys.executable, str(HERE / "peers" / "origin.py"), str(self._origin)]
        self._behind = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in (zurl, origin)]
        wait_for_port(self._origin)
        super().__enter__()
        wait_for_port(self._control)
        time.sleep(2)  # its parts find each other
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        for process in self._behind:
            process.kill()
            process.wait()


class Centrifugo(HttpServer):
    """Centrifugo, built from source by Go, its one-way event stream."""

    name = "centrifugo"
    publish_path = "/api/batch"
    release = "v6.9.1"
    paths: Sequence[str] = ("/connection/uni_sse?cf_connect=%7B%22subs%22%3A%7B%22bench%22%3A%7B%7D%7D%7D",)

    @staticmethod
    def missing() -> str | None:
        """Go, where it has not been built yet."""
        return go_for(BUILD / "centrifugo")

    def command(self) -> list[str]:
        """With a configuration of its own: nobody has to say who he is, and nothing is kept."""
        BUILD.mkdir(parents=True, exist_ok=True)
        if not (BUILD / "centrifugo").exists():
            package = f"github.com/centrifugal/centrifugo/v6@{self.release}"
            subprocess.run(["go", "install", package], env={**os.environ, "GOBIN": str(BUILD)}, check=True)
        path = BUILD / "centrifugo.json"
        anyone = {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}
        settings = {
            "http_server": {"address": "127.0.0.1", "port": str(self.port)},
            "client": {"insecure": True, "allowed_origins": ["*"]},
            "http_api": {"insecure": True},
            "uni_sse": {"enabled": True},
            "channel": {"without_namespace": anyone},
            "log": {"level": "error"},
        }
        path.write_text(json.dumps(settings))
        return [str(BUILD / "centrifugo"), "--config", str(path)]

    def bodies(self, count: int) -> list[bytes]:
        """One request with all events."""
        commands = b",".join(b'{"publish":{"channel":"bench","data":%b}}' % data for data in self.payloads(count))
        return [b'{"commands":[%b]}' % commands]


class Mercure(Server):
    """Mercure's hub, built from source by Go; no web server of its own in front, which would only cost more."""

    name = "mercure"
    paths: Sequence[str] = ("/.well-known/mercure?topic=bench",)

    @staticmethod
    def missing() -> str | None:
        """Go, where it has not been built yet."""
        return go_for(BUILD / "mercure")

    def command(self) -> list[str]:
        """Built on the spot, with the versions and hashes that lie beside it."""
        if not (BUILD / "mercure").exists():
            build = ["go", "build", "-o", str(BUILD / "mercure"), "."]
            subprocess.run(build, cwd=HERE / "peers" / "mercure", check=True)
        return [str(BUILD / "mercure"), str(self.port)]

    def publish(self, count: int) -> None:
        """A line an event."""
        self.write(b"".join(line + b"\n" for line in self.payloads(count)))


class Python(HttpServer):
    """A Python server, in an environment of its own."""

    app = ""
    packages: tuple[str, ...] = ()

    def command(self) -> list[str]:
        """By the interpreter of that environment."""
        return [str(environment(self.name, self.packages)), str(HERE / "peers" / self.app), str(self.port)]


class PlainQuart(Python):
    """Quart under Hypercorn on uvloop, a queue per stream."""

    name = "quart-hypercorn"
    app = "quart_plain.py"
    packages = ("quart", "hypercorn", "uvloop")


class SseStarlette(Python):
    """sse-starlette under uvicorn on uvloop and httptools, a queue per stream."""

    name = "sse-starlette"
    app = "sse_starlette_app.py"
    packages = ("sse-starlette", "starlette", "uvicorn", "uvloop", "httptools")


SERVERS: dict[str, type[Server]] = {
    server.name: server
    for server in (
        Floor,
        Quartsse,
        Compressed,
        Nchan,
        Centrifugo,
        Mercure,
        Pushpin,
        SseStarlette,
        PlainQuart,
        Ordinary,
        Filtered,
        NginxGzip,
    )
}


def compiled(name: str) -> Path:
    """A C program of ours, compiled if it has changed."""
    source, binary = HERE / f"{name}.c", BUILD / name
    BUILD.mkdir(parents=True, exist_ok=True)
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", str(binary), str(source), "-lm", "-lz"], check=True)
    return binary


def go_for(program: Path) -> str | None:
    """What has to be installed first for a program that Go builds: nothing once it has been built."""
    return None if shutil.which("go") or program.exists() else "Go"


def environment(name: str, packages: Sequence[str]) -> Path:
    """The interpreter of a virtual environment with some packages, made if it is not there."""
    directory = BUILD / f"venv-{name}"
    interpreter = directory / "bin" / "python"
    if not (directory / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
        subprocess.run([str(interpreter), "-m", "pip", "install", "--quiet", *packages], check=True)
        (directory / "ready").touch()
    return interpreter


def _user() -> str:
    return "user root;" if os.getuid() == 0 else ""


def _quoted(data: bytes) -> bytes:
    return b'"' + data.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'"'


NGINX_GZIP = """
daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid {build}/gzip.pid; {user}
events {{ worker_connections 19900; }}
http {{
  access_log off; client_body_temp_path {build}/t1; proxy_temp_path {build}/t2; fastcgi_temp_path {build}/t3;
  uwsgi_temp_path {build}/t4; scgi_temp_path {build}/t5;
  gzip on; gzip_types text/event-stream; gzip_min_length 0; gzip_comp_level 6;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://127.0.0.1:{behind}; proxy_http_version 1.1; proxy_buffering off;
      proxy_set_header Host localhost; proxy_read_timeout 1h;
    }}
  }}
}}
"""

NCHAN = """
load_module {module};
daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid {build}/nchan.pid; {user}
events {{ worker_connections 19900; }}
http {{
  access_log off; client_body_temp_path {build}/t1; proxy_temp_path {build}/t2; fastcgi_temp_path {build}/t3;
  uwsgi_temp_path {build}/t4; scgi_temp_path {build}/t5; nchan_shared_memory_size 256M;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    keepalive_requests 1000000;
    location /sub {{ nchan_subscriber eventsource; nchan_channel_id bench; }}
    location /pub {{ nchan_publisher; nchan_channel_id bench; nchan_message_buffer_length 100; }}
  }}
}}
"""
