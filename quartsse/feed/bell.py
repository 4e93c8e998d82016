"""A bell: whoever waits is woken at the next ring."""

import asyncio


class Bell:
    """Wakes all who wait at that moment; a ring that nobody waits for is not kept."""

    def __init__(self) -> None:
        self._next: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake everyone who waits."""
        waited, self._next = self._next, None
        if waited is not None and not waited.done():
            waited.set_result(None)

    async def wait(self) -> None:
        """Return at the next ring."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._next)
