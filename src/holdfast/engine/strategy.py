"""The way in which a failed upgrade is taken back, as its journal decides: by name, with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from holdfast.engine.handlers import Handler
from holdfast.engine.records import OperationRecord, StepRecord, parameters_of
from holdfast.model import Outcome, StepState

StrategyName = Literal["the restore point", "reopening", "the old code alone", "removing the new release"]

REMOVAL: StrategyName = "removing the new release"


class Strategy(msgspec.Struct, frozen=True):
    """A strategy, and why it is the one."""

    name: StrategyName
    because: str

    def __str__(self) -> str:
        return f"Undone by {self.name}: because {self.because}."


def of_a_failure(
    operation: OperationRecord, steps: Sequence[StepRecord], handlers: Mapping[str, Handler]
) -> Strategy | None:
    """Return the strategy of an upgrade that did not come to its commit; None for every other operation.

    The latest step that began decides. Data go back only if a step began that could change them.
    """
    begun = [step for step in steps if not step.after_commit and step.state is not StepState.PENDING]
    if operation.committed or not begun or parameters_of(operation).mode is None:
        return None
    last = begun[-1].title
    changing = ""
    for step in reversed(begun):
        handler = handlers.get(step.name)
        if handler is None:
            continue
        if handler.may_change_data:
            changing = step.title
        if handler.undo_strategy == "restore_point" and changing:
            return Strategy("the restore point", f"`{changing}` had begun, after which the data may have changed")
        if handler.undo_strategy == "code":
            return Strategy(
                "the old code alone", f"`{step.title}` had begun while visitors wrote, so no data may be put back"
            )
        if handler.undo_strategy == "gate":
            return Strategy("reopening", f"`{last}` did not succeed, and nothing had changed the data before")
    return Strategy(REMOVAL, f"`{last}` did not succeed, and the old version had served visitors all the time")


def of_an_undone(
    operation: OperationRecord, steps: Sequence[StepRecord], handlers: Mapping[str, Handler]
) -> Strategy | None:
    """Return the strategy by which an operation was undone; None if it was not, or if it is no upgrade."""
    if operation.outcome not in (Outcome.UNDONE, Outcome.DEGRADED):
        return None
    return of_a_failure(operation, steps, handlers)
