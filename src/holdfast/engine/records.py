"""The journal's records of operations and steps, and the facts that it accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from holdfast.engine.lock import Owner
from holdfast.model import Facts, Outcome, StepState

ALLOWED_FACTS = frozenset(
    [
        "absent_databases",
        "applied",
        "aside",
        "backup",
        "base",
        "before",
        "candidate",
        "candidates",
        "closed_earlier",
        "code",
        "counts",
        "created",
        "current",
        "database",
        "databases",
        "datasets",
        "degraded",
        "directory",
        "env_applied",
        "failed",
        "files",
        "gate",
        "identity",
        "instance",
        "instances",
        "instant",
        "kept",
        "live",
        "link",
        "listing",
        "log",
        "moves",
        "opened",
        "package",
        "path",
        "pending",
        "pid",
        "point",
        "port",
        "ports",
        "previous",
        "published",
        "release",
        "released",
        "replaced",
        "restore_point",
        "run",
        "ran",
        "seconds",
        "sequence",
        "service",
        "services",
        "set",
        "set_id",
        "size_bytes",
        "skipped",
        "source",
        "started",
        "stopped",
        "swapped",
        "tables",
        "tags",
        "target",
        "token",
        "unpacked",
        "verified",
        "warnings",
        "written",
        "writer_held_seconds",
    ]
)
"""The only keys that steps may record: ids, digests, names, numbers and paths; nothing that could hold a secret."""


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
