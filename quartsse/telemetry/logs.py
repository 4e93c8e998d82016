"""Logs: one JSON line each, plain ones at a terminal; no control characters from outside, and no secrets."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import TextIO, override

from quartsse.telemetry.redaction import redacted
from quartsse.telemetry.tracing import TRACE

MOST_ALIKE = 100
WHILE = 10.0
"""Lines of one kind that are written within so many seconds; the others are counted."""
MOST_KINDS = 500

_OWN = {"message", "asctime", "taskName"} | set(logging.makeLogRecord({}).__dict__)


class JsonLines(logging.Formatter):
    """A record as one line of JSON; what was passed as `extra` becomes members of it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the record holds: JSON escapes control characters, and `ensure_ascii` the rest."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": redacted(record.getMessage()),
            **_extras(record),
        }
        if record.exc_info:
            line["exception"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line)


class PlainLines(logging.Formatter):
    """A record as one line for a person at a terminal; a traceback below it is indented, so that none is forged."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, message, extras; a traceback below, if there is one."""
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        extras = "".join(f" {name}={value}" for name, value in _extras(record).items())
        line = _printable(f"{time} {record.levelname.lower():7} {redacted(record.getMessage())}{extras}")
        if not record.exc_info:
            return line
        traceback = redacted(self.formatException(record.exc_info)).split("\n")
        return "\n    ".join([line, *map(_printable, traceback)])


@dataclass(slots=True)
class _Kind:
    """Lines that are alike: since when they are counted, how many came, and the first that was left out."""

    since: float
    count: int = 0
    first_left_out: logging.LogRecord | None = None


class CalmHandler(logging.StreamHandler[TextIO]):
    """Writes at most `MOST_ALIKE` lines of a kind within `WHILE` seconds, and then how many it left out.

    Alike are lines of one logger, level, text (before values are put in) and `reason`. Of more than `MOST_KINDS` the
    oldest is settled and forgotten.
    """

    def __init__(self, stream: TextIO, now: Callable[[], float] = monotonic) -> None:
        super().__init__(stream)
        self._now = now
        self._kinds: dict[tuple[object, ...], _Kind] = {}

    @override
    def emit(self, record: logging.LogRecord) -> None:
        now = self._now()
        for summary in self._settled(now):
            super().emit(summary)
        kind = self._kinds.setdefault(_likeness(record), _Kind(now))
        kind.count += 1
        if kind.count <= MOST_ALIKE:
            super().emit(record)
        elif kind.first_left_out is None:
            kind.first_left_out = record

    @override
    def close(self) -> None:
        """Say what is still unsaid."""
        for summary in self._settled(float("inf")):
            super().emit(summary)
        super().close()

    def _settled(self, now: float) -> Iterator[logging.LogRecord]:
        """Forget the kinds whose time is over, oldest first. Gives a line for each that had too many."""
        while self._kinds:
            likeness, kind = next(iter(self._kinds.items()))
            if now - kind.since < WHILE and len(self._kinds) < MOST_KINDS:
                return
            del self._kinds[likeness]
            if kind.first_left_out is not None:
                yield _summary(kind.first_left_out, kind.count - MOST_ALIKE)


def _likeness(record: logging.LogRecord) -> tuple[object, ...]:
    return record.name, record.levelno, str(record.msg), record.__dict__.get("reason")


def _summary(like: logging.LogRecord, left_out: int) -> logging.LogRecord:
    """A line that stands for those left out."""
    summary = logging.LogRecord(like.name, like.levelno, like.pathname, like.lineno, like.msg, like.args, None)
    summary.__dict__["left_out"] = left_out
    if "reason" in like.__dict__:
        summary.__dict__["reason"] = like.__dict__["reason"]
    return summary


def log_to_stderr(level: str) -> None:
    """Send every log of the process to stderr: JSON, or plain lines at a terminal."""
    handler = CalmHandler(sys.stderr)
    handler.setFormatter(PlainLines() if sys.stderr.isatty() else JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("botocore", "boto3", "urllib3", "hypercorn", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _extras(record: logging.LogRecord) -> dict[str, object]:
    trace = TRACE.get()
    found = {} if trace is None else {"trace": trace}
    found |= {name: value for name, value in record.__dict__.items() if name not in _OWN}
    return {
        name: value if isinstance(value, int | float | None) else redacted(str(value)) for name, value in found.items()
    }


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
