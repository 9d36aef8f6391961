"""A step as one class: its name in the journal, its parameters, what it records, and how it is done and undone.

The journal keeps parameters and facts as JSON, so the same classes read an older journal. A name is never renamed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from holdfast.application.context import Opened
from holdfast.engine.runner import Handler, StepContext
from holdfast.errors import RefusedError
from holdfast.model import Step


class NoFacts(msgspec.Struct, forbid_unknown_fields=True):
    """What a step records that records nothing."""


FactsT = TypeVar("FactsT", bound=msgspec.Struct)


@dataclass
class Context(Generic[FactsT]):
    """What a step gets while it runs. Facts that are set must be recorded before what they speak of is changed."""

    facts: FactsT
    untyped: StepContext

    @property
    def operation(self) -> str:
        return self.untyped.operation

    @property
    def commit_facts(self) -> Mapping[str, Any]:
        return self.untyped.commit_facts

    def record(self) -> None:
        """Write the facts to the journal, durably."""
        self.untyped.record(msgspec.to_builtins(self.facts))


class TypedStep(msgspec.Struct, Generic[FactsT], frozen=True, forbid_unknown_fields=True):
    """A step of a plan; its fields are its parameters. `do` and `undo` are idempotent and look at the world first."""

    name: ClassVar[str]
    facts_type: ClassVar[type[msgspec.Struct]] = NoFacts
    is_undone: ClassVar[bool] = False
    """Whether `undo` has anything to do."""

    @property
    def title(self) -> str:
        """Return what the operator reads while the step runs."""
        raise NotImplementedError

    def do(self, opened: Opened, context: Context[FactsT]) -> None:
        """Act. Raise HoldfastError or OSError, upon which the operation is undone."""
        raise NotImplementedError

    def undo(self, opened: Opened, context: Context[FactsT]) -> None:
        """Bring back the state before `do`, wherever it was interrupted."""

    def describe(self, opened: Opened) -> list[str]:
        """Return the exact commands, for the dry run."""
        return []

    def planned(self) -> Step:
        """Return the entry of a plan that the journal keeps."""
        return Step(self.name, self.title, msgspec.to_builtins(self))


def handler(kind: type[TypedStep[Any]], opened: Opened) -> Handler:
    """Return the code of a step for the engine, bound to one application."""

    def bound(act: Callable[[TypedStep[Any], Opened, Context[Any]], None]) -> Callable[[StepContext], None]:
        def run(context: StepContext) -> None:
            facts = _read(context.facts, kind.facts_type, kind.name)
            act(_read(context.parameters, kind, kind.name), opened, Context(facts, context))

        return run

    return Handler(
        do=bound(kind.do),
        undo=bound(kind.undo) if kind.is_undone else None,
        describe=lambda parameters: _read(parameters, kind, kind.name).describe(opened),
    )


_StructT = TypeVar("_StructT", bound=msgspec.Struct)


def _read(value: Mapping[str, Any], kind: type[_StructT], name: str) -> _StructT:
    """Return parameters or facts of a journal. Raise RefusedError where another version of Holdfast wrote others."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise RefusedError(
            f"the step {name} in the journal is not one of this version of Holdfast: {error}",
            next_step="Finish the operation with the version of Holdfast that began it: holdfast recover",
        ) from error
