"""What the process is set to, beside its streams."""

import gc
from collections.abc import Iterator

import pytest

from quartsse.web.server import growing

THRESHOLDS = (20_000, 5, 2)


@pytest.fixture
def _collector() -> Iterator[None]:
    """The collector as the service sets it, and afterwards as it was."""
    before = gc.get_threshold()
    gc.set_threshold(*THRESHOLDS)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.usefixtures("_collector")
def test_while_a_window_grows_nothing_walks_all_of_it_and_then_nothing_walks_it_again() -> None:
    full = gc.get_stats()[2]["collections"]
    with growing():
        items = [[number] for number in range(1_000_000)]
    assert gc.get_stats()[2]["collections"] == full
    assert gc.get_freeze_count() > len(items)
    assert gc.get_threshold() == THRESHOLDS


@pytest.mark.usefixtures("_collector")
def test_a_load_that_fails_leaves_the_collector_as_it_was() -> None:
    frozen = gc.get_freeze_count()
    with pytest.raises(ZeroDivisionError), growing():
        raise ZeroDivisionError
    assert (gc.get_threshold(), gc.get_freeze_count()) == (THRESHOLDS, frozen)
