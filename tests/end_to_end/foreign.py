"""Clients of event streams that nobody here wrote: each a small program of its own, and what it has read."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.processes import clean_environment

CLIENTS = Path(__file__).parent / "clients"
PACKAGES = Path(__file__).parents[1] / "node_modules"
CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))


@dataclass(frozen=True, slots=True)
class Client:
    """A client, as the docs call it, and its program."""

    name: str
    program: str
    package: str = ""
    """Its name on PyPI or npm; the versions there are locked."""

    @property
    def title(self) -> str:
        """Its name and version."""
        return f"{self.name} {self._version}" if self.package else self.name

    @property
    def installed(self) -> bool:
        """Whether it is there."""
        if self.program.endswith(".mjs"):
            return shutil.which("node") is not None and (PACKAGES / self.package).exists()
        if self.name == "Chromium's EventSource":
            return CHROMIUM.exists()
        return self.name != "curl" or shutil.which("curl") is not None

    @property
    def command(self) -> list[str]:
        """What runs it."""
        runs = {".py": sys.executable, ".mjs": "node", ".sh": "bash"}
        path = CLIENTS / self.program
        return [runs[path.suffix], str(path)]

    @property
    def _version(self) -> str:
        if self.program.endswith(".mjs"):
            return str(json.loads((PACKAGES / self.package / "package.json").read_text())["version"])
        return version(self.package)


FOREIGN = (
    Client("Chromium's EventSource", "with_chromium.py"),
    Client("eventsource", "with_eventsource.mjs", "eventsource"),
    Client("eventsource-parser", "with_eventsource_parser.mjs", "eventsource-parser"),
    Client("httpx-sse", "with_httpx_sse.py", "httpx-sse"),
    Client("aiohttp-sse-client2", "with_aiohttp_sse_client2.py", "aiohttp-sse-client2"),
    Client("sseclient-py", "with_sseclient_py.py", "sseclient-py"),
    Client("requests-sse", "with_requests_sse.py", "requests-sse"),
    Client("curl", "with_curl.sh"),
)


@dataclass(slots=True)
class Reader:
    """A client that runs: what it has read so far, and a way to wait for more."""

    client: Client
    events: list[dict[str, Any]] = field(default_factory=list)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, true: Callable[[], bool], seconds: float) -> bool:
        """Whether something comes true of what it has read, in time."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(true)
        except TimeoutError:
            return False
        return True

    def named(self, name: str) -> list[dict[str, Any]]:
        """Its events of a name."""
        return [event for event in self.events if event["event"] == name]

    async def listen(self, output: asyncio.StreamReader) -> None:
        """Take in the lines that its program prints."""
        while line := await output.readline():
            async with self._changed:
                self.events.append(json.loads(line))
                self._changed.notify_all()


@asynccontextmanager
async def reading(client: Client, url: str, *words: str, user: str = "alice") -> AsyncIterator[Reader]:
    """A client that reads; its processes are gone at the end."""
    process = await _start([*client.command, url, user, *words])
    assert process.stdout is not None
    reader = Reader(client)
    listening = asyncio.create_task(reader.listen(process.stdout))
    try:
        yield reader
    finally:
        listening.cancel()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _start(command: Sequence[str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        env=clean_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 22,
        start_new_session=True,
    )
