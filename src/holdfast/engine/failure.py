"""The error that an operator sees for an operation that failed and was undone."""

from __future__ import annotations

from holdfast.engine.strategy import REMOVAL, Strategy
from holdfast.errors import (
    CancelledError,
    CommandFailedError,
    DegradedError,
    HoldfastError,
    OperationFailedError,
    RefusedError,
)
from holdfast.system.redaction import Redactor

_FIRST_LINES, _LAST_LINES = 2, 10


def _essential(lines: list[str]) -> list[str]:
    """Return the first and the last lines: some languages print the reason before a long trace, others after it."""
    if len(lines) <= _FIRST_LINES + _LAST_LINES + 1:
        return lines
    left_out = len(lines) - _FIRST_LINES - _LAST_LINES
    return [*lines[:_FIRST_LINES], f"... {left_out} lines, which the log has ...", *lines[-_LAST_LINES:]]


def operator_error(
    error: Exception,
    operation: str,
    redactor: Redactor,
    *,
    back_seconds: float,
    degraded: str | None,
    strategy: Strategy | None = None,
) -> HoldfastError:
    """Return the error to raise: what failed with a command's last lines, the present state, what to run next.

    `degraded` says what stays, if anything does. A refusal and a stop on request keep their own exit codes. `strategy`:
    how a failed upgrade was undone.
    """
    # A refusal before anything was stopped needs no such word.
    said = strategy is not None and (strategy.name != REMOVAL or not isinstance(error, RefusedError))
    made = _error(error, operation, redactor, back_seconds, degraded, f"\n{strategy}" if said else "")
    if strategy is not None:
        made.undone_by = {"strategy": strategy.name, "because": redactor.text(strategy.because)}
    return made


def _error(
    error: Exception, operation: str, redactor: Redactor, back_seconds: float, degraded: str | None, how: str
) -> HoldfastError:
    what = redactor.text(error.what if isinstance(error, HoldfastError) else f"{type(error).__name__}: {error}")
    tail = redactor.text(error.output_tail) if isinstance(error, CommandFailedError) else ""
    if tail.strip():
        what += "\n" + "\n".join(f"  | {line}" for line in _essential(tail.strip().splitlines()))
    next_step = f"Details: holdfast log show {operation}"
    if isinstance(error, HoldfastError) and error.next_step:
        next_step = f"{error.next_step}\n{next_step}"
    if degraded is not None:
        return DegradedError(what, state=f"The old version is serving. {degraded}{how}", next_step=next_step)
    undone = f"Everything was undone in {back_seconds:.2f} s: the state before the operation is back.{how}"
    if isinstance(error, CancelledError):
        return CancelledError(what, state=undone, next_step=next_step)
    if isinstance(error, RefusedError):
        return type(error)(what, state=f"Nothing was changed; all preparations were undone.{how}", next_step=next_step)
    return OperationFailedError(what, state=undone, next_step=next_step)
