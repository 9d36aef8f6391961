"""What an operator reads of a command that failed."""

from __future__ import annotations

from holdfast.engine.failure import operator_error
from holdfast.errors import CommandFailedError
from holdfast.system.redaction import Redactor


def _told(lines: int) -> str:
    output = "\n".join(f"line {number}" for number in range(1, lines + 1))
    error = CommandFailedError("`migrate` ended with exit code 1", exit_code_of_command=1, output_tail=output)
    return operator_error(error, "op1", Redactor(), back_seconds=1, degraded=None).what


def test_a_short_output_is_shown_as_it_is() -> None:
    assert _told(13).count("\n") == 13 and "which the log has" not in _told(13)


def test_of_a_long_one_the_reason_is_shown_wherever_it_stands() -> None:
    """Ruby prints it before a trace, Python after it."""
    shown = _told(100)
    assert "| line 1\n" in shown and "| line 100" in shown and "| line 50\n" not in shown
    assert "... 88 lines, which the log has ..." in shown
