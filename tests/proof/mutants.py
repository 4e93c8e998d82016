"""Each defence turned off, one at a time: `python -m tests.proof.mutants [TEXT…]` runs those that have a TEXT.

A mutant is a change in a copy of the tree, and the tests of which one must then fail. It ends with a figure, and with
status 1 if a change did not apply, a test was red without it, or nothing went red.
"""

import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree, ignore_patterns
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
DEFENCES = Path(__file__).with_name("mutants.toml")
"""What docs/security.md names."""
FEED = Path(__file__).with_name("feed.toml")
"""What makes the feed wrong."""
HUB = Path(__file__).with_name("hub.toml")
"""What makes the hub wrong."""
SECONDS = 120
"""How long the tests of one mutant may take: a defence that is off may leave them waiting, and that is red as well."""

_PYTEST = ("-m", "pytest", "-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider")
_FAILED = 1


@dataclass(frozen=True, slots=True)
class Mutant:
    """A defence turned off: what then is so (`off`), the change in a file, and the tests that must see it."""

    threat: str
    off: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """The file's text with the change. Raises ValueError unless what is changed is there once."""
        if text.count(self.old) != 1 or self.old == self.new:
            raise ValueError(f"{self.off}: not once in {self.file}: {self.old}")
        return text.replace(self.old, self.new)


def mutants(*registries: Path) -> list[Mutant]:
    """All of some registries, in their order; of all three if none is named."""
    chosen = registries or (DEFENCES, FEED, HUB)
    entries = [entry for registry in chosen for entry in tomllib.loads(registry.read_text())["mutant"]]
    return [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]


class Copy:
    """A copy of the tree in which one thing at a time is changed."""

    def __init__(self, directory: Path) -> None:
        self._root = directory / "tree"
        unwanted = ignore_patterns(
            ".git", "build", "dist", ".venv", "__pycache__", "node_modules", ".cargo", ".*_cache", ".hypothesis"
        )
        copytree(ROOT, self._root, ignore=unwanted)
        modules = ROOT / "tests" / "node_modules"
        if modules.exists():
            (self._root / "tests" / "node_modules").symlink_to(modules)

    def run(self, tests: Sequence[str], seconds: float) -> int | None:
        """Pytest's exit status for some tests; None if they were not done in time."""
        command = [sys.executable, *_PYTEST, *tests]
        try:
            done = subprocess.run(command, cwd=self._root, timeout=seconds, capture_output=True, check=False)
        except subprocess.TimeoutExpired:
            return None
        return done.returncode

    def run_without(self, mutant: Mutant) -> int | None:
        """The same for a mutant's tests, with its defence turned off."""
        path = self._root / mutant.file
        text = path.read_text()
        path.write_text(mutant.applied(text))
        try:
            return self.run(mutant.tests, SECONDS)
        finally:
            path.write_text(text)


def main(words: Sequence[str]) -> int:
    """Run the mutants that have one of these texts in theirs, or all; the exit status."""
    chosen = [one for one in mutants() if not words or any(word in f"{one.threat} {one.off}" for word in words)]
    guards = sorted({test for mutant in chosen for test in mutant.tests})
    with TemporaryDirectory() as directory:
        copy = Copy(Path(directory))
        began = time.monotonic()
        if copy.run(guards, len(guards) * SECONDS) != 0:
            print(f"red before anything was turned off: {' '.join(guards)}")
            return 1
        red = sum(_is_red(copy, mutant) for mutant in chosen)
    print(f"{red} of {len(chosen)} mutants turn a test red; {time.monotonic() - began:.0f} s")
    return int(red != len(chosen))


def _is_red(copy: Copy, mutant: Mutant) -> bool:
    status = copy.run_without(mutant)
    red = status in (_FAILED, None)
    verdict = {_FAILED: "red", None: "red (never done)", 0: "GREEN"}.get(status, f"BROKEN ({status})")
    print(f"{verdict:18}{mutant.threat}: {mutant.off}", flush=True)
    return red


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
