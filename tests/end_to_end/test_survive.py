"""What a stream survives: peers that go without a word, an instance that dies, deploys, and a day of all that."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression
from typing import ClassVar

import pytest

from quartsse.client import ServerEvent, State
from quartsse.web.server import USER_TIMEOUT_MS
from tests.dynamodb import Tables
from tests.end_to_end.balancer import balancer
from tests.end_to_end.crowd import Crowd, News, Viewer, crowd, judge, wrong_states
from tests.end_to_end.hosted import Hosted
from tests.end_to_end.namespaces import Elsewhere
from tests.end_to_end.readers import come_and_go, open_stream, pipelining_reader, read_until, stopped_reader
from tests.processes import free_port
from tests.served import Served

type Host = Callable[..., Hosted]
type Serve = Callable[..., Served]

HEARTBEAT = 0.5
SOON = HEARTBEAT + 2

VIEWERS = 500
RATE = 20.0
DRAIN = 10
RESUME_MARGIN = 5
BACK = 10.0
"""Seconds in which everyone has to be back."""


async def until_left(hosted: Hosted, seconds: float) -> float:
    """Wait until no slot is taken; gives how long that took."""
    began = time.monotonic()
    while (held := await hosted.held())["slots"]:
        assert time.monotonic() - began < seconds, held
        await asyncio.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.parametrize("handover", ["1", "0"], ids=["handed-over", "iterator"])
@pytest.mark.parametrize("how", ["closed", "half-closed"])
async def test_a_peer_that_has_pipelined_a_byte_and_goes_frees_its_slot_soon(
    host: Host, how: str, handover: str
) -> None:
    hosted = await asyncio.to_thread(host, SSE_HEARTBEAT_INTERVAL=str(HEARTBEAT), SSE_HANDOVER=handover)
    tasks = (await hosted.held())["tasks"]
    peers = [await asyncio.to_thread(pipelining_reader, hosted) for _ in range(20)]
    assert (await hosted.held())["slots"] == 20
    for sock in peers:
        if how == "closed":
            sock.close()
        else:
            sock.shutdown(1)
    await until_left(hosted, SOON)
    await asyncio.sleep(0.5)  # a task that is reaped has had its moment
    assert (await hosted.held())["tasks"] <= tasks
    for sock in peers:
        sock.close()


@pytest.mark.parametrize("handover", ["1", "0"], ids=["handed-over", "iterator"])
async def test_a_peer_that_half_closes_frees_its_slot_soon(host: Host, handover: str) -> None:
    hosted = await asyncio.to_thread(host, SSE_HEARTBEAT_INTERVAL=str(HEARTBEAT), SSE_HANDOVER=handover)
    peers = [await asyncio.to_thread(stopped_reader, hosted) for _ in range(20)]
    for sock in peers:
        await asyncio.to_thread(read_until, sock, b"event: metrics")
        sock.shutdown(1)
    await until_left(hosted, SOON)
    for sock in peers:
        sock.close()


@pytest.mark.parametrize("handover", ["1", "0"], ids=["handed-over", "iterator"])
async def test_a_peer_that_crashed_and_is_up_again_frees_its_slot_with_the_next_heartbeat(
    host: Host, away: Elsewhere, handover: str
) -> None:
    hosted = await asyncio.to_thread(host, HOST="0.0.0.0", SSE_HEARTBEAT_INTERVAL=str(HEARTBEAT), SSE_HANDOVER=handover)
    await asyncio.to_thread(away.streams, hosted.port, 20)
    await asyncio.to_thread(away.vanish)
    away.crash()
    assert (await hosted.held())["slots"] == 20, "half-open: this side knows of nothing"
    await asyncio.to_thread(away.return_)
    await until_left(hosted, SOON)


@pytest.mark.slow
async def test_a_peer_that_vanishes_frees_its_slot_when_its_kernel_has_been_silent_too_long(
    host: Host, away: Elsewhere
) -> None:
    hosted = await asyncio.to_thread(host, HOST="0.0.0.0", SSE_HEARTBEAT_INTERVAL=str(HEARTBEAT))
    await asyncio.to_thread(away.streams, hosted.port, 20)
    await asyncio.to_thread(away.vanish)
    seconds = await until_left(hosted, USER_TIMEOUT_MS / 1000 + SOON + 5)
    print(f"20 vanished readers are gone after {seconds:.1f} s")


# Two instances behind a balancer, and a crowd; the table is the truth


@dataclass
class Deployment:
    """Instances that can be killed, started again where they were, and joined by others; a balancer in front."""

    start: Callable[[int], Served]
    instances: list[Served]
    spare: list[int]
    """Ports that the balancer knows and nobody listens on yet."""
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v2/stream"

    async def restart(self, number: int) -> None:
        """Start an instance again that has ended."""
        self.instances[number] = await asyncio.to_thread(self.start, self.instances[number].port)

    async def restart_when_gone(self, old: Served) -> None:
        """Start another one where one ran, as soon as that has ended."""
        while old.status is None:
            await asyncio.sleep(0.02)
        self.instances.append(await asyncio.to_thread(self.start, old.port))

    async def add(self) -> None:
        """Start one more; it reads the table as soon as somebody looks at it, as a deploy's last check does."""
        self.instances.append(await asyncio.to_thread(self.start, self.spare.pop()))
        (await open_stream(self.instances[-1])).close()


