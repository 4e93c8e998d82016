"""The CloudFormation templates: what Terraform's provider has no words for."""

import subprocess
import sys
from typing import Any

import pytest

from quartsse.settings import VARIABLES, settings_from
from tests.infra.terraform import INFRA

TEMPLATES = sorted(INFRA.rglob("*.yaml"))


def template(name: str) -> Any:
    """A template, read."""
    decode = pytest.importorskip("cfnlint.decode", reason="cfn-lint is not installed")
    found, mistakes = decode.decode(str(INFRA / name))
    assert not mistakes
    return found["Resources"]


def test_there_is_nothing_to_complain_of() -> None:
    pytest.importorskip("cfnlint", reason="cfn-lint is not installed")
    lint = [sys.executable, "-c", "from cfnlint.runner import main; main()"]
    command = [*lint, "--regions", "us-east-1", "eu-west-1", "--", *map(str, TEMPLATES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_managed_instances_get_settings_that_the_service_takes() -> None:
    variables = template("managed-instances.yaml")["Function"]["Properties"]["Environment"]["Variables"]
    assert all(name in VARIABLES or name.startswith("AWS_LWA_") for name in variables)
    given = {name: value for name, value in variables.items() if isinstance(value, str)}
    settings = settings_from({"AWS_LAMBDA_FUNCTION_NAME": "quartsse", "SENTIMENTS_TABLE": "sentiments", **given})
    assert settings.idle_grace > 0
    assert variables["AWS_LWA_INVOKE_MODE"] == "response_stream"


def test_managed_instances_may_only_read() -> None:
    policy = template("managed-instances.yaml")["Role"]["Properties"]["Policies"][0]["PolicyDocument"]
    query, *others = policy["Statement"]
    assert (query["Action"], query["Resource"]) == (
        "dynamodb:Query",
        {"Fn::Sub": "${SentimentsTableArn}/index/${Index}"},
    )
    actions = [action for statement in others for action in statement["Action"]]
    assert {action.partition(":")[0] for action in actions} == {"logs", "xray"}


def test_a_url_comes_with_both_permissions() -> None:
    instances = template("managed-instances.yaml")
    assert instances["Url"]["Properties"]["InvokeMode"] == "RESPONSE_STREAM"
    assert instances["CallTheUrl"]["Properties"]["Action"] == "lambda:InvokeFunctionUrl"
    for permission in (instances["InvokeByTheUrl"], template("lambda/invoke-permission.yaml")["Permission"]):
        assert permission["Properties"]["Action"] == "lambda:InvokeFunction"
        assert permission["Properties"]["InvokedViaFunctionUrl"] is True
