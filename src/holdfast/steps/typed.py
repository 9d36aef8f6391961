"""A step as one class: its name in the journal, its parameters, what it records, and how it is done and undone.

The journal keeps parameters and facts as JSON, so the same classes read an older journal. A name is never renamed, and
a field that is added has a default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar, get_args

import msgspec

from holdfast.application.context import ApplicationContext
from holdfast.engine.handlers import Handler, StepContext, UndoStrategy
from holdfast.errors import RefusedError
from holdfast.model import CommitFacts, Facts, PlanParameters


class StepFacts(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """Facts that a step records: ids, digests, names, numbers and paths, and nothing that could hold a secret.

    A field has the default None, or UNSET where None is recorded too, until the step records it.
    """


class NoFacts(StepFacts):
    """The facts of a step that records nothing."""


class WarningFacts(StepFacts):
    warnings: list[str] | None = None
    """Warnings that the commit keeps and `holdfast log show` prints."""


FactsT = TypeVar("FactsT", bound=msgspec.Struct)
_StructT = TypeVar("_StructT", bound=msgspec.Struct)
_OtherT = TypeVar("_OtherT", bound=msgspec.Struct)


@dataclass
class OperationContext:
    """The part of a step's context that does not depend on what the step itself records."""

    untyped: StepContext

    @property
    def operation(self) -> str:
        return self.untyped.operation

    @property
    def plan_parameters(self) -> PlanParameters:
        return self.untyped.plan_parameters

    @property
    def commit_facts(self) -> CommitFacts:
        """Return what the commit recorded; empty before it."""
        return self.untyped.commit_facts

    def facts_of(self, kind: type[TypedStep[_OtherT]]) -> _OtherT | None:
        """Return the facts of another step of this operation, or None if it did not record any."""
        found = self.untyped.earlier.get(kind.name)
        return facts_in(kind, found) if found else None

    def started(self, kind: type[AnyStep]) -> bool:
        """Return whether a step of that kind was ever begun in this operation."""
        return self.untyped.started(kind.name)

    def check_cancelled(self) -> None:
        self.untyped.check_cancelled()

    def progress(self, done: int, total: int | None, unit: str) -> None:
        self.untyped.progress(done, total, unit)

    def say(self, text: str) -> None:
        self.untyped.say(text)


@dataclass
class Context(OperationContext, Generic[FactsT]):
    """The input of a step while it runs. Facts must be recorded before the change that they describe."""

    facts: FactsT

    def record(self) -> None:
        """Write the facts to the journal, durably."""
        self.untyped.record(msgspec.to_builtins(self.facts))


class TypedStep(msgspec.Struct, Generic[FactsT], frozen=True, forbid_unknown_fields=True):
    """A step of a plan; its fields are its parameters.

    `do` and `undo` are idempotent and examine the present state before they act.
    """

    name: ClassVar[str]
    """The name in journals, which is never renamed."""
    facts_type: ClassVar[type[msgspec.Struct]] = NoFacts
    """The type argument of the class."""
    is_undone: ClassVar[bool] = False
    """Whether `undo` has anything to do."""
    undo_title: ClassVar[str] = ""
    """What the operator reads while the step is undone, where that is not the opposite of `title`."""
    undo_strategy: ClassVar[UndoStrategy] = ""
    """How a failed upgrade is taken back from this step on: messages name it."""
    may_change_data: ClassVar[bool] = False
    """Whether the application's own code or commands may write to the data in this step."""

    def __init_subclass__(cls) -> None:
        """Keep the type argument, with which the facts of a journal are read."""
        super().__init_subclass__()
        for base in cls.__dict__.get("__orig_bases__", ()):
            for argument in get_args(base):
                if isinstance(argument, type):
                    cls.facts_type = argument

    @property
    def title(self) -> str:
        """Return what the operator reads while the step runs."""
        raise NotImplementedError

    @property
    def parameters(self) -> Mapping[str, object]:
        """Return the fields as the journal keeps them."""
        found: dict[str, object] = msgspec.json.decode(msgspec.json.encode(self))
        return found

    def do(self, application: ApplicationContext, context: Context[FactsT]) -> None:
        """Act. Raise HoldfastError or OSError, upon which the operation is undone."""
        raise NotImplementedError

    def undo(self, application: ApplicationContext, context: Context[FactsT]) -> None:
        """Bring back the state before `do`, wherever it was interrupted."""

    def describe(self, application: ApplicationContext) -> list[str]:
        """Return the exact commands, for the dry run."""
        return []


# One table and one plan hold steps of all kinds. Each has facts of its own type, and mypy has no other word for
# a list of them, because a context is written to as well as read.
AnyStep: TypeAlias = TypedStep[Any]


def handler(kind: type[AnyStep], application: ApplicationContext) -> Handler:
    """Return the code of a step for the engine, bound to one application."""

    def bound(
        act: Callable[[AnyStep, ApplicationContext, Context[msgspec.Struct]], None],
    ) -> Callable[[StepContext], None]:
        def run(context: StepContext) -> None:
            facts = _read(context.facts, kind.facts_type, kind.name)
            act(_read(context.parameters, kind, kind.name), application, Context(context, facts))

        return run

    return Handler(
        do=bound(kind.do),
        undo=bound(kind.undo) if kind.is_undone else None,
        describe=lambda parameters: _read(parameters, kind, kind.name).describe(application),
        check=lambda parameters, facts: check(kind, parameters, facts),
        undo_title=kind.undo_title,
        undo_strategy=kind.undo_strategy,
        may_change_data=kind.may_change_data,
    )


def check(kind: type[AnyStep], parameters: Mapping[str, object], facts: Facts) -> None:
    """Raise RefusedError where a step of a journal has parameters or facts that this version does not know."""
    _read(parameters, kind, kind.name)
    _read(facts, kind.facts_type, kind.name)


def facts_in(kind: type[TypedStep[FactsT]], facts: Facts) -> FactsT:
    """Return facts that a step recorded. Raise RefusedError for those of another version."""
    found: FactsT = _read(facts, kind.facts_type, kind.name)  # type: ignore[assignment]  # the type argument of its class
    return found


def _read(value: Mapping[str, object], kind: type[_StructT], name: str) -> _StructT:
    """Return parameters or facts of a journal. Raise RefusedError where another version of Holdfast wrote others."""
    try:
        found = msgspec.convert(value, kind)
        why = _lost(value, msgspec.to_builtins(found))
    except msgspec.ValidationError as error:
        why = str(error)
    if why:
        what = "parameters" if issubclass(kind, TypedStep) else "facts"
        raise RefusedError(
            f"{name} with {what} of another version ({why})",
            next_step="Finish the operation with the version of Holdfast that began it: holdfast recover",
        )
    return found


def _lost(value: object, kept: object, path: str = "") -> str:
    """Return why a key was not read: a nested dataclass, unlike a struct, ignores one that it does not have."""
    if isinstance(value, Mapping) and isinstance(kept, Mapping):
        for key, item in value.items():
            if key not in kept and item is not None:
                return f"Object contains unknown field `{path}{key}`"
            if found := _lost(item, kept.get(key), f"{path}{key}."):
                return found
    elif isinstance(value, list) and isinstance(kept, (list, tuple)):
        return next(filter(None, (_lost(*pair, path) for pair in zip(value, kept, strict=True))), "")
    return ""