@pytest.fixture
async def deployment(serve: Serve, tmp_path: Path) -> AsyncIterator[Deployment]:
    """Two instances of the service over the test's own table."""

    def start(port: int) -> Served:
        return serve(
            PORT=str(port),
            SSE_MAX_CONNECTIONS="2000",
            SSE_READ_BUDGET="10000",
            SSE_RETRY_MS="3000",
            SSE_DRAIN_SECONDS=str(DRAIN),
            SSE_RESUME_MARGIN=str(RESUME_MARGIN),
            SSE_ALLOWED_HOSTS="127.0.0.1,localhost",
        )

    instances = [await asyncio.to_thread(start, free_port()) for _ in range(2)]
    spare = [free_port() for _ in range(2)]
    with balancer([*(served.port for served in instances), *spare], tmp_path) as port:
        yield Deployment(start, instances, spare, port)


@asynccontextmanager
async def watched(deployment: Deployment, table: Tables, seconds: float) -> AsyncIterator[tuple[Crowd, News]]:
    """A crowd that is complete, and news that go on for so many seconds; after the block, all of it has been heard."""
    news = News(table)
    async with crowd(deployment.url, VIEWERS) as viewers:
        await viewers.all_back(60)
        await asyncio.sleep(2)
        writing = asyncio.create_task(news.write(RATE, seconds))
        try:
            await asyncio.sleep(10)
            yield viewers, news
            await writing
        finally:
            writing.cancel()
        await viewers.all_have_heard([max(news.said)], 10)
        await asyncio.sleep(3)
    heard = sum(len(viewer.heard) for viewer in viewers.viewers)
    repeats = sum(viewer.repeats for viewer in viewers.viewers)
    modes = Counter(mode for viewer in viewers.viewers for mode in viewer.modes)
    print(f"{len(news.said)} events, {heard} heard by {VIEWERS}, {repeats} repeats dropped, resumes {dict(modes)}")
    print(f"the slowest write took {news.latest:.1f} s")


@pytest.mark.slow
async def test_when_one_instance_is_killed_nobody_loses_anything(deployment: Deployment, table: Tables) -> None:
    async with watched(deployment, table, 60) as (viewers, news):
        deployment.instances[0].kill()
        await asyncio.sleep(0.3)
        print(f"{VIEWERS - viewers.connected} cut off")
        print(f"all back after {await viewers.all_back(BACK):.1f} s")
    verdict = judge(viewers.viewers, news)
    assert verdict.faultless, verdict
    assert not wrong_states(viewers.viewers, news)
    assert {mode for viewer in viewers.viewers for mode in viewer.modes} == {"overlap"}


