"""The journal's records of operations and steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from holdfast.engine.lock import Owner
from holdfast.model import Facts, Outcome, StepState


@dataclass(frozen=True)
class StepRecord:
    position: int
    name: str
    title: str
    parameters: dict[str, Any]
    after_commit: bool
    state: StepState
    facts: Facts
    error: str
    seconds: float


@dataclass(frozen=True)
class OperationRecord:
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
