"""What a log line looks like, whatever is in it."""

import json
import logging

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quartsse.telemetry.logs import JsonLines, PlainLines

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
