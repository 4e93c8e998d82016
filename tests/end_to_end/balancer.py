"""A real balancer in front of some instances: haproxy as a process of its own, set up as one would for streams."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from signal import Signals

import pytest

from tests.processes import clean_environment, eventually, free_port
from tests.served import is_healthy

CONFIGURATION = """
global
{tuning}    maxconn 4000
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


class Balancer:
    """Haproxy over the instances that listen on some ports, whoever they are: a process that can be killed, and started
    again at the same port.

    `tuning`: lines for its `global` section.
    """

    def __init__(self, ports: Sequence[int], directory: Path, tuning: str = "") -> None:
        self.port = free_port()
        self._configuration = directory / "haproxy.cfg"
        self._log = directory / "haproxy.log"
        servers = "\n".join(f"    server instance{number} 127.0.0.1:{each}" for number, each in enumerate(ports))
        self._configuration.write_text(CONFIGURATION.format(port=self.port, servers=servers, tuning=tuning))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it lets somebody through."""
        command = ["haproxy", "-db", "-f", str(self._configuration)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=clean_environment())
        assert eventually(lambda: is_healthy(self.port)), self._log.read_text()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def signal(self, number: Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)


@contextmanager
def balancer(ports: Sequence[int], directory: Path) -> Iterator[int]:
    """A balancer that is gone at the end; gives its port."""
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed: apt-get install haproxy")
    made = Balancer(ports, directory)
    try:
        made.start()
        yield made.port
    finally:
        made.kill()
