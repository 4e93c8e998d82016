"""The stage: two instances behind a balancer, a table behind a proxy for each, and everything that is done to them."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

from tests.dynamodb import Tables, moto_server, tables_at
from tests.end_to_end.balancer import Balancer
from tests.end_to_end.readers import come_and_go
from tests.feed.fault_proxy import (
    Fault as Answers,
)
from tests.feed.fault_proxy import (
    FaultProxy,
    Request,
    breaking,
    every,
    fault_proxy,
    half_an_answer,
    server_error,
    throttling,
)
from tests.processes import free_port
from tests.proof.chaos.history import Episode
from tests.proof.chaos.instance import MODULE, held_by
from tests.proof.chaos.link import Link, State
from tests.proof.chaos.news import News
from tests.proof.chaos.plan import INSTANCES, Fault, Planned
from tests.proof.chaos.readers import Wish
from tests.served import Served

BURST, BURST_SECONDS = 40.0, 3.5
"""Wide items a second, and for how long: 300 KB for who asked for everything, more than a stream's buffers hold."""
ABORTING = 10
"""So many at a time."""
READ_BUDGETS = ("10000", "60")
"""Of each instance: one reads the window whole every time, the other sweeps it once it holds some hundred items."""
STOPPED_WITHIN = 5.0
"""Seconds from SIGTERM to the end: two, on a busy machine."""
HEARTBEAT = 2.0
SETTINGS = {
    "SSE_MAX_CONNECTIONS": "2000",
    "SSE_POLL_INTERVAL": "1",
    "SSE_HEARTBEAT_INTERVAL": str(HEARTBEAT),
    "SSE_RETRY_MS": "2000",
    "SSE_DRAIN_SECONDS": "5",
    "SSE_BACKLOG_BYTES": "16384",
    "SSE_ALLOWED_HOSTS": "127.0.0.1,localhost",
    "SSE_AUTH": "header",
    "SSE_METRICS": "off",
}


SMALL_BUFFERS = "    tune.rcvbuf.server 8192\n    tune.sndbuf.client 8192\n"
"""So that a slow reader is felt behind the balancer too."""


class Instance:
    """One place where an instance runs: the process that does now, and its own ways to the table and the balancer."""

    def __init__(
        self, number: int, tables: Tables, proxy: FaultProxy, settings: Mapping[str, str], directory: Path
    ) -> None:
        self.proxy = proxy
        self.port = free_port()
        self.link = Link(self.port)
        self._number = number
        self._tables = replace(tables, endpoint=proxy.endpoint)
        self._settings = {**SETTINGS, "SSE_READ_BUDGET": READ_BUDGETS[number], **settings}
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
        environment = self._tables.environment() | self._settings
        environment |= {"PORT": str(self.port), "CHAOS_CONTROL": str(self.control)}
        log = self._directory / f"instance-{self._number}-{self._starts}.log"
        self._served = await asyncio.to_thread(Served, environment, log, program=("-m", MODULE))
        await asyncio.to_thread(self._served.wait_until_healthy)
        self.at_first = await held_by(self.control)

    async def stop(self) -> None:
        """End it by SIGTERM, which must not take long."""
        status, seconds = await asyncio.to_thread(self.served.terminate)
        assert (status, seconds < STOPPED_WITHIN) == (0, True), (status, seconds)

    def kill(self) -> None:
        """End it at once."""
        self.served.kill()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.served.pid, number)


