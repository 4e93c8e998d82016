"""The image, built without a Docker engine: the Dockerfile's steps, done one by one in a folder of its own.

What is done elsewhere than in an image: paths are moved into that folder, `python` is the interpreter of the tests,
and nobody is added to this machine's users. In the quick run the locked requirements are not downloaded: those that
run the tests stand in for them. The slow run downloads them.
"""

import fnmatch
import importlib.metadata
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.dynamodb import Tables
from tests.infra.dockerfile import DOCKERFILE, Stage, stages
from tests.infra.terraform import INFRA
from tests.processes import clean_environment, eventually, free_port
from tests.web.serving import request

CONTEXT = DOCKERFILE.parent
REQUIREMENTS = re.compile(r"\S+ -m pip install \S[^&]* -r (requirements/base\.txt)")


@dataclass
class Image:
    """The folder that stands for the roots of all stages: each has its own below it."""

    place: Path
    quick: bool

    def root(self, stage: Stage) -> Path:
        """A stage's root folder."""
        return self.place / (stage.name or "last")

    def build(self) -> Path:
        """Do every stage's steps; gives the last one's root."""
        shims = self.place / "shims"
        shims.mkdir(parents=True)
        (shims / "python").symlink_to(self._interpreter())
        (shims / "useradd").write_text(f'#!/bin/sh\necho "$@" > {self.place}/useradd\n')
        (shims / "useradd").chmod(0o755)
        for stage in stages():
            self._build(stage)
        return self.root(stages()[-1])

    def _interpreter(self) -> Path:
        """The base image's interpreter; one of its own where something will be installed into it."""
        interpreter = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
        if self.quick:
            return interpreter
        subprocess.run([interpreter, "-m", "venv", self.place / "python"], check=True, timeout=120)
        return self.place / "python" / "bin" / "python"

    def _build(self, stage: Stage) -> None:
        root = self.root(stage)
        (root / "opt").mkdir(parents=True)
        if stage.name == "adapter":  # an image of somebody else's
            (root / "lambda-adapter").write_text("a program")
        folder, environment = root, self._environment(root)
        for instruction in stage.instructions:
            match instruction.word:
                case "WORKDIR":
                    folder = root / instruction.rest.lstrip("/")
                    folder.mkdir(parents=True)
                case "COPY":
                    self._copy(instruction.rest, root, folder)
                case "ENV":
                    environment |= self._variables(stage, root)
                case "RUN":
                    self._run(instruction.rest, root, folder, environment)
                case "USER" | "EXPOSE" | "CMD":
                    pass
                case other:
                    pytest.fail(f"{other} is an instruction that this test cannot do")
        if self.quick and stage.name == "build":  # last: pip must not see what is installed there
            (root / "opt" / "quartsse" / _SITE / "tests.pth").write_text(sysconfig.get_path("purelib"))

    def _copy(self, rest: str, root: Path, folder: Path) -> None:
        *sources, target = rest.split()
        source_root = CONTEXT
        if sources[0].startswith("--from="):
            wanted = sources.pop(0).removeprefix("--from=")
            source_root = self.root(next(stage for stage in stages() if stage.name == wanted))
        goal = root / target.lstrip("/") if target.startswith("/") else folder / target
        for source in sources:
            found = source_root / source.lstrip("/")
            left_out = ("__pycache__",) if source_root == CONTEXT else ()
            assert source_root != CONTEXT or _in_context(source), f"COPY {source}: .dockerignore keeps it out"
            _copy(found, goal / found.name if target.endswith("/") else goal, left_out)

    def _run(self, command: str, root: Path, folder: Path, environment: Mapping[str, str]) -> None:
        moved = command.replace("/opt/quartsse", f"{root}/opt/quartsse")
        if self.quick:
            moved = REQUIREMENTS.sub(r"test -s \1", moved)
            moved = re.sub(r"\S+ -m pip install --no-cache-dir hatchling==\S+", "true", moved)
            moved = re.sub(r"python -m pip wheel", f"{sys.executable} -m pip wheel", moved)
        done = subprocess.run(
            ["/bin/sh", "-e", "-c", moved],
            cwd=folder,
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"RUN {command}\n{done.stdout}{done.stderr}"

    def _environment(self, root: Path) -> dict[str, str]:
        path = f"{self.place}/shims:{os.environ['PATH']}"
        return clean_environment() | {"PATH": path, "PYTHONDONTWRITEBYTECODE": "", "PIP_NO_INPUT": "1"}

    def _variables(self, stage: Stage, root: Path) -> dict[str, str]:
        found = stage.environment()
        path = found["PATH"].replace("/opt/quartsse", f"{root}/opt/quartsse")
        return found | {"PATH": path.replace("$PATH", f"{self.place}/shims:{os.environ['PATH']}")}


_SITE = f"lib/python3.{sys.version_info.minor}/site-packages"


def _in_context(source: str) -> bool:
    """Whether `.dockerignore` lets a file or folder through: the last line that fits decides."""
    kept = True
    for line in (CONTEXT / ".dockerignore").read_text().split():
        pattern = line.removeprefix("!")
        if fnmatch.fnmatch(source, pattern) or source.startswith(f"{pattern}/"):
            kept = line.startswith("!")
    return kept


def _copy(source: Path, goal: Path, left_out: Sequence[str]) -> None:
    assert source.exists(), f"COPY {source.name}: there is no such file"
    goal.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, goal, symlinks=True, ignore=shutil.ignore_patterns(*left_out), dirs_exist_ok=True)
    else:
        shutil.copy2(source, goal)