@pytest.mark.slow
async def test_when_both_are_killed_everyone_is_told_and_has_the_right_state(
    deployment: Deployment, table: Tables
) -> None:
    async with watched(deployment, table, 60) as (viewers, news):
        for served in deployment.instances:
            served.kill()
        await asyncio.sleep(1)
        assert viewers.connected == 0
        await asyncio.gather(deployment.restart(0), deployment.restart(1))
        print(f"all back {await viewers.all_back(BACK):.1f} s after both are up again")
    assert all("snapshot" in viewer.modes for viewer in viewers.viewers)
    verdict = judge(viewers.viewers, news)
    assert not verdict.twice
    assert not verdict.disordered
    assert not wrong_states(viewers.viewers, news)
    print(f"{len(verdict.lost)} events were folded into the state for somebody")


@pytest.mark.slow
async def test_a_rolling_deploy_costs_nobody_more_than_a_reconnect(deployment: Deployment, table: Tables) -> None:
    async with watched(deployment, table, 75) as (viewers, news):
        for _ in range(2):
            await deployment.add()  # and then it has read for long enough to stand in for another one
            await asyncio.sleep(RESUME_MARGIN + 6)
            await retire(deployment, viewers)
    assert_ended_cleanly(viewers)
    verdict = judge(viewers.viewers, news)
    assert verdict.faultless, verdict
    assert not wrong_states(viewers.viewers, news)
    assert {mode for viewer in viewers.viewers for mode in viewer.modes} == {"overlap"}


@pytest.mark.slow
async def test_a_restart_in_place_is_told_to_everyone_who_comes_to_a_fresh_instance(
    deployment: Deployment, table: Tables
) -> None:
    async with watched(deployment, table, 60) as (viewers, news):
        old = deployment.instances[0]
        starting = asyncio.create_task(deployment.restart_when_gone(old))
        await retire(deployment, viewers)
        await starting
    assert_ended_cleanly(viewers)
    verdict = judge(viewers.viewers, news)
    assert not verdict.twice
    assert not verdict.disordered
    assert not wrong_states(viewers.viewers, news)
    lossless = [viewer for viewer in viewers.viewers if "snapshot" not in viewer.modes]
    assert judge(lossless, news).faultless
    assert len(lossless) < VIEWERS, "a fresh instance cannot know what was missed"


