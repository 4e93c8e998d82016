"""`quartsse check`: each prepared fault of the tables, of permissions and of the clock is found, and its cure named.

The DynamoDB is moto's over HTTP; what it cannot do itself (deny, throttle, be at another time) a proxy in front does.
"""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from click.testing import CliRunner, Result

from quartsse.settings import settings_from
from quartsse.tools import emulator
from quartsse.tools.check.aws import Look
from quartsse.tools.check.command import check
from quartsse.tools.check.report import Finding, Heading, Report
from tests.dynamodb import Tables, record
from tests.feed.fault_proxy import Fault, FaultProxy, Request, access_denied, fault_proxy, throttling
from tests.processes import clean_environment


async def looked(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, **settings: str) -> Report:
    """What a look finds; AWS's own variables are the process's, as botocore wants them."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    chosen = environment | settings
    report = Report("")
    look = Look(settings_from(chosen), chosen, facts=report.facts)
    async for told in look.run():
        report.take(told)
    return report


def found(report: Report, name: str) -> Finding:
    """The finding of a name; the worst, if there are several."""
    named = [finding for _, finding in report.findings if finding.name == name]
    assert named, [finding.name for _, finding in report.findings]
    return min(named, key=lambda finding: ["failed", "warning", "note", "ok", "skipped"].index(finding.state))


def bad(report: Report) -> list[str]:
    """What is not well."""
    return [finding.name for _, finding in report.findings if finding.state in {"failed", "warning"}]


@pytest.fixture
async def proxied(table: Tables) -> AsyncIterator[tuple[FaultProxy, dict[str, str]]]:
    """A proxy in front of a table with an item, and the environment that leads through it."""
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    async with fault_proxy(table.endpoint) as proxy:
        yield proxy, table.environment() | emulator.environment(proxy.endpoint)


def only(operation: str, fault: Fault) -> Fault:
    """A fault of one operation."""

    async def some(request: Request) -> bytes | None:
        return await fault(request) if request.operation == operation.lower() else None

    return some


async def test_with_everything_in_place_all_is_well(table: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    await table.fill([record(None, "AAPL", age=60 * n, sentiment="positive") for n in range(1, 20)])
    report = await looked(table.environment(), monkeypatch, SSE_SOURCE="streams")
    assert bad(report) == []
    assert report.status(strict=True) == 0
    assert "all well" in report.summary()
    assert "19 items" in found(report, "window").seen
    assert found(report, "spent").seen.startswith("6.5 read units"), "3.5 of the window, and three calls"


async def test_a_table_that_does_not_exist_is_named(table: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    report = await looked(table.environment(), monkeypatch, SENTIMENTS_TABLE="nowhere")
    assert found(report, "table").state == "failed"
    assert "there is no nowhere" in found(report, "table").seen
    assert "SENTIMENTS_TABLE" in found(report, "table").cure
    assert report.status(strict=False) == 1


@pytest.mark.parametrize("denied", [None, only("DescribeTable", access_denied)], ids=["described", "not described"])
async def test_an_index_that_does_not_exist_is_named(
    proxied: tuple[FaultProxy, dict[str, str]], monkeypatch: pytest.MonkeyPatch, denied: Fault | None
) -> None:
    proxy, environment = proxied
    proxy.fault = denied
    report = await looked(environment, monkeypatch, SSE_INDEX="by_mood")
    assert bad(report) == ["index"]
    assert "there is no by_mood" in found(report, "index").seen
    assert "SSE_INDEX" in found(report, "index").cure


def make_table(tables: Tables, name: str, *, hashed: str = "sentiment", view: str | None = None) -> None:
    """A sentiment table whose index has another hash key, or whose stream carries something else or is not there."""
    attributes, index = ("source_id", "timestamp", hashed), {"IndexName": "by_sentiment"}
    stream = {"StreamSpecification": {"StreamEnabled": True, "StreamViewType": view}} if view else {}
    keys = [
        [{"AttributeName": first, "KeyType": "HASH"}, {"AttributeName": "timestamp", "KeyType": "RANGE"}]
        for first in ("source_id", hashed)
    ]
    tables.client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=keys[0],
        AttributeDefinitions=[{"AttributeName": attribute, "AttributeType": "S"} for attribute in attributes],
        GlobalSecondaryIndexes=[index | {"KeySchema": keys[1], "Projection": {"ProjectionType": "ALL"}}],
        **stream,
    )


@pytest.mark.parametrize("denied", [None, only("DescribeTable", access_denied)], ids=["described", "not described"])
async def test_an_index_with_other_keys_is_named(
    proxied: tuple[FaultProxy, dict[str, str]],
    table: Tables,
    monkeypatch: pytest.MonkeyPatch,
    denied: Fault | None,
) -> None:
    proxy, environment = proxied
    name = f"odd-{table.sentiments}"
    make_table(table, name, hashed="mood")
    proxy.fault = denied
    report = await looked(environment, monkeypatch, SENTIMENTS_TABLE=name)
    assert bad(report) == ["index"]
    assert "mood" in found(report, "index").seen
    assert "hash key sentiment" in found(report, "index").cure


@pytest.mark.parametrize("denied", [None, only("DescribeTable", access_denied)], ids=["described", "not described"])
async def test_other_keys_of_the_users_table_are_named(
    proxied: tuple[FaultProxy, dict[str, str]], monkeypatch: pytest.MonkeyPatch, denied: Fault | None
) -> None:
    proxy, environment = proxied
    proxy.fault = denied
    report = await looked(environment, monkeypatch, SSE_USERS_KEYS="pk,sk")
    assert bad(report) == ["keys"]
    assert ("they are PK (S) and SK (S)" in found(report, "keys").seen) == (denied is None)
    assert "SSE_USERS_KEYS" in found(report, "keys").cure


@pytest.mark.parametrize(
    "action",
    ["Query", "GetItem", "BatchGetItem", "ListStreams", "DescribeStream", "GetShardIterator", "GetRecords"],
)
async def test_each_permission_that_is_missing_is_named_with_the_statement_that_gives_it(
    proxied: tuple[FaultProxy, dict[str, str]], monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    proxy, environment = proxied
    proxy.fault = only(action, access_denied)
    report = await looked(environment, monkeypatch, SSE_SOURCE="streams")
    assert bad(report) == [action]
    statement = json.loads(found(report, action).cure.partition(": ")[2])
    assert statement["Action"] == f"dynamodb:{action}"
    assert statement["Resource"].startswith("arn:aws:dynamodb:eu-west-1:123456789012:table/")


async def test_a_missing_permission_to_describe_hides_nothing_that_reading_shows(
    proxied: tuple[FaultProxy, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, environment = proxied
    proxy.fault = only("DescribeTable", access_denied)
    report = await looked(environment, monkeypatch, SSE_SOURCE="streams")
    assert bad(report) == []
    assert "does not need it" in found(report, "DescribeTable").seen
    assert "1 items" in found(report, "window").seen


@pytest.mark.parametrize(("seconds", "state"), [(-60, "failed"), (60, "failed"), (3.5, "warning"), (0, "ok")])
async def test_a_clock_that_is_off_is_found(
    proxied: tuple[FaultProxy, dict[str, str]], monkeypatch: pytest.MonkeyPatch, seconds: float, state: str
) -> None:
    proxy, environment = proxied

    def elsewhen(given: bytes) -> bytes:
        head, _, body = given.partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"date:")]
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
        return b"\r\n".join([*lines, f"Date: {date}".encode(), b"", body])

    proxy.rewrite = elsewhen
    report = await looked(environment, monkeypatch)
    assert found(report, "clock").state == state
    if state != "ok":
        assert "NTP" in found(report, "clock").cure
        assert ("ahead" if seconds < 0 else "behind") in found(report, "clock").seen


async def test_an_empty_window_is_told_from_an_empty_index(table: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    await table.put("tiingo:1", "AAPL")
    report = await looked(table.environment(), monkeypatch)
    assert bad(report) == ["window"]
    assert "no item of any age" in found(report, "window").seen
    assert "the analysis runs" in found(report, "window").cure
    await table.put("tiingo:2", "AAPL", sentiment="positive", age=3 * 86_400)
    report = await looked(table.environment(), monkeypatch)
    assert bad(report) == ["window"]
    assert "the newest item is of" in found(report, "window").seen
    assert "SSE_WINDOW_HOURS" in found(report, "window").cure
    assert (report.status(strict=False), report.status(strict=True)) == (0, 1)


async def test_throttling_is_found_even_where_a_second_try_succeeds(
    proxied: tuple[FaultProxy, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, environment = proxied
    seen = 0

    async def at_first(request: Request) -> bytes | None:
        nonlocal seen
        seen += request.operation == "query"
        return await throttling(request) if request.operation == "query" and seen == 1 else None

    proxy.fault = at_first
    report = await looked(environment, monkeypatch)
    assert "window" not in bad(report)
    assert found(report, "capacity").state == "failed"
    assert "SSE_READ_BUDGET" in found(report, "capacity").cure


@pytest.mark.parametrize("view", [None, "KEYS_ONLY", "OLD_IMAGE"])
async def test_a_stream_that_cannot_be_followed_is_named(
    table: Tables, monkeypatch: pytest.MonkeyPatch, view: str | None
) -> None:
    name = f"stream-{view}-{table.sentiments}"
    make_table(table, name, view=view)
    report = await looked(table.environment(), monkeypatch, SENTIMENTS_TABLE=name, SSE_SOURCE="streams")
    assert found(report, "stream").state == "failed"
    assert (view or "the table has none") in found(report, "stream").seen
    assert "NEW_AND_OLD_IMAGES" in found(report, "stream").cure


async def test_a_stream_that_was_disabled_is_named(
    proxied: tuple[FaultProxy, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, environment = proxied
    enabled, disabled = b'"StreamStatus": "ENABLED"', b'"StreamStatus":"DISABLED"'  # of the same length
    proxy.rewrite = lambda given: given.replace(enabled, disabled)
    report = await looked(environment, monkeypatch, SSE_SOURCE="streams")
    assert bad(report) == ["stream"]
    assert "DISABLED" in found(report, "stream").seen


async def test_lateness_is_seen_in_the_stream(table: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    await table.analyse(await table.put("tiingo:1", "AAPL", age=7200))
    report = await looked(table.environment(), monkeypatch, SSE_SOURCE="streams")
    assert "2 h after their timestamp" in found(report, "lateness").seen


async def test_items_that_do_not_fit_are_counted_by_kind(table: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    await table.put("tiingo:1", "AAPL", sentiment="positive")
    await table.put("tiingo:2", "AAPL", sentiment="positive", score=7)
    await table.put("tiingo:3", "no ticker", sentiment="neutral")
    report = await looked(table.environment(), monkeypatch)
    assert sorted(bad(report)) == ["misfit matched_tickers", "misfit score"]
    assert "1 of 2 items" in found(report, "misfit score").seen


async def test_a_setting_that_is_misspelt_is_found(table: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    report = await looked(table.environment(), monkeypatch, SSE_READ_BUGDET="5")
    assert "perhaps SSE_READ_BUDGET" in found(report, "SSE_READ_BUGDET").cure


async def test_where_nobody_listens_it_says_so(table: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = table.environment() | emulator.environment("http://127.0.0.1:1")
    report = await looked(environment, monkeypatch)
    assert bad(report) == ["DynamoDB"]
    assert "AWS_ENDPOINT_URL_DYNAMODB" in found(report, "DynamoDB").cure


def run(*arguments: str, **environment: str) -> Result:
    """The command, with an environment."""
    return CliRunner().invoke(check, arguments, env=environment)


def test_wrong_settings_end_with_status_2_and_one_line_that_names_them() -> None:
    for done in (run(), run("--json")):
        assert done.exit_code == 2
        assert "SENTIMENTS_TABLE is required" in done.stderr
    assert "SSE_JWT" in run(SENTIMENTS_TABLE="news", SSE_AUTH="jwt").stderr, "what only a start would refuse"


def test_a_newcomer_without_credentials_is_told_what_to_do() -> None:
    files = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), "/dev/null")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "quartsse", "check"],
        env=clean_environment()
        | files
        | {"SENTIMENTS_TABLE": "news", "AWS_REGION": "eu-west-1", "AWS_EC2_METADATA_DISABLED": "true"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "make demo" in done.stdout
    assert not done.stderr


def test_json_has_every_setting_and_no_secret(table: Tables) -> None:
    secret = "a secret of at least thirty-two bytes"
    done = run("--json", **table.environment(), SSE_TICKET_SECRET=secret)
    told = json.loads(done.stdout)
    settings = {one["variable"]: (one["value"], one["origin"]) for one in told["settings"]}
    assert settings["SSE_TICKET_SECRET"] == ("set, not shown", "environment")
    assert settings["SSE_POLL_INTERVAL"] == ("2", "default")
    assert secret not in done.output
    assert told["status"] == done.exit_code == 0, "an empty window is a warning"
    assert {"name", "state", "seen", "why", "cure", "section"} == set(told["findings"][0])
    assert run("--strict", **table.environment()).exit_code == 1


def test_a_heading_is_not_counted() -> None:
    report = Report("")
    report.take(Heading("x"))
    assert report.status(strict=False) == 1, "nothing that was looked at is well"
