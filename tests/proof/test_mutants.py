"""The registry of mutants is whole: every threat has one, every change applies, every test that it names is there."""

import re
from pathlib import Path

import pytest

from tests.proof.mutants import DEFENCES, ROOT, Mutant, mutants

SECURITY = ROOT / "docs" / "security.md"
HEADING = "threat"


def threats() -> list[str]:
    """The first cells of the tables in docs/security.md."""
    rows = re.findall(r"^\| (.+?) \| ", SECURITY.read_text(), re.MULTILINE)
    return [row for row in rows if row not in (HEADING, "---")]


def test_every_threat_that_is_named_has_a_defence_that_can_be_turned_off() -> None:
    assert len(threats()) > 20
    assert not set(threats()) - {mutant.threat for mutant in mutants(DEFENCES)}


def test_no_defence_is_turned_off_that_the_docs_do_not_name() -> None:
    assert not {mutant.threat for mutant in mutants(DEFENCES)} - set(threats())


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.off)
def test_every_change_still_applies(mutant: Mutant) -> None:
    path = ROOT / mutant.file
    changed = mutant.applied(path.read_text())
    compile(changed, str(path), "exec")


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.off)
def test_every_guard_is_there(mutant: Mutant) -> None:
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert Path(ROOT / path).exists()
        assert not name or f"def {name}(" in (ROOT / path).read_text()


def test_a_change_that_does_not_apply_is_told() -> None:
    mutant = Mutant("threat", "off", "file", "old", "new", ())
    with pytest.raises(ValueError, match="not once"):
        mutant.applied("something else")
    with pytest.raises(ValueError, match="not once"):
        mutant.applied("old and old")
