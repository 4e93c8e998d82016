"""What a process tree has cost, and on which core it runs."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

SERVER_CORE = 0
CLIENT_CORE = 1


def pinned(core: int) -> Callable[[], None]:
    """What a child does before it starts: stay on one core, and open as many files as it may."""

    def pin() -> None:
        os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})

    return pin


def wait_for_port(port: int, seconds: float = 20) -> None:
    """Return when somebody listens. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nobody listens on {port}")


def tree(root: int) -> list[int]:
    """A process and all that come from it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_seconds(root: int) -> float:
    """CPU time of a process tree so far, the kernel's work for it included: to the nanosecond, where Linux tells."""
    total = 0
    for pid in tree(root):
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(path.read_text().split()[0])
            except OSError:
                continue
    return total / 1e9


def memory_kib(root: int) -> int:
    """Memory of a process tree; what it shares with others counts in proportion."""
    total = 0
    for pid in tree(root):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total
