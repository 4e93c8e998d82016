"""Findings, and how they are told: at a terminal, in a pipe, and as JSON."""

import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import click

State = Literal["ok", "note", "warning", "failed", "skipped"]

_SIGNS: dict[State, tuple[str, str]] = {
    "ok": ("✓", "green"),
    "note": ("·", "cyan"),
    "warning": ("!", "yellow"),
    "failed": ("✗", "red"),
    "skipped": ("-", "bright_black"),
}
_WIDEST = 100
_NAME = 16


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen of one thing; why that matters and what to do about it, where it is not well."""

    name: str
    state: State
    seen: str
    why: str = ""
    cure: str = ""


def ok(name: str, seen: str) -> Finding:
    """It is as it should be."""
    return Finding(name, "ok", seen)


def note(name: str, seen: str, why: str = "") -> Finding:
    """Worth knowing, and neither good nor bad."""
    return Finding(name, "note", seen, why)


def warning(name: str, seen: str, why: str, cure: str) -> Finding:
    """It works, and somebody will be sorry."""
    return Finding(name, "warning", seen, why, cure)


def failed(name: str, seen: str, why: str, cure: str) -> Finding:
    """It does not work."""
    return Finding(name, "failed", seen, why, cure)


def skipped(name: str, seen: str) -> Finding:
    """It could not be looked at; `seen` says why not."""
    return Finding(name, "skipped", seen)


@dataclass(frozen=True, slots=True)
class Heading:
    """What the findings behind it are about."""

    title: str


type Told = Heading | Finding
"""What a check gives, one after the other."""


@dataclass(slots=True)
class Report:
    """All that was found, in its order."""

    subject: str
    findings: list[tuple[str, Finding]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """What the JSON form says beside the findings."""
    interrupted: bool = False
    began: float = field(default_factory=time.monotonic)
    _section: str = ""

    def take(self, told: Told) -> None:
        """Add a finding to the section that the last heading began."""
        if isinstance(told, Heading):
            self._section = told.title
        else:
            self.findings.append((self._section, told))

    @property
    def counts(self) -> Counter[State]:
        """How many findings there are of each state."""
        return Counter(finding.state for _, finding in self.findings)

    def status(self, *, strict: bool) -> int:
        """The exit status: 1 if anything failed, or was warned of and `strict`; 130 after Ctrl-C, as shells have it."""
        if self.interrupted:
            return 130
        bad = self.counts["failed"] + (self.counts["warning"] if strict else 0)
        return 1 if bad or not self.findings else 0

    def summary(self) -> str:
        """One line: how it stands."""
        counts = self.counts
        words: dict[State, str] = {"failed": "failed", "warning": "to watch", "skipped": "skipped"}
        parts = [f"{counts[state]} {word}" for state, word in words.items() if counts[state]]
        well = not counts["failed"] and not counts["warning"]
        verdict = "interrupted" if self.interrupted else "all well" if well else ""
        parts = [*filter(None, [verdict]), f"{counts['ok']} ok", *parts]
        return f"{', '.join(parts)} ({time.monotonic() - self.began:.1f} s)"

    def document(self, *, strict: bool) -> dict[str, Any]:
        """The JSON form."""
        return {
            "subject": self.subject,
            "status": self.status(strict=strict),
            "interrupted": self.interrupted,
            "summary": dict(self.counts),
            "seconds": round(time.monotonic() - self.began, 3),
            **self.facts,
            "findings": [{"section": section, **asdict(finding)} for section, finding in self.findings],
        }


@dataclass(frozen=True, slots=True)
class Style:
    """How to write for whoever reads: `width` None leaves lines whole, as pipes like them."""

    colour: bool = False
    signs: bool = False
    width: int | None = None

    def lines(self, told: Told) -> Iterator[str]:
        """The lines of a heading or a finding. Its state is always a sign or a word, and never colour alone."""
        if isinstance(told, Heading):
            yield ""
            yield self._paint(told.title, bold=True)
            return
        sign, colour = _SIGNS[told.state]
        mark = sign if self.signs else f"{told.state:7}"
        indent = " " * (len(mark) + 3)
        name = printable(told.name)
        first, *others = self._wrapped(f"{name:{_NAME}} {printable(told.seen)}", indent, indent + " " * (_NAME + 1))
        yield f"  {self._paint(mark, fg=colour)} {first.removeprefix(indent)}"
        yield from others
        for word, text in (("why", told.why), ("cure", told.cure)):
            if text:
                start = f"{indent}  {word:5}"
                yield from self._wrapped(printable(text), start, " " * len(start))

    def summary(self, report: Report) -> str:
        """The last line."""
        colour = "red" if report.counts["failed"] else "yellow" if report.counts["warning"] else "green"
        return self._paint(report.summary(), fg=colour, bold=True)

    def _wrapped(self, text: str, first: str, rest: str) -> list[str]:
        if self.width is None:
            return [first + text]
        width = min(self.width, _WIDEST)
        made = textwrap.wrap(
            text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
        )
        return made or [first]

    def _paint(self, text: str, **style: Any) -> str:
        return click.style(text, **style) if self.colour else text


LONGEST = 600


def printable(text: str) -> str:
    """Text from outside as it may be shown: no control characters, which a terminal would obey, and no novel."""
    shown = "".join(sign if sign.isprintable() else "�" for sign in text[:LONGEST])
    return shown + "…" if len(text) > LONGEST else shown


type Progress = Callable[[str], None]
"""Says what is being waited for; the text replaces the one before."""
