"""`docker-compose.yml`: the demo, in containers."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from quartsse.settings import settings_from
from quartsse.tools import emulator
from quartsse.tools.demo import SENTIMENTS, USERS, DemoOptions, service_environment
from tests.infra.dockerfile import DOCKERFILE
from tests.infra.terraform import INFRA
from tests.processes import clean_environment, eventually

ROOT = DOCKERFILE.parent
NEWS = INFRA / "laptop" / "news.py"


@pytest.fixture
def services() -> Any:
    """What the file starts."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def test_the_service_has_the_demos_settings(services: Any) -> None:
    given = services["service"]["environment"]
    demo = service_environment({}, given["AWS_ENDPOINT_URL_DYNAMODB"], 8080)
    differing = {"HOST", "SSE_TICKET_SECRET", "SSE_ALLOWED_HOSTS", "NO_PROXY", "no_proxy"}
    assert set(given) == set(demo) | {"SSE_ALLOWED_HOSTS"}
    assert {name: value for name, value in given.items() if name not in differing} == {
        name: value for name, value in demo.items() if name not in differing
    }
    assert settings_from(given).allowed_hosts == ("localhost", "127.0.0.1")


def test_only_this_machine_can_reach_it(services: Any) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:8080:8080"]


def test_what_it_mounts_and_builds_is_there(services: Any) -> None:
    assert (ROOT / services["service"]["build"] / "Dockerfile").exists()
    source, target, how = services["news"]["volumes"][0].split(":")
    assert (ROOT / source, how) == (NEWS, "ro")
    assert services["news"]["command"] == ["python", target]
    assert services["news"]["image"] == services["service"]["image"]


def test_the_news_are_written_into_an_emulator(dynamodb: str, tmp_path: Path) -> None:
    client = emulator.connect(dynamodb)
    environment = clean_environment() | {"AWS_ENDPOINT_URL_DYNAMODB": dynamodb, "PYTHONPATH": str(ROOT)}

    def items() -> int:
        if SENTIMENTS not in client.list_tables()["TableNames"]:
            return 0
        return int(client.scan(TableName=SENTIMENTS, Select="COUNT")["Count"])

    try:
        for _ in range(2):  # a container that is started again finds the tables there
            before = items()
            with subprocess.Popen([sys.executable, NEWS], env=environment, cwd=tmp_path) as process:
                try:
                    assert eventually(lambda: items() > before + DemoOptions().items, 20)  # noqa: B023 - called here
                    assert process.poll() is None
                finally:
                    process.kill()
        assert client.scan(TableName=USERS, Select="COUNT")["Count"] == 3
    finally:
        for name in (SENTIMENTS, USERS):
            client.delete_table(TableName=name)
        client.close()
