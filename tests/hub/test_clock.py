import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quartsse.hub.clock import Clock, iso


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_764_671_400, "2025-12-02T10:30:00.000Z"),
        (1_764_671_400.25, "2025-12-02T10:30:00.250Z"),
        (1_764_671_400.9999, "2025-12-02T10:30:01.000Z"),
        (1_764_671_400.0004, "2025-12-02T10:30:00.000Z"),
        (-0.001, "1969-12-31T23:59:59.999Z"),
    ],
)
def test_a_time_is_written_to_the_nearest_millisecond(seconds: float, text: str) -> None:
    assert iso(seconds) == text


@given(st.integers(0, 4_000_000_000_000))
def test_every_millisecond_comes_back_as_it_was(milliseconds: int) -> None:
    text = iso(milliseconds / 1000)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    assert round(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1000) == milliseconds


def test_the_process_s_own_clock_runs_on_both_dials() -> None:
    clock = Clock()
    assert clock.monotonic() <= clock.monotonic()
    assert clock.wall() > 1_700_000_000
