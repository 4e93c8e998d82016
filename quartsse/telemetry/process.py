"""What the process itself looks like: memory, open files, and how late its loop is."""

import asyncio
import resource
from pathlib import Path
from time import monotonic

from quartsse.telemetry.metrics import Telemetry

STEP = 0.1


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


async def watch_the_loop(telemetry: Telemetry) -> None:
    """Say how late the loop comes back to a short sleep, until cancelled."""
    while True:
        before = monotonic()
        await asyncio.sleep(STEP)
        telemetry.loop_late(max(0.0, monotonic() - before - STEP))
