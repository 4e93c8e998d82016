"""Terraform, as the tests run it: on a copy, with the provider that lies on this machine, and without AWS."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

INFRA = Path(__file__).parents[2] / "infra"
PROVIDER = "registry.terraform.io/hashicorp/aws"

TABLE = "arn:aws:dynamodb:eu-central-1:123456789012:table/sentiments"
REQUIRED = {"sentiments_table_arn": TABLE, "image_digest": f"sha256:{'0123456789abcdef' * 4}"}
"""The two variables that a first plan takes."""

EVERYTHING = {
    "users_table_arn": "arn:aws:dynamodb:eu-central-1:123456789012:table/users",
    "auth": "jwt",
    "jwt_issuer": "https://login.example.com",
    "jwt_audience": "streams",
    "cors_origins": ["https://app.example.com"],
    "kms_key_arns": ["arn:aws:kms:eu-central-1:123456789012:key/1"],
}
"""What both roots know besides."""

# The provider, with AWS out of reach; and what a plan shows only on demand.
_OFFLINE = """
provider "aws" {
  access_key                  = "testing"
  secret_key                  = "testing"
  skip_credentials_validation = true
  skip_requesting_account_id  = true
  skip_metadata_api_check     = true
}
"""
_SHOWN = """
output "tested" {
  sensitive = true
  value = {
    environment = local.environment
    statements  = module.reader.statements
  }
}
"""


def plugins() -> Path | None:
    """The directory that holds the provider: `TF_PLUGIN_DIR`, or what is found in the usual places."""
    named = os.environ.get("TF_PLUGIN_DIR")
    places = [Path(named)] if named else [*Path("/opt").glob("*"), Path.home() / ".terraform.d" / "plugins"]
    return next((place for place in places if (place / PROVIDER).is_dir()), None)


def needed() -> tuple[str, Path]:
    """Terraform and the provider's directory; skips the test where one of them is missing."""
    command, found = shutil.which("terraform"), plugins()
    if command is None:
        pytest.skip("terraform is not installed")
    if found is None:
        pytest.skip(f"no directory with {PROVIDER}: set TF_PLUGIN_DIR (`terraform providers mirror DIR` makes one)")
    return command, found


@dataclass(frozen=True, slots=True)
class Terraform:
    """A root, copied and initialised."""

    command: str
    folder: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of Terraform's in the root."""
        return subprocess.Popen(
            [self.command, arguments[0], "-no-color", *arguments[1:]],
            cwd=self.folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Terraform's in the root."""
        with self.start(*arguments) as process:
            return ended(process)

    def plan(self, variables: Mapping[str, object]) -> subprocess.CompletedProcess[str]:
        """Plan with these variables and nothing else."""
        given = [f"-var={name}={_written(value)}" for name, value in variables.items()]
        return self.run("plan", "-input=false", "-lock=false", "-out=plan", *given)

    def planned(self, variables: Mapping[str, object]) -> Any:
        """The plan's values, as `terraform show` prints them."""
        made = self.plan(variables)
        assert made.returncode == 0, made.stderr
        return json.loads(self.run("show", "-json", "plan").stdout)["planned_values"]


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for the end of a command, in bounds."""
    try:
        output, errors = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def copied(root: str, place: Path) -> Terraform:
    """A copy of `infra/` in an empty folder, where a root has been initialised and may be changed."""
    command, found = needed()
    shutil.copytree(INFRA, place, ignore=shutil.ignore_patterns(".terraform*"), dirs_exist_ok=True)
    (place / root / "offline_override.tf").write_text(_OFFLINE)
    (place / root / "tested.tf").write_text(_SHOWN)
    terraform = Terraform(command, place / root)
    made = terraform.run("init", "-backend=false", "-input=false", f"-plugin-dir={found}")
    assert made.returncode == 0, made.stderr
    return terraform


def _written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _environment() -> dict[str, str]:
    """Nothing of the caller's AWS or Terraform, and no proxy."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {"TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1", "AWS_EC2_METADATA_DISABLED": "true"}
