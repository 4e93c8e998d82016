"""Handed-over streams behind nginx and haproxy, which keep their connections to us and use them again at once."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from quartsse.web.handover import UvloopWithDoors
from tests.processes import free_port
from tests.web.serving import Service, serving

ROUNDS = 40
VIEWERS = 20
OTHERS = 10
NGINX = """
daemon off; pid {directory}/pid; worker_processes 1; {user}
events {{ }}
http {{
  access_log off; client_body_temp_path {directory}/1; proxy_temp_path {directory}/2; fastcgi_temp_path {directory}/3;
  uwsgi_temp_path {directory}/4; scgi_temp_path {directory}/5;
  upstream service {{ server 127.0.0.1:{port}; keepalive 100; }}
  server {{
    listen 127.0.0.1:{listen};
    location / {{
      proxy_pass http://service; proxy_http_version 1.1; proxy_next_upstream off;
      proxy_set_header Connection ""; proxy_set_header Host localhost;
    }}
  }}
}}
"""
HAPROXY = """
global
  maxconn 500
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  retries 0
frontend all
  bind 127.0.0.1:{listen}
  default_backend service
backend service
  http-reuse always
  http-request set-header Host localhost
  server one 127.0.0.1:{port}
"""


@contextmanager
def proxy(name: str, port: int, directory: Path) -> Iterator[int]:
    """A proxy in front of a port, with no second tries; its own port."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed: apt-get install {name}")
    listen, path = free_port(), directory / "conf"
    user = "user root;" if os.getuid() == 0 else ""
    text = {"nginx": NGINX, "haproxy": HAPROXY}[name]
    path.write_text(text.format(directory=directory, port=port, listen=listen, user=user))
    errors = str(directory / "errors")
    command = [name, "-c", str(path), "-e", errors] if name == "nginx" else [name, "-q", "-db", "-f", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield listen
    finally:
        process.kill() if name == "haproxy" else process.terminate()  # haproxy would wait for its clients
        process.wait(5)


class Viewer:
    """Someone who watches a stream to its end and asks for something else at once, on one connection to the proxy."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.watching = asyncio.Event()
        self.events: list[bytes] = []

    async def watch(self) -> int:
        """Watch, and ask; the status of the answer."""
        await self._ask("/api/v2/stream?tickers=*")
        async for chunk in self._chunks():
            self.events.append(chunk)
            if b"event: metrics\n" in chunk:
                self.watching.set()
        await self._ask("/health")
        return self._status

    async def ask(self, statuses: list[int]) -> None:
        """Ask for something that is no stream, again and again."""
        while True:
            await self._ask("/health")
            statuses.append(self._status)

    async def _ask(self, path: str) -> None:
        for attempt in range(50):
            try:
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self._port)
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.02 * attempt)
        assert self._streams is not None
        reader, writer = self._streams
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).lower()
        self._status = int(head.split()[1])
        if b"content-length: " in head:
            await reader.readexactly(int(head.split(b"content-length: ")[1].split()[0]))
        if b"connection: close" in head and b"chunked" not in head:
            self.close()

    async def _chunks(self) -> AsyncIterator[bytes]:
        assert self._streams is not None
        reader, _ = self._streams
        while size := int(await asyncio.wait_for(reader.readuntil(b"\r\n"), 10), 16):
            yield (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)

    def close(self) -> None:
        """Leave."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def play(service: Service, port: int) -> list[int]:
    """Streams that end, again and again; the statuses of what was asked right after."""
    viewers, others = [Viewer(port) for _ in range(VIEWERS)], [Viewer(port) for _ in range(OTHERS)]
    statuses: list[int] = []
    asking = [asyncio.create_task(other.ask(statuses)) for other in others]
    for _ in range(ROUNDS):
        watching = [asyncio.create_task(viewer.watch()) for viewer in viewers]
        for viewer in viewers:
            await asyncio.wait_for(viewer.watching.wait(), 10)
            viewer.watching.clear()
        assert all(stream.handed_over for stream in service.parts.streams.open)
        service.parts.streams.end_all("max_age")
        statuses += await asyncio.gather(*watching)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    for other in others:
        other.close()
    for viewer in viewers:
        assert sum(b"event: stream_end" in chunk for chunk in viewer.events) == ROUNDS
        viewer.close()
    return statuses


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_no_request_after_a_streams_end_meets_a_closed_connection(name: str, tmp_path: Path) -> None:
    async def run() -> list[int]:
        async with serving() as service:
            with proxy(name, service.port, tmp_path) as port:
                return await play(service, port)

    with asyncio.Runner(loop_factory=UvloopWithDoors) as runner:
        statuses = runner.run(run())
    assert len(statuses) > ROUNDS * VIEWERS
    assert set(statuses) == {200}
