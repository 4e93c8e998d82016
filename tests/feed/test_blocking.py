"""Calls that block."""

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from quartsse.errors import SourceError
from quartsse.feed.blocking import blocking


async def test_the_result_comes_back_and_the_loop_goes_on_meanwhile() -> None:
    let_go = threading.Event()
    call = asyncio.create_task(blocking(lambda: let_go.wait(5), 5))
    await asyncio.sleep(0.01)
    assert not call.done()
    let_go.set()
    assert await call is True


async def test_what_the_call_raises_is_raised_here() -> None:
    def fail() -> None:
        raise SourceError("down")

    with pytest.raises(SourceError, match="down"):
        await blocking(fail, 1)


async def test_a_call_that_takes_too_long_is_given_up_on() -> None:
    let_go = threading.Event()
    try:
        with pytest.raises(TimeoutError):
            await blocking(lambda: let_go.wait(5), 0.02)
    finally:
        let_go.set()


async def test_who_is_cancelled_does_not_wait_for_the_call() -> None:
    let_go = threading.Event()
    call = asyncio.create_task(blocking(lambda: let_go.wait(5), 5))
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    let_go.set()


def test_a_result_that_comes_after_the_loop_is_closed_is_dropped_quietly() -> None:
    let_go = threading.Event()

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            await blocking(lambda: let_go.wait(5), 0.01)

    asyncio.run(leave())
    let_go.set()
    for thread in threading.enumerate():
        if thread.name == "quartsse-read":
            thread.join(5)


def test_a_call_that_hangs_does_not_keep_the_process_alive() -> None:
    program = (
        "import asyncio, time\n"
        "from quartsse.feed.blocking import blocking\n"
        "async def main():\n"
        "    call = asyncio.create_task(blocking(lambda: time.sleep(20), 30))\n"
        "    await asyncio.sleep(0.05)\n"
        "    call.cancel()\n"
        "asyncio.run(main())\n"
    )
    started = time.monotonic()
    assert subprocess.run([sys.executable, "-c", program], timeout=15, check=False).returncode == 0
    assert time.monotonic() - started < 5
