"""The service as a process: `python -m quartsse serve`, as a user starts it."""

import http.client
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.processes import clean_environment, eventually, free_port

START_SECONDS = 20.0
STOP_SECONDS = 20.0


class Served:
    """A running service. Warnings of Python's are errors in it.

    Its verbs block; a test whose own loop must go on meanwhile uses `asyncio.to_thread(served.terminate)`.
    """

    def __init__(
        self, settings: Mapping[str, str], log: Path, *, program: Sequence[str] = ("-m", "quartsse", "serve")
    ) -> None:
        self.port = int(settings.get("PORT") or free_port())
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", *program],
                env={**clean_environment(), **settings, "PORT": str(self.port)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    def output(self) -> list[str]:
        """The lines that it has written so far, to either output."""
        return self._log.read_text(errors="replace").splitlines()

    def wait_until_healthy(self) -> None:
        """Return as soon as it answers; fails with what it wrote if it ends instead."""
        eventually(lambda: self.status is not None or self._healthy(), START_SECONDS)
        assert self.status is None, f"ended with {self.status}: {self.output()}"
        assert self._healthy(), f"not healthy within {START_SECONDS:g} s: {self.output()}"

    def terminate(self) -> tuple[int, float]:
        """Send SIGTERM and wait for the end: the exit status, and how many seconds that took."""
        began = time.monotonic()
        self._process.terminate()
        return self._process.wait(STOP_SECONDS), time.monotonic() - began

    def kill(self) -> None:
        """End it as `kill -9` does, if it still runs."""
        self._process.kill()
        self._process.wait()

    def _healthy(self) -> bool:
        return is_healthy(self.port)


def is_healthy(port: int) -> bool:
    """Whether a service answers on a port."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
