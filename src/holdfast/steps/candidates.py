"""The facts of steps that make candidate databases, and the names of steps for which others look in the journal."""

from __future__ import annotations

from holdfast.steps.typed import StepFacts

LAST_PASS = "backup.last_pass"
COMPLETE = "backup.complete"


class CandidateFacts(StepFacts):
    """The identities of databases, by name."""

    databases: dict[str, str | None] | None = None
    """The live databases; None for one that does not exist."""
    candidates: dict[str, str] | None = None
    """The databases next to them."""
