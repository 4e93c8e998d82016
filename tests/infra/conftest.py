"""Every connection of a test is closed at its end here, too."""

from tests.end_to_end.conftest import _leave

__all__ = ["_leave"]
