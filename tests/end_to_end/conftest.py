"""The fixtures of the end-to-end tests."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.hosted import Hosted
from tests.end_to_end.namespaces import Elsewhere, elsewhere, missing
from tests.web.serving import leave_all


@pytest.fixture(autouse=True)
async def _leave() -> AsyncIterator[None]:
    """Every connection of a test is closed at its end."""
    yield
    leave_all()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Callable[..., Hosted]]:
    """Starts the service over a source in memory, as often as one likes: `host(SSE_MAX_CONNECTIONS="500")`."""
    started: list[Hosted] = []

    def start(**settings: str) -> Hosted:
        started.append(Hosted(settings, tmp_path))
        started[-1].wait_until_healthy()
        return started[-1]

    yield start
    for hosted in started:
        hosted.kill()


@pytest.fixture
def away() -> Iterator[Elsewhere]:
    """Another machine, as far as TCP can tell, whose answers can be made to vanish."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    with elsewhere() as made:
        yield made
