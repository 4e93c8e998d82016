"""What a start does not wait for."""

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from quartsse.tools.emulator import environment
from tests.processes import clean_environment, eventually, free_port

AWS = ("boto3", "botocore", "aws_xray_sdk")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A service that traces, and whose interpreter writes down every import; its address and what it wrote."""
    port, said = free_port(), tmp_path / "said"
    env = clean_environment() | environment("http://127.0.0.1:9")
    env |= {"PORT": str(port), "SENTIMENTS_TABLE": "news", "SSE_TRACING": "xray"}
    command = [sys.executable, "-X", "importtime", "-m", "quartsse", "serve"]
    with said.open("w") as file, subprocess.Popen(command, stderr=file, stdout=subprocess.DEVNULL, env=env) as process:
        try:
            assert eventually(lambda: '"listening"' in said.read_text(), 30)
            yield f"http://127.0.0.1:{port}", said
        finally:
            process.kill()


def of_aws(text: str) -> set[str]:
    """The libraries of AWS among imports written down."""
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in text.splitlines()}
    return modules & set(AWS)


def test_nothing_of_aws_is_imported_until_a_stream_is_asked_for(started: tuple[str, Path]) -> None:
    address, said = started
    with urllib.request.urlopen(f"{address}/health", timeout=10) as answer:
        assert answer.status == 200
    assert of_aws(said.read_text()) == set()
    with urllib.request.urlopen(f"{address}/api/v2/stream", timeout=10) as stream:
        assert stream.readline() == b"retry: 3000\n"
        assert eventually(lambda: "boto3" in of_aws(said.read_text()), 30)
