"""Logs: one JSON line each, plain ones at a terminal; no control characters from outside, and no secrets."""

import json
import logging
import sys
from datetime import UTC, datetime

from quartsse.telemetry.redaction import redacted

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


def log_to_stderr(level: str) -> None:
    """Send every log of the process to stderr: JSON, or plain lines at a terminal."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainLines() if sys.stderr.isatty() else JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("botocore", "boto3", "urllib3", "hypercorn", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _extras(record: logging.LogRecord) -> dict[str, object]:
    found = {name: value for name, value in record.__dict__.items() if name not in _OWN}
    return {
        name: value if isinstance(value, int | float | None) else redacted(str(value)) for name, value in found.items()
    }


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
