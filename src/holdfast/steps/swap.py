"""The swap of candidate databases, wherever they come from, with the live ones. The replaced data allows an undo."""

from __future__ import annotations

from typing import Literal

import msgspec

from holdfast.application.context import ApplicationContext
from holdfast.errors import RefusedError, StepError
from holdfast.model import Release
from holdfast.steps.candidates import CandidateFacts
from holdfast.steps.imports import ImportDatabase, ImportDataDirectory
from holdfast.steps.restore import LoadDatabases, OtherVault
from holdfast.steps.typed import Context, NoFacts, OperationContext, TypedStep

LOADING: tuple[type[TypedStep[CandidateFacts]], ...] = (LoadDatabases, ImportDatabase, ImportDataDirectory)
"""The steps that load candidate databases: from a backup, a dump or a data directory."""


def loaded(context: OperationContext) -> CandidateFacts | None:
    """Return the facts of the step that loaded the candidates; None if none did."""
    return next(filter(None, map(context.facts_of, LOADING)), None)


def _loaded(context: OperationContext) -> CandidateFacts:
    """Return the same; raise StepError if nothing was loaded."""
    found = loaded(context)
    if found is None:
        raise StepError("the candidate databases of this operation are not known")
    return found


class SwapDatabases(TypedStep[NoFacts], frozen=True):
    """Put the candidate databases in the place of the live ones."""

    name = "database.swap"
    is_undone = True

    origin: Literal["restored", "loaded", "earlier", "imported"] = "restored"
    """Which databases they are, for the title."""
    set: str = ""
    sets: dict[str, str] = msgspec.field(default_factory=dict)
    databases: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    release: Release | None = None
    vault: OtherVault | None = None

    @property
    def title(self) -> str:
        return f"put the {self.origin} {'database' if self.origin == 'imported' else 'databases'} in place"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        facts = _loaded(context)
        identities = facts.databases or {}
        for name, candidate in (facts.candidates or {}).items():
            identity = application.databases[name].inspect()["identity"]
            if identity not in (identities[name], candidate):
                raise RefusedError(
                    f"database {name} was replaced by another program during the restore",
                    next_step="Find out which one, then run the command again.",
                )
            application.databases[name].swap(context.operation, candidate, f"{context.operation}.replaced")

    def undo(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        for name, identity in (_loaded(context).databases or {}).items():
            application.databases[name].swap(context.operation, identity, f"{context.operation}.undone")
