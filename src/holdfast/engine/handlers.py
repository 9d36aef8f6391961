"""What the runner knows of a step: a handler by its name, and what it gives the handler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from holdfast.model import CommitFacts, Facts, PlanParameters

UndoStrategy = Literal["", "restore_point", "gate", "code"]


class StepContext(msgspec.Struct):
    """The input of a handler: its parameters, the facts that it recorded before, the facts of other steps."""

    operation: str
    parameters: Mapping[str, Any]
    facts: Facts
    earlier: Mapping[str, Facts]
    record: Callable[[Facts], None]
    check_cancelled: Callable[[], None]
    progress: Callable[[int, int | None, str], None]
    say: Callable[[str], None]
    commit_facts: CommitFacts
    plan_parameters: PlanParameters
    begun: frozenset[str] = frozenset()

    def started(self, name: str) -> bool:
        """Return whether a step of that name was ever begun in this operation."""
        return name in self.begun


class Handler(msgspec.Struct, frozen=True):
    """The code of a step. Both functions are idempotent and examine the present state before they act.

    `describe` gives the exact commands for the dry run. A handler whose undo is None leaves nothing behind.
    """

    do: Callable[[StepContext], None]
    undo: Callable[[StepContext], None] | None = None
    describe: Callable[[Mapping[str, Any]], list[str]] = lambda parameters: []
    check: Callable[[Mapping[str, Any], Facts], None] = lambda parameters, facts: None
    """Raise HoldfastError for parameters or facts in a journal that this version does not know."""
    undo_title: str = ""
    """What the operator reads while the step is undone; empty where that is the step's own title."""
    undo_strategy: UndoStrategy = ""
    """How a failed upgrade is taken back from this step on."""
    may_change_data: bool = False
    """Whether the application's own code or commands may write to the data in this step."""
