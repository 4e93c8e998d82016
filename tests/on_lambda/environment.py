"""One execution environment of Lambda's: the real Web Adapter, the service as its image starts it, and the double.

Lambda's own order: extensions first, then the function's process. It ends with SIGTERM for the process and SIGKILL
0.6 s later (a third of the two seconds that an external extension earns it); an invocation that reaches its deadline
ends the environment the same way, after its answer has been cut off.
"""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.infra.dockerfile import stages
from tests.on_lambda.runtime_api import FunctionUrl, Invocation, RuntimeApi, url_event
from tests.processes import clean_environment, free_port

ADAPTER = Path(__file__).parents[1] / ".cargo" / "bin" / "lambda-adapter"
INSTALL = "cargo install lambda_web_adapter --version 1.0.0-rc1 --locked --root tests/.cargo"
TERM_SECONDS = 0.6


def adapter() -> str:
    """The adapter's program; skips the test where it is missing."""
    found = os.environ.get("LAMBDA_ADAPTER") or shutil.which(ADAPTER)
    if not found:
        pytest.skip(f"the Lambda Web Adapter is not installed: {INSTALL}")
    return found


def image_command() -> list[str]:
    """What the image starts, with the interpreter that runs the tests."""
    program, *arguments = stages()[-1].command()
    assert program == "python"
    return [sys.executable, *arguments]


def image_environment() -> dict[str, str]:
    """The variables that the image sets, but for the path to what lies in it."""
    return {name: value for name, value in stages()[-1].environment().items() if name != "PATH"}


class Environment:
    """A running environment. `api` is the double; `url` is the port of its Function URL."""

    def __init__(
        self,
        settings: Mapping[str, str],
        logs: Path,
        *,
        timeout: float = 30.0,
        concurrency: int | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self.api = RuntimeApi(timeout, self._expired)
        self.function_url = FunctionUrl(self.api)
        self.port = free_port()
        self.ended: asyncio.Task[float] | None = None
        """Set when a deadline has ended the environment."""
        self._settings = dict(settings)
        self._logs = logs
        self._command = list(command or image_command())
        self._concurrency = concurrency
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    @property
    def app(self) -> asyncio.subprocess.Process:
        """The service."""
        return self._processes["app"]

    @property
    def adapter(self) -> asyncio.subprocess.Process:
        """The adapter."""
        return self._processes["adapter"]

    async def invoke(self, path: str, *, source_ip: str = "203.0.113.7", **headers: str) -> Invocation:
        """Send a request to the URL, and wait for the beginning of its answer. `X_User_ID` is `X-User-ID`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.api.invoke(url_event(path, headers=named, source_ip=source_ip))

    async def start(self) -> None:
        """Start the adapter."""
        await self.api.start()
        await self.function_url.start()
        await self._run("adapter", [adapter()])

    async def start_app(self) -> None:
        """Start the service; returns when the adapter has found it ready."""
        await self._run("app", self._command)
        await asyncio.wait_for(self.api.asked.wait(), 20)

    def freeze(self) -> None:
        """Stop both processes, as Lambda does between invocations."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    async def shut_down(self) -> float:
        """End it as Lambda does; gives the seconds that the service took, `TERM_SECONDS` if it had to be killed."""
        began = time.monotonic()
        with suppress(ProcessLookupError):
            self.app.terminate()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.app.wait(), TERM_SECONDS)
        took = time.monotonic() - began
        self.kill("app")
        await self.app.wait()
        if self.api.shut_down():
            with suppress(TimeoutError):
                await asyncio.wait_for(self.adapter.wait(), 1)
        self.kill("adapter")
        await self.adapter.wait()
        return took

    def kill(self, *names: str) -> None:
        """End processes at once, or all of them."""
        for name in names or tuple(self._processes):
            if name in self._processes and self._processes[name].returncode is None:
                self._processes[name].kill()

    async def stop(self) -> None:
        """Leave nothing behind."""
        if self.ended is not None:
            await self.ended
        self.kill("adapter")  # first: without the double it would ask again and again
        self.kill()
        for process in self._processes.values():
            await process.wait()
        await self.function_url.stop()
        await self.api.stop()

    def output(self) -> str:
        """What the service has written."""
        return (self._logs / "app.log").read_text()

    async def _run(self, name: str, command: Sequence[str]) -> None:
        self._logs.mkdir(exist_ok=True)
        with (self._logs / f"{name}.log").open("wb") as log:
            self._processes[name] = await asyncio.create_subprocess_exec(
                *command, env=self._environment(), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _environment(self) -> dict[str, str]:
        several = {} if self._concurrency is None else {"AWS_LAMBDA_MAX_CONCURRENCY": str(self._concurrency)}
        return {
            **clean_environment(),
            **image_environment(),
            **self.api.environment(),
            "AWS_LWA_PORT": str(self.port),
            **several,
            **self._settings,
        }

    def _signal(self, number: int) -> None:
        for process in self._processes.values():
            process.send_signal(number)

    def _expired(self, _: Invocation) -> None:
        self.ended = asyncio.create_task(self.shut_down())


@asynccontextmanager
async def environment(
    settings: Mapping[str, str],
    logs: Path,
    *,
    function_timeout: float = 30.0,
    concurrency: int | None = None,
    command: Sequence[str] | None = None,
) -> AsyncIterator[Environment]:
    """An environment that is ready, and gone at the end."""
    made = Environment(settings, logs, timeout=function_timeout, concurrency=concurrency, command=command)
    try:
        await made.start()
        await made.start_app()
        yield made
    finally:
        await made.stop()
