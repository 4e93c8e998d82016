"""Each permission and each rule about time taken away: what must hold of a root then does not."""

from pathlib import Path

import pytest

from tests.infra.terraform import copied

pytestmark = pytest.mark.slow

MUTATIONS = [
    # Permissions
    ("lambda", "modules/reader/main.tf", '["dynamodb:Query"]', "[]"),
    ("lambda", "modules/reader/main.tf", '"dynamodb:BatchGetItem", ', ""),
    ("lambda", "modules/reader/main.tf", ', "dynamodb:GetItem"', ""),
    ("lambda", "modules/reader/main.tf", '"USER#*"', '"*"'),
    ("lambda", "modules/reader/main.tf", "/index/${var.index}", "/index/*"),
    ("lambda", "modules/reader/main.tf", "dynamodb.${local.region}.amazonaws.com", "*.amazonaws.com"),
    ("lambda", "modules/reader/main.tf", '"dynamodb:Query"]', '"dynamodb:Query", "dynamodb:PutItem"]'),
    ("lambda", "lambda/role.tf", '"logs:CreateLogStream", ', ""),
    ("lambda", "lambda/role.tf", ', "logs:PutLogEvents"', ""),
    ("lambda", "lambda/role.tf", '"xray:PutTelemetryRecords", ', ""),
    ("lambda", "lambda/role.tf", ', "xray:PutTraceSegments"', ""),
    ("lambda", "lambda/way_in.tf", '"lambda:InvokeFunctionUrl"', '"lambda:GetFunctionUrlConfig"'),
    ("lambda", "lambda/way_in.tf", "  qualifier              = aws_lambda_alias.live.name\n", ""),
    ("lambda", "lambda/invoke-permission.yaml", "      InvokedViaFunctionUrl: true\n", ""),
    ("lambda", "lambda/invoke-permission.yaml", "Action: lambda:InvokeFunction\n", "Action: lambda:GetFunction\n"),
    ("ecs", "modules/reader/main.tf", '"dynamodb:DescribeStream", ', ""),
    ("ecs", "modules/reader/main.tf", '"dynamodb:GetRecords", ', ""),
    ("ecs", "modules/reader/main.tf", ', "dynamodb:GetShardIterator"', ""),
    ("ecs", "ecs/roles.tf", '"ecr:BatchCheckLayerAvailability", ', ""),
    ("ecs", "ecs/roles.tf", '"ecr:BatchGetImage", ', ""),
    ("ecs", "ecs/roles.tf", ', "ecr:GetDownloadUrlForLayer"', ""),
    ("ecs", "ecs/roles.tf", '["ecr:GetAuthorizationToken"]', "[]"),
    ("ecs", "ecs/roles.tf", '"logs:CreateLogStream", ', ""),
    ("ecs", "ecs/roles.tf", ', "logs:PutLogEvents"', ""),
    ("ecs", "ecs/roles.tf", '["secretsmanager:GetSecretValue"]', "[]"),
    ("ecs", "ecs/roles.tf", '"xray:PutTelemetryRecords", ', ""),
    (
        "ecs",
        "ecs/network.tf",
        "referenced_security_group_id = aws_security_group.load_balancer.id",
        'cidr_ipv4 = "0.0.0.0/0"',
    ),
    # Time
    (
        "lambda",
        "lambda/variables.tf",
        "2 * var.heartbeat_interval < var.origin_read_timeout",
        "var.heartbeat_interval > 0",
    ),
    ("lambda", "lambda/variables.tf", "var.heartbeat_interval < var.max_stream_age", "var.heartbeat_interval > 0"),
    ("lambda", "lambda/variables.tf", " && var.max_stream_age <= var.timeout - var.deadline_margin", ""),
    ("lambda", "lambda/variables.tf", "var.deadline_margin >= 2", "var.deadline_margin >= 0"),
    ("lambda", "lambda/variables.tf", " && var.timeout <= 900", ""),
    ("lambda", "lambda/variables.tf", " && var.origin_read_timeout <= 120", ""),
    ("lambda", "lambda/way_in.tf", "origin_read_timeout      = var.origin_read_timeout", "origin_read_timeout = 30"),
    ("ecs", "ecs/variables.tf", "2 * var.heartbeat_interval < var.idle_timeout", "var.heartbeat_interval > 0"),
    ("ecs", "ecs/variables.tf", " && var.idle_timeout < 75", ""),
    ("ecs", "ecs/variables.tf", " && var.deregistration_delay <= 60", ""),
    ("ecs", "ecs/load_balancer.tf", "  idle_timeout               = var.idle_timeout\n", ""),
    ("ecs", "ecs/load_balancer.tf", "  deregistration_delay          = var.deregistration_delay\n", ""),
    ("ecs", "ecs/main.tf", "    stopTimeout            = 30\n", ""),
    # Who the user is, and what it may cost
    (
        "lambda",
        "lambda/variables.tf",
        'var.auth != "header" || var.trust_user_header_from_anyone',
        'var.auth != ""',
    ),
    (
        "ecs",
        "ecs/variables.tf",
        " || var.certificate_arn == null || var.trust_user_header_from_anyone",
        " || true || var.name == null",
    ),
    ("lambda", "lambda/main.tf", "  reserved_concurrent_executions = var.concurrency\n", ""),
]


@pytest.mark.parametrize(
    ("root", "file", "old", "new"), MUTATIONS, ids=[f"{m[0]}-{m[2].strip()[:40]}" for m in MUTATIONS]
)
def test_nothing_can_be_taken_away_unnoticed(root: str, file: str, old: str, new: str, tmp_path: Path) -> None:
    terraform = copied(root, tmp_path)
    changed = tmp_path / file
    text = changed.read_text()
    assert old in text
    changed.write_text(text.replace(old, new, 1))
    done = terraform.run("test")
    assert done.returncode == 1
    assert "Invalid" not in done.stdout + done.stderr, "it fails, but because it is no longer Terraform"
    assert "pass" in done.stdout
