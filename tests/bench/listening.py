"""The load generator, from this side."""

import json
import queue
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from tests.bench.machine import CLIENT_CORE, pinned

LONGEST_SECONDS = 900.0


class Load:
    """Open streams, as many as one likes, that count what they get. Ended in any case after `LONGEST_SECONDS`."""

    def __init__(self, binary: Path, port: int, count: int, paths: Sequence[str], *, gzip: bool = False) -> None:
        self.count = count
        self._process = subprocess.Popen(
            [str(binary), *(["-z"] if gzip else []), str(port), str(count), *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=pinned(CLIENT_CORE),  # noqa: PLW1509 - the other thread only waits
            text=True,
            bufsize=1,
        )
        self._limit = threading.Timer(LONGEST_SECONDS, self._process.kill)
        self._limit.daemon = True
        self._limit.start()
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        answer = json.loads(self._line(LONGEST_SECONDS))
        self.connected: int = answer["connected"]
        self.connect_seconds: float = answer["seconds"]

    def reset(self) -> None:
        """Forget what was counted."""
        self._say("reset")

    def report(self) -> dict[str, Any]:
        """What was counted."""
        self._say("report")
        while not (line := self._line()).startswith("{"):
            pass  # acknowledgements that nobody waits for any more
        counted: dict[str, Any] = json.loads(line)
        return counted

    def acks(self, seconds: float) -> Iterator[int | None]:
        """The numbers of events that everybody has, as they get there, for so many seconds.

        None when there was none for a second: something was lost on the way.
        """
        self._say("acks")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                yield int(self._line(1).split()[1])
            except queue.Empty:
                yield None
        self._say("quiet")

    def _say(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _line(self, seconds: float = 30) -> str:
        """The next line. Raises queue.Empty when there is none in time."""
        line = self._lines.get(timeout=seconds)
        if not line:
            raise RuntimeError(f"the load generator ended with {self._process.wait()}")
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._limit.cancel()
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
