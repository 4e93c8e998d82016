"""Both Terraform roots: they are valid, they plan with two variables, and what must hold of them holds."""

import asyncio
import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from quartsse.settings import VARIABLES, settings_from
from quartsse.web.server import KEEP_ALIVE_SECONDS
from tests.dynamodb import Tables
from tests.end_to_end.counting_proxy import proxy
from tests.infra.terraform import EVERYTHING, INFRA, REQUIRED, TABLE, Terraform, copied, ended, needed
from tests.served import Served
from tests.web.serving import request

ROOTS = ("lambda", "ecs")
OF_A_ROOT: Mapping[str, Mapping[str, object]] = {
    "lambda": {
        "jwt_jwks_url": "https://login.example.com/keys",
        "ticket_secret": "no secret, but as long as one has to be",
        "way_in": "cloudfront",
    },
    "ecs": {
        "jwt_key_secret_arn": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:key",
        "ticket_secret_arn": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:tickets",
        "certificate_arn": "arn:aws:acm:eu-central-1:123456789012:certificate/1",
        "stream_arn": f"{TABLE}/stream/2025-01-01T00:00:00.000",
        "poll_interval": 0.5,
        "max_tasks": 2,
        "tracing": True,
    },
}
PLACES: Mapping[str, Mapping[str, str]] = {
    "lambda": {"AWS_LAMBDA_FUNCTION_NAME": "quartsse-dev", "HOST": "0.0.0.0"},
    "ecs": {"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4"},
}
"""What AWS and the image set besides."""

NOT_OURS = re.compile(r"AWS_(REGION|DEFAULT_REGION|XRAY_DAEMON_ADDRESS|LWA_[A-Z_]+)")
"""Names of AWS's SDKs and of the Web Adapter."""


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Terraform]:
    """Gives a root, initialised once."""
    made = {name: copied(name, tmp_path_factory.mktemp(name)) for name in ROOTS}
    return made.__getitem__


@pytest.fixture(scope="module", autouse=True)
def own_tests(terraform: Callable[[str], Terraform]) -> Iterator[Mapping[str, subprocess.Popen[str]]]:
    """The roots' own tests: they take longest, so they run beside the others."""
    with ExitStack() as stack:
        running = {name: stack.enter_context(terraform(name).start("test")) for name in ROOTS}
        try:
            yield running
        finally:
            for process in running.values():
                process.terminate()


@pytest.fixture(scope="module")
def planned(terraform: Callable[[str], Terraform]) -> Callable[[str], Any]:
    """Gives the plan of a root with everything asked for, made once."""
    made: dict[str, Any] = {}

    def plan(name: str) -> Any:
        if name not in made:
            made[name] = terraform(name).planned({**REQUIRED, **EVERYTHING, **OF_A_ROOT[name]})
        return made[name]

    return plan


def test_everything_is_formatted() -> None:
    command, _ = needed()
    done = Terraform(command, INFRA).run("fmt", "-check", "-recursive", "-diff")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("root", ROOTS)
def test_a_root_is_valid(root: str, terraform: Callable[[str], Terraform]) -> None:
    done = terraform(root).run("validate")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stdout


@pytest.mark.parametrize("root", ROOTS)
def test_two_variables_make_a_plan(root: str, terraform: Callable[[str], Terraform]) -> None:
    done = terraform(root).plan(REQUIRED)
    assert done.returncode == 0, done.stderr
    variables = re.findall(r'^variable "(\w+)" \{\n(.*?)^\}', _text(root), re.MULTILINE | re.DOTALL)
    assert {name for name, block in variables if "\n  default " not in block} == set(REQUIRED)


@pytest.mark.parametrize("root", ROOTS)
def test_every_variable_that_is_set_is_a_setting(root: str, planned: Callable[[str], Any]) -> None:
    plan = planned(root)
    names = set(plan["outputs"]["tested"]["value"]["environment"])
    assert names >= {"SENTIMENTS_TABLE", "USERS_TABLE", "SSE_AUTH", "SSE_HEARTBEAT_INTERVAL"}
    assert not {name for name in names if name not in VARIABLES and not NOT_OURS.fullmatch(name)}