class Stage:
    """All that takes part but the readers, and a verb for each kind of fault."""

    def __init__(
        self, tables: Tables, instances: list[Instance], balancer: Balancer, directory: Path, seed: int
    ) -> None:
        self.tables = tables
        self.news = News(tables, seed)
        self.instances = instances
        self.balancer = balancer
        self.viewers = Link(balancer.port)
        """The way to the balancer that one in four readers takes."""
        self.directory = directory
        """Where the logs are."""
        self.chance = random.Random(seed)
        self._verbs: dict[str, Callable[[Fault], Awaitable[None]]] = {
            "kill": self._kill,
            "restart": self._restart,
            "roll": self._roll,
            "freeze": self._freeze,
            "cut": partial(self._link, "refusing"),
            "swallow": partial(self._link, "swallowing"),
            "throttle": partial(self._answer, every(2, throttling)),
            "fail": partial(self._answer, server_error),
            "break": partial(self._answer, self._broken),
            "hang": self._hang,
            "refuse": self._refuse,
            "cut viewers": partial(self._link_viewers, "refusing"),
            "swallow viewers": partial(self._link_viewers, "swallowing"),
            "slow viewers": self._slow_viewers,
            "come and go": self._come_and_go,
            "kill balancer": self._kill_balancer,
            "freeze balancer": self._freeze_balancer,
        }

    @property
    def origins(self) -> list[str]:
        """Where readers come: three in four lead straight to the balancer."""
        ports = [self.balancer.port] * 3 + [self.viewers.port]
        return [f"http://127.0.0.1:{port}" for port in ports]

    async def configure(self, asked: Sequence[Wish]) -> None:
        """Write the configurations that readers will ask for."""
        for wish in asked:
            if wish.user is not None:
                await self.tables.configure(wish.user, wish.user, *wish.tickers or ())

    async def inflict(self, planned: Planned) -> Episode:
        """Let an episode happen; it has ended when everything works again."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in planned.faults:
                group.create_task(self._inflict(fault))
        kinds = tuple(fault.kind.name for fault in planned.faults)
        hides = [fault.kind.hides for fault in planned.faults if fault.kind.hides is not None]
        ended = time.monotonic()
        return Episode(kinds, began, ended, ended + max(hides) if hides else None)

    async def _inflict(self, fault: Fault) -> None:
        await asyncio.sleep(fault.after)
        await self._verbs[fault.kind.name](fault)

    def _targets(self, fault: Fault) -> list[Instance]:
        return [self.instances[target] for target in fault.targets]

    async def _kill(self, fault: Fault) -> None:
        """`kill -9`, and a fresh process some seconds later."""
        for instance in self._targets(fault):
            instance.kill()
        await asyncio.sleep(fault.seconds)
        await asyncio.gather(*(instance.start() for instance in self._targets(fault)))

    async def _restart(self, fault: Fault) -> None:
        """SIGTERM, and a fresh process some seconds after the old one has ended."""
        await asyncio.gather(*(instance.stop() for instance in self._targets(fault)))
        await asyncio.sleep(fault.seconds)
        await asyncio.gather(*(instance.start() for instance in self._targets(fault)))

    async def _roll(self, fault: Fault) -> None:
        """SIGTERM and a fresh process, one instance after the other."""
        for instance in self.instances:
            await instance.stop()
            await instance.start()
            await asyncio.sleep(fault.seconds)

    async def _freeze(self, fault: Fault) -> None:
        """SIGSTOP, and SIGCONT."""
        for instance in self._targets(fault):
            instance.signal(signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        for instance in self._targets(fault):
            instance.signal(signal.SIGCONT)

    async def _link(self, state: State, fault: Fault) -> None:
        """Nothing comes through between the balancer and an instance."""
        links = [instance.link for instance in self._targets(fault)]
        for link in links:
            await link.set(state)
        await asyncio.sleep(fault.seconds)
        for link in links:
            await link.set("open")

    async def _link_viewers(self, state: State, fault: Fault) -> None:
        """Nothing, or little, comes through between some of the readers and the balancer."""
        await self.viewers.set(state)
        await asyncio.sleep(fault.seconds)
        await self.viewers.set("open")

    async def _slow_viewers(self, fault: Fault) -> None:
        """Little comes through to some of the readers, while there is much to say."""
        self.news.rate, self.news.wide = self.news.rate + BURST, True
        slowing = asyncio.create_task(self._link_viewers("slow", fault))
        await asyncio.sleep(BURST_SECONDS)
        self.news.rate, self.news.wide = self.news.rate - BURST, False
        await slowing

    async def _answer(self, answer: Answers, fault: Fault) -> None:
        """The table answers like this."""
        proxies = [instance.proxy for instance in self._targets(fault)]
        for proxy in proxies:
            proxy.fault = answer
        await asyncio.sleep(fault.seconds)
        for proxy in proxies:
            proxy.fault = None

    async def _hang(self, fault: Fault) -> None:
        """The table does not answer, until it can be reached again: then whoever still waits has an answer."""
        reached = asyncio.Event()

        async def late(_: Request) -> None:
            await reached.wait()

        try:
            await self._answer(late, fault)
        finally:
            reached.set()

    async def _broken(self, request: Request) -> bytes | None:
        """One of the ways in which a connection breaks, or none."""
        answer = self.chance.choice((half_an_answer, breaking, None))
        return await answer(request) if answer is not None else None

    async def _refuse(self, fault: Fault) -> None:
        """The table lets nobody in."""
        proxies = [instance.proxy for instance in self._targets(fault)]
        for proxy in proxies:
            await proxy.refuse()
        await asyncio.sleep(fault.seconds)
        for proxy in proxies:
            await proxy.accept()

    async def _come_and_go(self, fault: Fault) -> None:
        """Many connect and break off, at the balancer and at the instances."""
        end = time.monotonic() + fault.seconds
        ports = [self.balancer.port, *(instance.port for instance in self.instances)]

        async def one_after_another() -> None:
            while time.monotonic() < end:
                with suppress(OSError, EOFError):
                    await come_and_go(self.chance.choice(ports), self.chance)
                await asyncio.sleep(0.02)  # where nobody listens it takes no time

        await asyncio.gather(*(one_after_another() for _ in range(ABORTING)))

    async def _kill_balancer(self, fault: Fault) -> None:
        """`kill -9` of the balancer, and a fresh one some seconds later."""
        self.balancer.kill()
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(self.balancer.start)

    async def _freeze_balancer(self, fault: Fault) -> None:
        """SIGSTOP and SIGCONT of the balancer."""
        self.balancer.signal(signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        self.balancer.signal(signal.SIGCONT)


@asynccontextmanager
async def stage(seed: int, settings: Mapping[str, str]) -> AsyncIterator[Stage]:
    """A stage with everything running on it, by these settings of the service; all that stays of it are its logs."""
    directory = Path(mkdtemp(prefix="quartsse-chaos-"))
    async with AsyncExitStack() as stack:
        endpoint = stack.enter_context(moto_server())
        tables = stack.enter_context(tables_at(endpoint))
        proxies = [await stack.enter_async_context(fault_proxy(endpoint)) for _ in range(INSTANCES)]
        instances = [Instance(number, tables, proxy, settings, directory) for number, proxy in enumerate(proxies)]
        for instance in instances:
            await instance.start()
            stack.callback(instance.kill)
            await instance.link.start()
            stack.push_async_callback(instance.link.stop)
        balancer = Balancer([instance.link.port for instance in instances], directory, SMALL_BUFFERS)
        stack.callback(balancer.kill)
        await asyncio.to_thread(balancer.start)
        made = Stage(tables, instances, balancer, directory, seed)
        await made.viewers.start()
        stack.push_async_callback(made.viewers.stop)
        yield made
