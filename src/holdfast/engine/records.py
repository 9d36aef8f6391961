"""The journal's records of operations and steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from holdfast.engine.lock import Owner
from holdfast.errors import RefusedError
from holdfast.model import CommitFacts, Facts, Outcome, PlanParameters, StepState


class StepRecord(msgspec.Struct, frozen=True):
    position: int
    name: str
    title: str
    parameters: dict[str, Any]
    after_commit: bool
    state: StepState
    facts: Facts
    error: str
    seconds: float


class OperationRecord(msgspec.Struct, frozen=True):
    id: str
    sequence: int
    kind: str
    title: str
    lock: str
    command: str
    configuration: dict[str, Any]
    plan: dict[str, Any]
    user: str
    version: str
    owner: Owner
    outcome: Outcome
    committed: bool
    commit_facts: Facts
    error: str
    started_at: str
    ended_at: str
    seconds: float


def parameters_of(record: OperationRecord) -> PlanParameters:
    """Return the parameters of a stored plan. Raise RefusedError for those of another version."""
    return _read(record.plan["parameters"], PlanParameters, "a plan with parameters")


def commit_facts_of(record: OperationRecord) -> CommitFacts:
    """Return what a commit recorded, nothing before it. Raise RefusedError for facts of another version."""
    return _read(record.commit_facts, CommitFacts, "a commit with facts")


_StructT = TypeVar("_StructT", PlanParameters, CommitFacts)


def _read(value: Mapping[str, Any], kind: type[_StructT], what: str) -> _StructT:
    """Return what an operation's record has. Raise RefusedError for what another version wrote."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise RefusedError(f"{what} of another version ({error})") from error
