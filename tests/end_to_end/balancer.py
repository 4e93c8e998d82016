"""A real balancer in front of some instances: haproxy as a process of its own, set up as one would for streams."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import clean_environment, eventually, free_port
from tests.served import is_healthy

CONFIGURATION = """
global
    maxconn 4000
defaults
    mode http
    option http-keep-alive
    option redispatch
    retries 2
    timeout connect 2s
    timeout check 2s
    timeout client 60s
    timeout server 60s
frontend viewers
    bind 127.0.0.1:{port}
    default_backend instances
backend instances
    balance leastconn
    option httpchk GET /health
    default-server check inter 250ms fall 2 rise 1 maxconn 2000
{servers}
"""


@contextmanager
def balancer(ports: Sequence[int], directory: Path) -> Iterator[int]:
    """Haproxy over the instances that listen on these ports, whoever they are; gives its own port."""
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed: apt-get install haproxy")
    port = free_port()
    servers = "\n".join(f"    server instance{number} 127.0.0.1:{each}" for number, each in enumerate(ports))
    configuration = directory / "haproxy.cfg"
    configuration.write_text(CONFIGURATION.format(port=port, servers=servers))
    with (
        (directory / "haproxy.log").open("wb") as log,
        subprocess.Popen(
            ["haproxy", "-db", "-f", str(configuration)], stdout=log, stderr=log, env=clean_environment()
        ) as process,
    ):
        try:
            assert eventually(lambda: is_healthy(port)), (directory / "haproxy.log").read_text()
            yield port
        finally:
            process.kill()
