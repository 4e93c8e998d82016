"""The Dockerfile, read: its stages, their instructions, and what the last one leaves in an image."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: `COPY`, and what follows it, on one line."""

    word: str
    rest: str


@dataclass(slots=True)
class Stage:
    """What stands between one `FROM` and the next."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """The variables of its `ENV`s."""
        pairs = [pair for each in self.instructions if each.word == "ENV" for pair in each.rest.split()]
        return dict(pair.split("=", 1) for pair in pairs)

    def last(self, word: str) -> str:
        """What follows the last instruction of a word."""
        return next(each.rest for each in reversed(self.instructions) if each.word == word)

    def command(self) -> list[str]:
        """Its `CMD`, in the form without a shell."""
        found = json.loads(self.last("CMD"))
        assert isinstance(found, list)
        return found


def stages(text: str | None = None) -> list[Stage]:
    """The stages, with the defaults of `ARG`s filled in."""
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for instruction in _instructions(DOCKERFILE.read_text() if text is None else text):
        rest = re.sub(r"\$\{(\w+)\}", lambda match: arguments.get(match[1], match[0]), instruction.rest)
        if instruction.word == "ARG" and not found:
            name, _, default = rest.partition("=")
            arguments[name] = default
        elif instruction.word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(name, base))
        else:
            found[-1].instructions.append(Instruction(instruction.word, rest))
    return found


def _instructions(text: str) -> list[Instruction]:
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [Instruction(*line.split(None, 1)) for line in joined.splitlines() if line.strip()]
