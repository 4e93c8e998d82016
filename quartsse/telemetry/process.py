"""What the process itself looks like: memory and open files."""

import resource
from pathlib import Path


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
