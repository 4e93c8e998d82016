"""The stage: two instances behind a balancer, a table behind a proxy for each, and everything that is done to them."""

import asyncio
import os
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

from tests.dynamodb import Tables, moto_server, tables_at
from tests.end_to_end.balancer import CONFIGURATION
from tests.feed.fault_proxy import FaultProxy, fault_proxy
from tests.processes import clean_environment, eventually, free_port
from tests.proof.chaos.history import Episode
from tests.proof.chaos.instance import MODULE, held_by
from tests.proof.chaos.news import News
from tests.proof.chaos.plan import INSTANCES, Fault, Planned
from tests.served import Served, is_healthy

HEARTBEAT = 2.0
SETTINGS = {
    "SSE_MAX_CONNECTIONS": "2000",
    "SSE_READ_BUDGET": "10000",
    "SSE_POLL_INTERVAL": "1",
    "SSE_HEARTBEAT_INTERVAL": str(HEARTBEAT),
    "SSE_RETRY_MS": "2000",
    "SSE_DRAIN_SECONDS": "5",
    "SSE_BACKLOG_BYTES": "16384",
    "SSE_ALLOWED_HOSTS": "127.0.0.1,localhost",
    "SSE_AUTH": "header",
    "SSE_METRICS": "off",
}


class Instance:
    """One place where an instance runs: the process that does now, its port, and its own way to the table."""

    def __init__(self, number: int, tables: Tables, proxy: FaultProxy, directory: Path) -> None:
        self.proxy = proxy
        self.port = free_port()
        self._number = number
        self._tables = replace(tables, endpoint=proxy.endpoint)
        self._directory = directory
        self._starts = 0
        self._served: Served | None = None
        self.at_first: dict[str, int] = {}
        """What it held when it had just begun."""

    @property
    def control(self) -> Path:
        """Where it can be asked what it holds."""
        return self._directory / f"control-{self._number}-{self._starts}"

    @property
    def served(self) -> Served:
        """The process."""
        assert self._served is not None
        return self._served

    async def start(self) -> None:
        """Start it, at the same port each time, and wait until it answers."""
        self._starts += 1
        environment = self._tables.environment() | SETTINGS
        environment |= {"PORT": str(self.port), "CHAOS_CONTROL": str(self.control)}
        log = self._directory / f"instance-{self._number}-{self._starts}.log"
        self._served = await asyncio.to_thread(Served, environment, log, program=("-m", MODULE))
        await asyncio.to_thread(self._served.wait_until_healthy)
        self.at_first = await held_by(self.control)

    def kill(self) -> None:
        """End it at once."""
        self.served.kill()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.served.pid, number)


class Balancer:
    """Haproxy over the instances, as a process that can be killed too."""

    def __init__(self, ports: list[int], directory: Path) -> None:
        self.port = free_port()
        self._configuration = directory / "haproxy.cfg"
        self._log = directory / "haproxy.log"
        servers = "\n".join(f"    server instance{number} 127.0.0.1:{each}" for number, each in enumerate(ports))
        self._configuration.write_text(CONFIGURATION.format(port=self.port, servers=servers))
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, and wait until it lets somebody through."""
        with self._log.open("ab") as log:
            self._process = await asyncio.to_thread(
                subprocess.Popen,
                ["haproxy", "-db", "-f", str(self._configuration)],
                stdout=log, stderr=log, env=clean_environment(),
            )  # fmt: skip
        assert await asyncio.to_thread(eventually, lambda: is_healthy(self.port)), self._log.read_text()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)


class Stage:
    """All that takes part but the readers, and a verb for each kind of fault."""

    def __init__(self, news: News, instances: list[Instance], balancer: Balancer, directory: Path, seed: int) -> None:
        self.news = news
        self.instances = instances
        self.balancer = balancer
        self.directory = directory
        """Where the logs are."""
        self.chance = random.Random(seed)
        self._verbs: dict[str, Callable[[Fault], Awaitable[None]]] = {"kill": self._kill}

    @property
    def urls(self) -> list[str]:
        """The addresses of the stream, one for every way to it."""
        return [f"http://127.0.0.1:{self.balancer.port}/api/v2/stream"]

    async def inflict(self, planned: Planned) -> Episode:
        """Let an episode happen; it has ended when everything works again."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in planned.faults:
                group.create_task(self._inflict(fault))
        kinds = tuple(fault.kind.name for fault in planned.faults)
        blinding = any(fault.kind.blinding for fault in planned.faults)
        return Episode(kinds, began, time.monotonic(), blinding)

    async def _inflict(self, fault: Fault) -> None:
        await asyncio.sleep(fault.after)
        await self._verbs[fault.kind.name](fault)

    async def _kill(self, fault: Fault) -> None:
        """`kill -9`, and a fresh process some seconds later."""
        instances = [self.instances[target] for target in fault.targets]
        for instance in instances:
            instance.kill()
        await asyncio.sleep(fault.seconds)
        await asyncio.gather(*(instance.start() for instance in instances))


@asynccontextmanager
async def stage(seed: int) -> AsyncIterator[Stage]:
    """A stage with everything running on it; all of it is gone afterwards, but for its logs."""
    directory = Path(mkdtemp(prefix="quartsse-chaos-"))
    async with AsyncExitStack() as stack:
        endpoint = stack.enter_context(moto_server())
        tables = stack.enter_context(tables_at(endpoint))
        proxies = [await stack.enter_async_context(fault_proxy(endpoint)) for _ in range(INSTANCES)]
        instances = [Instance(number, tables, proxy, directory) for number, proxy in enumerate(proxies)]
        for instance in instances:
            await instance.start()
            stack.callback(instance.kill)
        balancer = Balancer([instance.port for instance in instances], directory)
        stack.callback(balancer.kill)
        await balancer.start()
        yield Stage(News(tables, seed), instances, balancer, directory, seed)
