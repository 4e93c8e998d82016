"""The fixtures of these tests: the service as a process, over a source in memory."""

from tests.end_to_end.conftest import _leave, host

__all__ = ["_leave", "host"]
