"""Calls that block, in threads that nobody waits for at the exit."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress


async def blocking[T](call: Callable[[], T], seconds: float) -> T:
    """Run a blocking call in a thread of its own, for at most so many seconds. Raises TimeoutError after that.

    A daemon thread and no executor: Python joins an executor's threads at exit, and a read that hangs for seconds
    would keep a process alive that Lambda kills after 0.6 s. There are never more than a handful at once, and every
    call has time-outs of its own, so a thread that was given up on ends soon after.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(set_it: Callable[[], None]) -> None:
        if not done.done():
            set_it()

    def tell(set_it: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(settle, set_it)

    def run() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - carried over to whoever awaits it, whatever it is
            failure = error
            tell(lambda: done.set_exception(failure))
        else:
            tell(lambda: done.set_result(result))

    threading.Thread(target=run, daemon=True, name="quartsse-read").start()
    async with asyncio.timeout(seconds):
        return await done
