"""Imports point one way: a module knows only what lies below it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "quartsse"
MODULES = sorted(PACKAGE.rglob("*.py"))

BELOW = {
    "errors": set(),
    "hub": set(),
    "telemetry": {"errors"},
    "settings": {"errors"},
    "feed": {"hub", "errors", "telemetry"},
    "web": {"feed", "hub", "errors", "telemetry"},
    "client": {"errors"},
    "service": {"web", "feed", "hub", "telemetry", "settings", "errors"},
    "tools": {"service", "web", "feed", "hub", "telemetry", "settings", "errors", "client"},
    "__main__": {"tools", "service", "web", "feed", "hub", "telemetry", "settings", "errors", "client"},
}
"""What each room may import of ours."""

ONLY_IN = {
    "boto3": {"feed", "tools"},
    "botocore": {"feed", "tools"},
    "quart": {"web"},
    "hypercorn": {"web"},
    "aws_xray_sdk": {"telemetry"},
    "pydantic": {"hub", "settings"},
}
"""Who may import what of others'."""


def room_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_in(source: str) -> Iterator[str]:
    """Every module that a source imports, anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "relative" if node.level else node.module or ""
            if module.rstrip(".") == "quartsse":
                yield from (f"quartsse.{name.name}" for name in node.names)
            else:
                yield module


def wrong_in(source: str, room: str) -> list[str]:
    """The imports of a room's source that point the wrong way."""
    wrong = []
    for name in imports_in(source):
        first, _, rest = name.partition(".")
        inside = rest.partition(".")[0]
        foreign = first in ONLY_IN and room not in ONLY_IN[first]
        upward = first == "quartsse" and inside not in {"__version__", room} and inside not in BELOW[room]
        if foreign or upward or name == "relative":
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_every_import_points_down(module: Path) -> None:
    if module != PACKAGE / "__init__.py":
        assert wrong_in(module.read_text(), room_of(module)) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("hub", "from quartsse.feed.items import Item"),
        ("feed", "def later():\n    import quartsse.web.app"),
        ("web", "import boto3"),
        ("feed", "from quart import Quart"),
        ("hub", "from . import hub"),
        ("hub", "from quartsse import feed"),
        ("hub", "import quartsse"),
        ("feed", "if True:\n    from quartsse.settings import Settings"),
        ("web", "from quartsse.tools import demo"),
        ("web", "from botocore.exceptions import ClientError"),
        ("tools", "import hypercorn.config"),
        ("hub", "from quartsse.errors import QuartsseError"),
        ("telemetry", "from quartsse.hub.hub import Hub"),
    ],
)
def test_an_import_that_points_up_is_found(room: str, source: str) -> None:
    assert wrong_in(source, room)


def test_an_import_that_points_down_is_let_through() -> None:
    assert wrong_in("from quartsse import __version__\nfrom quartsse.hub.ids import Place\nimport json", "web") == []


def reads_the_environment(source: str) -> bool:
    """Whether a source looks at the process's environment, by any of the names it has."""
    names = {"environ", "environb", "getenv"}
    return any(
        (isinstance(node, ast.Attribute) and node.attr in names and ast.unparse(node.value) == "os")
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and any(name.name in names for name in node.names))
        for node in ast.walk(ast.parse(source))
    )


def test_only_the_settings_read_the_environment() -> None:
    readers = {str(module.relative_to(PACKAGE)) for module in MODULES if reads_the_environment(module.read_text())}
    # The demo makes its children's environment; a token belongs in no command line, and NO_COLOR is a terminal's.
    assert readers == {"settings.py", "tools/demo.py", "tools/tail.py"}


@pytest.mark.parametrize("source", ["import os\nos.environ['A']", "os.getenv('A')", "from os import environ as e"])
def test_a_look_at_the_environment_is_found(source: str) -> None:
    assert reads_the_environment(source)


def test_nothing_of_aws_is_imported_before_the_server_listens() -> None:
    """Every import of AWS's libraries stands inside a function: 0.5 s that a cold start does not wait for."""
    for module in MODULES:
        at_the_top = [
            node for node in ast.parse(module.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        names = {name for node in at_the_top for name in imports_in(ast.unparse(node))}
        assert not {name for name in names if name.startswith(("boto3", "botocore", "aws_xray_sdk"))}, module
