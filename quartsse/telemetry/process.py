"""What the process itself looks like: memory, open files, and how late its loop is."""

import asyncio
import resource
from pathlib import Path
from time import monotonic

STEP = 0.5


def memory_bytes() -> float | None:
    """The resident set; None where `/proc` is not there."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return float(pages * resource.getpagesize())


def open_files() -> float | None:
    """Open descriptors; None where `/proc` is not there."""
    try:
        return float(sum(1 for _ in Path("/proc/self/fd").iterdir()))
    except OSError:
        return None


class LoopLag:
    """How late the loop has come back to a short sleep, at worst, since one last asked."""

    def __init__(self) -> None:
        self._worst = 0.0

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            before = monotonic()
            await asyncio.sleep(STEP)
            self._worst = max(self._worst, monotonic() - before - STEP)

    def read(self) -> float:
        """Milliseconds; forgotten once told."""
        worst, self._worst = self._worst, 0.0
        return worst * 1000
