"""The fixtures: the service as a process, over tables of the test's own."""

import urllib.request
from collections.abc import Callable

import pytest

from tests.dynamodb import Tables
from tests.processes import alive
from tests.served import Served


def test_a_served_process_answers_and_ends_when_told(serve: Callable[..., Served]) -> None:
    served = serve(SSE_DASHBOARD="1")
    with urllib.request.urlopen(f"{served.url}/", timeout=5) as page:
        assert page.status == 200
    status, seconds = served.terminate()
    assert status == 0
    assert seconds < 1
    assert not alive(served.pid)


def test_a_service_that_does_not_start_shows_why(serve: Callable[..., Served]) -> None:
    with pytest.raises(AssertionError, match="SSE_POLL_INTERVAL"):
        serve(SSE_POLL_INTERVAL="never")


def test_two_can_be_served_over_the_same_tables(table: Tables, serve: Callable[..., Served]) -> None:
    assert len({served.port for served in (serve(), serve())}) == 2
