"""What the contract is held against: a deployment, or the service here, directly and behind what stands in front."""

import asyncio
import http.client
import re
import shutil
import subprocess
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.on_lambda.environment import Environment, adapter
from tests.processes import clean_environment, eventually, free_port
from tests.served import Served

PROXIES = Path(__file__).parents[2] / "docs" / "proxies.md"

NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {documented}
}}
"""


@contextmanager
def served(settings: Mapping[str, str], folder: Path) -> Iterator[str]:
    """The service itself; gives its address."""
    service = Served(settings, folder / "service.log")
    try:
        service.wait_until_healthy()
        yield service.url
    finally:
        service.kill()


@contextmanager
def behind_nginx(settings: Mapping[str, str], folder: Path, changes: Mapping[str, str] | None = None) -> Iterator[str]:
    """The service behind nginx, with the configuration that the docs print, or with parts of it changed."""
    program = _program("nginx")
    with served(settings, folder) as url:
        port = free_port()
        written = _documented("nginx", url, {"listen 80;": f"listen 127.0.0.1:{port};", **(changes or {})})
        configuration = folder / "nginx.conf"
        configuration.write_text(NGINX.format(folder=folder, documented=written))
        with _running([program, "-p", str(folder), "-e", "stderr", "-c", str(configuration)], port):
            yield f"http://localhost:{port}"


@contextmanager
def behind_haproxy(settings: Mapping[str, str], folder: Path) -> Iterator[str]:
    """The service behind HAProxy, likewise."""
    program = _program("haproxy")
    with served(settings, folder) as url:
        port = free_port()
        configuration = folder / "haproxy.cfg"
        configuration.write_text(_documented("haproxy", url, {"bind :80\n": f"bind 127.0.0.1:{port}\n"}))
        with _running([program, "-db", "-q", "-f", str(configuration)], port):
            yield f"http://localhost:{port}"


@contextmanager
def behind_the_adapter(settings: Mapping[str, str], folder: Path) -> Iterator[str]:
    """The service on a double of Lambda, many viewers at once; the double's loop runs in a thread."""
    adapter()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def wait_for(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(30)

    # SSE_IDLE_GRACE as on Managed Instances: nothing is frozen between these requests.
    it = Environment({**settings, "SSE_IDLE_GRACE": "30"}, folder / "lambda", concurrency=32)
    try:
        wait_for(it.start())
        wait_for(it.start_app())
        yield f"http://127.0.0.1:{it.function_url.port}"
    finally:
        wait_for(it.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _documented(language: str, upstream: str, replaced: Mapping[str, str]) -> str:
    """A configuration out of the docs, with this machine's ports."""
    found = re.search(rf"<!-- tested: {language} -->\n```{language}\n(.*?)```", PROXIES.read_text(), re.DOTALL)
    assert found is not None
    written = found[1]
    for old, new in {"127.0.0.1:8080": upstream.removeprefix("http://"), **replaced}.items():
        assert old in written
        written = written.replace(old, new)
    return written


def _program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    with subprocess.Popen(command, env=clean_environment(), stdin=subprocess.DEVNULL) as process:
        try:
            assert eventually(lambda: process.poll() is not None or _answers(port))
            assert process.poll() is None
            yield
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
