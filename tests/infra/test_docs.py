"""The docs: what they tell a newcomer to type, and what they say of the plan."""

import re
import shlex
from pathlib import Path

import pytest

from tests.infra.terraform import INFRA, REQUIRED

DOCS = INFRA.parent / "docs"
ROOTS = ("lambda", "ecs")


def default_of(root: str, variable: str) -> str:
    """A variable's default, as it is written."""
    text = (INFRA / root / "variables.tf").read_text()
    found = re.search(rf'variable "{variable}" \{{.*?\n  default\s+= (\S+)\n', text, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("root", ROOTS)
def test_the_first_plan_that_the_docs_print_takes_the_variables_that_are_required(root: str) -> None:
    text = (DOCS / f"deploy-{root}.md").read_text()
    block = re.search(r"<!-- tested: plan -->\n```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None
    lines = block[1].replace("\\\n", " ").splitlines()
    enter, init, plan = lines
    assert (enter, init) == (f"cd infra/{root}", "terraform init")
    words = shlex.split(plan)
    assert words[:2] == ["terraform", "plan"]
    given = dict(word.split("=", 1) for word in words[3::2])
    assert set(given) == set(REQUIRED)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", given["image_digest"])


@pytest.mark.parametrize("root", ROOTS)
def test_the_times_in_the_docs_are_the_defaults(root: str) -> None:
    text = (DOCS / f"deploy-{root}.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\d+)(?: s)? \|", text, re.MULTILINE)
    assert len(rows) >= 4
    assert rows == [(name, default_of(root, name)) for name, _ in rows]


def test_every_link_leads_somewhere() -> None:
    for page in ("deploy-lambda.md", "deploy-ecs.md", "proxies.md"):
        for link in re.findall(r"\]\((?!http)([^)#]+)", (DOCS / page).read_text()):
            assert (DOCS / link).exists(), f"{page}: {link}"


def test_every_variable_that_the_docs_name_is_one() -> None:
    for root in ROOTS:
        declared = set(re.findall(r'^variable "(\w+)"', (INFRA / root / "variables.tf").read_text(), re.MULTILINE))
        text = Path(DOCS / f"deploy-{root}.md").read_text()
        named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", text))
        known = declared | {"sentiment_update", "stream_end"}
        assert not named - known
