"""The bell."""

import asyncio

import pytest

from quartsse.feed.bell import Bell
from tests.feed.feeding import settle


async def test_a_ring_wakes_all_who_wait() -> None:
    bell = Bell()
    waiting = [asyncio.create_task(bell.wait()) for _ in range(3)]
    await settle()
    bell.ring()
    await settle()
    assert all(task.done() for task in waiting)


async def test_a_ring_that_nobody_waits_for_is_not_kept() -> None:
    bell = Bell()
    bell.ring()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bell.wait(), 0.01)


async def test_one_who_gives_up_does_not_take_the_others_along() -> None:
    bell = Bell()
    first, second = asyncio.create_task(bell.wait()), asyncio.create_task(bell.wait())
    await settle()
    first.cancel()
    await settle()
    assert not second.done()
    bell.ring()
    await settle()
    assert second.done()
    assert not second.cancelled()