async def retire(deployment: Deployment, viewers: Crowd) -> None:
    """End the oldest instance by SIGTERM, and see everyone come back, spread over the seconds that were set."""
    began = time.monotonic()
    status, seconds = await asyncio.to_thread(deployment.instances.pop(0).terminate)
    assert (status, seconds < 1) == (0, True), (status, seconds)
    await asyncio.sleep(began + DRAIN + 3 - time.monotonic())
    assert viewers.connected == VIEWERS
    told = Counter(wait // 1000 for viewer in viewers.viewers for at, _, wait in viewer.ends if at > began)
    assert max(told.values()) <= 0.15 * told.total(), "what the service promises"
    by_second = Counter(int(at - began) for at in viewers.opened_since(began))
    print(f"SIGTERM to exit: {seconds:.2f} s; reconnects by second: {dict(sorted(by_second.items()))}")
    assert max(by_second.values()) <= 0.15 * by_second.total()


def assert_ended_cleanly(viewers: Crowd) -> None:
    """Every stream that ended was told so, and its viewer waited for as long as it was told to."""
    for viewer in viewers.viewers:
        assert all(reason == "ended by the server: draining" for _, reason in viewer.left[:-1]), viewer.left
        for at, _, retry_ms in viewer.ends:
            waited = min(opened for opened in viewer.opened if opened > at) - at
            assert retry_ms / 1000 - 0.01 <= waited < retry_ms / 1000 + 2.5


# Many that come and go

ABORTS = 10_000


async def many_come_and_go(port: int, count: int, chance: random.Random) -> None:
    """So many of them, a few dozen at a time."""
    left = count

    async def one_after_another() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await come_and_go(port, chance)

    await asyncio.gather(*(one_after_another() for _ in range(50)))


@pytest.mark.slow
@pytest.mark.parametrize(("handover", "most"), [("1", 5e6), ("0", 20e6)], ids=["handed-over", "iterator"])
async def test_ten_thousand_broken_off_connects_leave_nothing(host: Host, handover: str, most: float) -> None:
    # What the iterator leaves are cycles in Quart and Hypercorn: they wait for the next full collection.
    hosted = await asyncio.to_thread(host, SSE_HEARTBEAT_INTERVAL="0.2", SSE_HANDOVER=handover, LOG_LEVEL="WARNING")
    await hosted.put_items(200)
    chance = random.Random(11)
    await many_come_and_go(hosted.port, 4000, chance)
    await asyncio.sleep(1)
    before = await hosted.held()
    await many_come_and_go(hosted.port, ABORTS, chance)
    await asyncio.sleep(1)
    after = await hosted.held()
    print(f"before {before}, after {after}")
    assert (after["streams"], after["slots"], after["subscriptions"]) == (0, 0, 0)
    assert after["tasks"] <= before["tasks"]
    assert after["descriptors"] <= before["descriptors"]
    assert after["memory"] - before["memory"] < most


HOUR = 6.0
"""Seconds: a day is 144 of them, 600 times as fast."""


class UniqueIds(Viewer):
    """A viewer that minds ids: none twice on a connection, and none for two different events."""

    meant: ClassVar[dict[str, tuple[str, str]]] = {}
    events = 0

    def __init__(self) -> None:
        super().__init__()
        self._had: set[str] = set()
        self._opening = True

    def note(self, state: State) -> None:
        super().note(state)
        self._had.clear()
        self._opening = True

    def take(self, event: ServerEvent) -> None:
        UniqueIds.events += 1
        assert event.id not in self._had, "twice on one connection"
        self._had.add(event.id)
        if not self._opening:
            assert self.meant.setdefault(event.id, (event.event, event.data)) == (event.event, event.data)
        self._opening = self._opening and event.event != "metrics"


@pytest.mark.slow
async def test_a_day_of_coming_and_going_leaves_everything_as_it_was(host: Host) -> None:
    hosted = await asyncio.to_thread(
        host,
        SSE_MAX_CONNECTIONS="500",
        SSE_POLL_INTERVAL="0.05",  # the least there is: half a minute of the day
        SSE_HEARTBEAT_INTERVAL="0.05",
        SSE_KEEPALIVE_INTERVAL="0.025",
        SSE_METRICS_INTERVAL="0.1",
        SSE_WINDOW_HOURS=str(HOUR / 3600),
        SSE_MAX_STREAM_AGE=str(HOUR),
        SSE_RETRY_MS="50",
        SSE_LOG_EVENTS="100",
        LOG_LEVEL="WARNING",
    )
    await hosted.put_items(3000, 24 * HOUR)
    chance, held = random.Random(5), []
    async with crowd(f"http://127.0.0.1:{hosted.port}/api/v2/stream", 200, viewer=UniqueIds) as viewers:
        for _ in range(24):
            await many_come_and_go(hosted.port, 60, chance)
            await asyncio.sleep(HOUR - 0.5)
            held.append(await hosted.held())
            assert hosted.status is None
    settled = held[5:]
    memory = [each["memory"] / 1e6 for each in settled]
    slope = linear_regression(range(len(memory)), memory).slope
    connects = sum(len(viewer.opened) for viewer in viewers.viewers)
    print(
        f"{connects} connects, {UniqueIds.events} events, "
        f"memory {memory[0]:.1f} to {memory[-1]:.1f} MB: {slope:.3f} an hour"
    )
    print(f"descriptors {[each['descriptors'] for each in settled]}, tasks {[each['tasks'] for each in settled]}")
    assert connects > 2000
    assert slope <= 1
    for name in ("descriptors", "tasks"):
        early, late = (max(each[name] for each in part) for part in (settled[:9], settled[9:]))
        assert late <= early + 40, name
    assert (await hosted.held())["streams"] == 0