@pytest.fixture(scope="module", params=[True, pytest.param(False, marks=pytest.mark.slow)], ids=["quick", "whole"])
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the image."""
    return Image(tmp_path_factory.mktemp("image") / "stages", request.param).build()


@contextmanager
def started(image: Path, settings: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The image's process, as it is started where nothing but its own settings is known."""
    last = stages()[-1]
    own = last.environment()
    path = own["PATH"].replace("/opt/quartsse", f"{image}/opt/quartsse").replace("$PATH", os.environ["PATH"])
    environment = clean_environment() | own | {"PATH": path, **settings}
    program = shutil.which(last.command()[0], path=path)
    assert program is not None
    with subprocess.Popen(
        [program, *last.command()[1:]], cwd=image, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_the_image_serves(image: Path, table: Tables) -> None:
    port = free_port()
    with started(image, table.environment() | {"PORT": str(port), "SSE_DASHBOARD": "1", "SSE_AUTH": "header"}) as it:
        assert eventually(lambda: it.poll() is not None or _listens(port))
        assert (await request(port, "/health")).status == 200
        stream = await request(port, "/api/v2/stream")
        await stream.until("metrics")
        for path in ("/", "/static/quartsse.js"):
            assert (await request(port, path)).status == 200
        it.terminate()
        assert (await stream.until("stream_end"))[-1]["event"] == "stream_end"
        assert it.wait(5) == 0


def test_the_image_brings_compiled_code(image: Path) -> None:
    package = image / "opt" / "quartsse" / _SITE / "quartsse"
    sources = list(package.rglob("*.py"))
    assert len(sources) > 30
    compiled = {path.name.split(".")[0] for path in package.rglob("*.pyc")}
    assert {path.stem for path in sources} <= compiled


def test_the_image_brings_everything_of_the_package(image: Path) -> None:
    package = image / "opt" / "quartsse" / _SITE / "quartsse"
    ours = {str(path.relative_to(CONTEXT / "quartsse")) for path in (CONTEXT / "quartsse").rglob("*")}
    found = {str(path.relative_to(package)) for path in package.rglob("*")}
    assert {name for name in ours if "__pycache__" not in name} <= found
    assert not [name for name in found if "node_modules" in name or name.startswith("tests")]
    assert len(list(package.parent.glob("quartsse-*.dist-info/licenses/LICENSE"))) == 1


def test_the_image_runs_as_nobody_in_particular(image: Path) -> None:
    added = (image.parent / "useradd").read_text().split()
    assert stages()[-1].last("USER") == added[-1] == "quartsse"
    user = added[added.index("--uid") + 1]
    assert f'user                   = "{user}"' in (INFRA / "ecs" / "main.tf").read_text()


def test_the_adapter_is_where_lambda_looks_for_extensions(image: Path) -> None:
    assert list((image / "opt" / "extensions").iterdir()) == [image / "opt" / "extensions" / "lambda-adapter"]


def test_base_images_are_named_exactly() -> None:
    for stage in stages():
        assert re.search(r":\d+\.\d+\.\d+[^/]*$|@sha256:", stage.base), f"{stage.base} says no version"
    arguments = re.findall(r"^ARG (\w+)=", DOCKERFILE.read_text(), re.MULTILINE)
    assert arguments == ["PYTHON_IMAGE", "ADAPTER_IMAGE"], "what a release fills in with digests"


def test_the_lock_is_what_the_tests_run_with() -> None:
    locked = dict(
        re.findall(r"^([a-z0-9-]+)==(\S+)", (CONTEXT / "requirements" / "base.txt").read_text(), re.MULTILINE)
    )
    assert {"quart", "hypercorn", "boto3", "uvloop"} <= set(locked)
    assert {name: importlib.metadata.version(name) for name in locked if name != "colorama"} == {
        name: version for name, version in locked.items() if name != "colorama"
    }


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
