"""The fixtures of the end-to-end tests."""

from collections.abc import AsyncIterator

import pytest

from tests.web.serving import leave_all


@pytest.fixture(autouse=True)
async def _leave() -> AsyncIterator[None]:
    """Every connection of a test is closed at its end."""
    yield
    leave_all()
