"""What a log line looks like, whatever is in it."""

import io
import json
import logging
import os
import pty
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quartsse.telemetry.logs import MOST_ALIKE, MOST_KINDS, WHILE, CalmHandler, JsonLines, PlainLines
from quartsse.telemetry.tracing import TRACE

SECRET = "s3cr3t-Value_0.9~x"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
SENT = f"GET /s?ticket={SECRET} with Authorization: Bearer {JWT}"

BOTH = pytest.mark.parametrize("formatter", [JsonLines(), PlainLines()], ids=["json", "plain"])


def record(
    message: str, *arguments: object, failure: BaseException | None = None, **extras: object
) -> logging.LogRecord:
    """What is logged by a call with these."""
    raised = None if failure is None else (type(failure), failure, None)
    made = logging.LogRecord("quartsse", logging.WARNING, __file__, 1, message, arguments, raised)
    made.__dict__.update(extras)
    return made


@BOTH
def test_a_line_says_when_how_bad_what_and_what_more(formatter: logging.Formatter) -> None:
    line = formatter.format(record("streams: %d", 3, streams=3, reason="client"))
    for part in ("warning", "streams: 3", "client"):
        assert part in line.lower()


def test_a_json_line_has_its_members() -> None:
    line = json.loads(JsonLines().format(record("closed", seconds=0.25, streams=3, reason="lagged", nothing=None)))
    del line["time"]
    assert line == {
        "level": "WARNING", "message": "closed", "seconds": 0.25, "streams": 3, "reason": "lagged", "nothing": None,
    }  # fmt: skip


@BOTH
def test_tickets_and_tokens_are_taken_out_of_messages_extras_and_exceptions(formatter: logging.Formatter) -> None:
    failure = ValueError(SENT)
    failure.__cause__ = KeyError(f"ticket={SECRET}")
    for made in (
        record(SENT),
        record("asked: %s", SENT),
        record("asked", path=SENT),
        record("asked", headers={"authorization": f"Bearer {SECRET}"}),
        record("asked", headers=[(b"authorization", f"Bearer {JWT}".encode())]),
        record("failed", failure=failure),
    ):
        line = formatter.format(made)
        assert SECRET not in line
        assert JWT not in line
        assert "***" in line


_TEXT = st.text(st.characters(codec=None, exclude_categories=()) | st.sampled_from("\n\r\0\x1b\x7f\x85\u2028\u202e"))


@BOTH
@example(text="x\n12:00:00 warning forged\r\x1b[2J\x7f\x85\u2028\ud800")
@given(text=_TEXT)
def test_whatever_comes_from_outside_is_one_line_without_control_characters(
    formatter: logging.Formatter, text: str
) -> None:
    for made in (record(text), record("%s", text), record("x", path=text)):
        line = formatter.format(made)
        assert line.isprintable()
        assert line.encode()


@example(text='x\n{"level": "forged"}\x7f')
@given(text=_TEXT)
def test_an_exception_is_in_the_same_line_of_json(text: str) -> None:
    line = JsonLines().format(record("failed", failure=ValueError(text)))
    assert line.isprintable()
    assert text in json.loads(line)["exception"] or "***" in line


@example(text="x\n12:00:00 warning forged\r\x1b[2J\x85\u2028")
@given(text=_TEXT)
def test_an_exception_at_a_terminal_stands_indented_below_its_line(text: str) -> None:
    first, *below = PlainLines().format(record("failed", failure=ValueError(text))).split("\n")
    assert first.endswith("warning failed")
    assert all(line.startswith("    ") and line.isprintable() for line in below)


class Watch:
    """A clock that is set by hand, and a handler that asks it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.written = io.StringIO()
        self.handler = CalmHandler(self.written, lambda: self.now)
        self.handler.setFormatter(JsonLines())

    def log(self, times: int, text: str = "refused %d", **extras: Any) -> None:
        for number in range(times):
            arguments = (number,) if "%" in text else ()
            self.handler.handle(record(text, *arguments, **extras))

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.written.getvalue().splitlines()]


def test_what_repeats_is_written_a_hundred_times_and_then_counted() -> None:
    watch = Watch()
    watch.log(350)
    assert len(watch.lines) == MOST_ALIKE
    watch.now = WHILE
    watch.log(1, "another")
    *_, summary, other = watch.lines
    assert (summary["message"], summary["left_out"]) == ("refused 100", 250)
    assert other["message"] == "another"
    watch.log(1)
    assert "left_out" not in watch.lines[-1]
    assert len(watch.lines) == MOST_ALIKE + 3, "its time is over, and it counts anew"


def test_another_reason_is_another_kind() -> None:
    watch = Watch()
    watch.log(150, "stream closed", reason="client")
    watch.log(1, "stream closed", reason="lagged")
    assert watch.lines[-1]["reason"] == "lagged"
    assert len(watch.lines) == MOST_ALIKE + 1


def test_what_was_left_out_is_said_at_the_end() -> None:
    watch = Watch()
    watch.log(103, reason="client")
    watch.handler.close()
    assert (watch.lines[-1]["left_out"], watch.lines[-1]["reason"]) == (3, "client")


def test_ever_new_kinds_are_forgotten_and_the_oldest_settled_first() -> None:
    watch = Watch()
    watch.log(101, "often")
    for number in range(3 * MOST_KINDS):
        watch.log(1, f"kind {number}")
    assert len(watch.handler._kinds) <= MOST_KINDS
    assert [line["left_out"] for line in watch.lines if "left_out" in line] == [1]


@BOTH
def test_a_line_within_a_trace_says_which(formatter: logging.Formatter) -> None:
    before = TRACE.set("1-6a1b2c3d-0123456789abcdef01234567")
    line = formatter.format(record("refused"))
    TRACE.reset(before)
    assert "1-6a1b2c3d-0123456789abcdef01234567" in line


@pytest.mark.parametrize("at_a_terminal", [True, False])
def test_lines_are_plain_at_a_terminal_and_json_elsewhere(at_a_terminal: bool) -> None:
    program = (
        'import logging; from quartsse.telemetry.logs import log_to_stderr as log; log("INFO"); logging.info("hello")'
    )
    ours, theirs = pty.openpty() if at_a_terminal else os.pipe()
    subprocess.run([sys.executable, "-c", program], stderr=theirs, check=True)
    written = os.read(ours, 4096).decode()
    os.close(ours)
    os.close(theirs)
    assert written.startswith("{") is not at_a_terminal
    assert "hello" in written
