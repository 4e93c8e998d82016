"""The emulator and the leash that ends it."""

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from werkzeug.test import Client, EnvironBuilder
from werkzeug.wrappers import Response

from quartsse.tools import emulator
from tests.processes import clean_environment


def test_it_says_where_it_listens_and_ends_when_its_parent_lets_go() -> None:
    with subprocess.Popen(
        emulator.COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment()
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{address}/moto-api/data.json", timeout=5) as answer:
            assert answer.status == 200
        process.communicate(timeout=5)
    assert process.returncode < 0


def test_its_client_does_not_look_at_the_environment(dynamodb: str) -> None:
    """Not at the user's profile, which may not exist, nor at a proxy."""
    script = f"from quartsse.tools import emulator; emulator.connect({dynamodb!r}).list_tables()"
    hostile = {"HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1", "AWS_REGION": "nowhere"}
    subprocess.run([sys.executable, "-c", script], env=clean_environment() | hostile, check=True, timeout=30)


def test_requests_are_answered_one_at_a_time() -> None:
    meeting = threading.Barrier(2)
    met: list[bool] = []

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            meeting.wait(0.2)
            met.append(True)
        except threading.BrokenBarrierError:
            met.append(False)
        return Response("done")(environ, start_response)

    mended = emulator.mended(application)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: Client(mended).get("/").status_code, range(2)))
    assert answers == [200, 200]
    assert met == [False, False]


def test_a_query_says_what_it_cost_and_other_answers_pass_as_they_are() -> None:
    body = b'{"ScannedCount": 9, "ConsumedCapacity": {"CapacityUnits": 1.0}}'

    def units(target: str) -> float:
        environ = EnvironBuilder(method="POST", headers=[("X-Amz-Target", f"DynamoDB_20120810.{target}")]).get_environ()
        answer = Response.from_app(emulator.mended(Response(body, headers=[("x-amz-crc32", "1")])), environ)
        assert ("x-amz-crc32" in answer.headers) == (target != "Query")
        return float(json.loads(answer.get_data())["ConsumedCapacity"]["CapacityUnits"])

    assert (units("Query"), units("Scan")) == (1.5, 1.0)


def test_a_leashed_program_gets_its_arguments_and_ends_by_itself(tmp_path: Path) -> None:
    (tmp_path / "shout.py").write_text("import sys; print(__name__, sys.argv[1:])")
    command = [sys.executable, "-m", "quartsse.tools.leash", "shout", "a", "b"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read() == "__main__ ['a', 'b']\n"
        assert process.wait(5) == 0
