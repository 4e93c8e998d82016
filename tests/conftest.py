"""The fixtures that many tests share."""

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.dynamodb import DYNALITE, Tables, dynalite_server, moto_server, tables_at
from tests.served import Served


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--no-skips` for where everything is installed: there a test that skips has failed to find what it needs."""
    parser.addoption("--no-skips", action="store_true", help="count skipped tests as failures")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where none is wanted."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"skipped where everything is installed: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def dynamodb() -> Iterator[str]:
    """The address of a DynamoDB: moto's."""
    with moto_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def dynalite() -> Iterator[str]:
    """The address of another DynamoDB: dynalite's, where it is installed."""
    if not DYNALITE.exists():
        pytest.skip("dynalite is not installed: npm ci --prefix tests")
    with dynalite_server() as endpoint:
        yield endpoint


@pytest.fixture
def table(dynamodb: str) -> Iterator[Tables]:
    """Two empty tables of the test's own."""
    with tables_at(dynamodb) as tables:
        yield tables


@pytest.fixture
def dynalite_table(dynalite: str) -> Iterator[Tables]:
    """The same at the other DynamoDB."""
    with tables_at(dynalite, expiry=None) as tables:
        yield tables


@pytest.fixture
def serve(table: Tables, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts the service over `table`, as often as one likes: `serve(SSE_POLL_INTERVAL="0.2")`."""
    started: list[Served] = []

    def start(**settings: str) -> Served:
        served = Served(table.environment() | settings, tmp_path / f"served-{len(started)}.log")
        started.append(served)
        served.wait_until_healthy()
        return served

    yield start
    for served in started:
        served.kill()
