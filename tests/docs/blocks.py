"""The code that the docs print: fenced blocks, and what stands above each of them."""

import re
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNNABLE = {"sh", "bash", "python", "py", "js", "javascript", "jsx", "mjs", "ts", "html", "nginx", "haproxy"}
_BLOCK = re.compile(
    r"(?:^[ ]*<!-- (?P<mark>[^\n]*) -->\n)?^(?P<indent>[ ]*)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Block:
    """One block: where it is, its language, what is said above it, and its text."""

    page: str
    line: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every page that is ours."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return [ROOT / name for name in listed.split() if "/vendor/" not in name]


def blocks() -> list[Block]:
    """Every block of every page."""
    return [block for page in pages() for block in _in(page)]


def marked(mark: str) -> list[Block]:
    """The blocks that are run in one way."""
    return [block for block in blocks() if block.mark == f"tested: {mark}"]


def _in(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("indent")) + 1
        written = textwrap.dedent(found["text"])
        yield Block(str(page.relative_to(ROOT)), line, found["language"], found["mark"] or "", written)