@pytest.mark.parametrize("root", ROOTS)
def test_the_service_takes_the_settings_as_they_are(root: str, planned: Callable[[str], Any]) -> None:
    environment = planned(root)["outputs"]["tested"]["value"]["environment"]
    settings = settings_from({**PLACES[root], **environment})
    assert (settings.sentiments_table, settings.users_table) == ("sentiments", "users")
    assert (settings.auth, settings.metrics, settings.tracing) == ("jwt", "emf", "xray")
    assert settings.cors_origins == ("https://app.example.com",)
    assert settings.heartbeat_interval > settings.keepalive_interval / 2


@pytest.mark.parametrize("root", ROOTS)
def test_no_permission_changes_anything(root: str, planned: Callable[[str], Any]) -> None:
    statements = planned(root)["outputs"]["tested"]["value"]["statements"]
    actions = {action for statement in statements for action in statement["Action"]}
    assert all(re.fullmatch(r"dynamodb:(Query|(Batch)?Get\w+|Describe\w+)|kms:Decrypt", action) for action in actions)
    assert all(resource != "*" for statement in statements for resource in statement["Resource"])


async def test_what_the_service_asks_of_dynamodb_is_what_it_may(
    planned: Callable[[str], Any], serve: Callable[..., Served], table: Tables
) -> None:
    await table.configure("ann", "one", "AAPL")
    async with proxy(table.endpoint) as between:
        address = f"http://127.0.0.1:{between.port}"
        served = await asyncio.to_thread(
            serve, SSE_POLL_INTERVAL="0.2", SSE_CONFIG_INTERVAL="0.2", AWS_ENDPOINT_URL_DYNAMODB=address
        )
        reply = await request(served.port, "/api/v2/configurations/one/stream", headers={"X-User-ID": "ann"})
        await reply.until("configuration")
        await table.configure("ann", "one", "AAPL", "MSFT")
        await reply.until("configuration")
        asked = {f"dynamodb:{operation}" for operation in between.calls}
        reply.close()
    statements = planned("lambda")["outputs"]["tested"]["value"]["statements"]
    allowed = {action for statement in statements for action in statement["Action"]}
    assert asked == {action for action in allowed if action.startswith("dynamodb:")}


async def test_alarms_and_charts_are_of_metrics_that_the_service_sends(
    serve: Callable[..., Served], table: Tables
) -> None:
    served = await asyncio.to_thread(
        serve, SSE_METRICS="emf", SSE_POLL_INTERVAL="0.2", SSE_HEARTBEAT_INTERVAL="1", SSE_KEEPALIVE_INTERVAL="1"
    )
    reply = await request(served.port, "/api/v2/stream?tickers=*")
    await reply.until("metrics")
    await table.put("tiingo:fresh", "AAPL", sentiment="positive")
    await reply.until("sentiment_update")
    await reply.until("heartbeat")  # the clock that sends it measures the loop's lag at each of its steps
    await asyncio.to_thread(served.terminate)
    sent = next(json.loads(line) for line in served.output() if '"_aws"' in line)
    directive = sent["_aws"]["CloudWatchMetrics"][0]
    names = {metric["Name"] for metric in directive["Metrics"]}
    assert (directive["Namespace"], directive["Dimensions"]) == ("quartsse", [["Service", "Environment", "Transport"]])
    for root in ROOTS:
        text = _text(root)
        wanted = set(re.findall(r'namespace\s+= "quartsse"(?:, |\s+)metric(?:_name)?\s*= "(\w+)"', text))
        assert "FeedStale" in wanted
        assert wanted <= names
        assert f'Service = "{sent["Service"]}", Environment = var.environment, Transport = "{root}"' in text


def test_the_load_balancer_gives_a_connection_up_before_the_service_does() -> None:
    text = (INFRA / "ecs" / "variables.tf").read_text()
    bound = re.search(r"var\.idle_timeout < (\d+)", text)
    assert bound is not None
    assert int(bound[1]) == KEEP_ALIVE_SECONDS


@pytest.mark.parametrize("root", ROOTS)
def test_every_variable_and_output_says_what_it_is(root: str) -> None:
    blocks = re.findall(r'^(?:variable|output) "\w+" \{\n.*?^\}', _text(root), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 20
    assert not [block.split("\n")[0] for block in blocks if "  description = " not in block]


@pytest.mark.parametrize("root", ROOTS)
def test_what_must_hold_of_a_root_holds(root: str, own_tests: Mapping[str, subprocess.Popen[str]]) -> None:
    done = ended(own_tests[root])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout


def _text(root: str) -> str:
    return "\n".join(path.read_text() for path in sorted(Path(INFRA / root).glob("*.tf")))
