"""Restore points, which an operation makes on the same host to go back in seconds before the commit."""

from __future__ import annotations

from contextlib import suppress

from holdfast.application.context import ApplicationContext
from holdfast.drivers.protocols.vaults import StoredBackup
from holdfast.errors import CancelledError, HoldfastError, StepError
from holdfast.model import Entry, Facts, Release
from holdfast.steps.backup import PublishBackup
from holdfast.steps.candidates import CandidateFacts
from holdfast.steps.last_pass import TakeLastPass
from holdfast.steps.service_steps import StartServices
from holdfast.steps.tasks import RunTask
from holdfast.steps.typed import Context, NoFacts, OperationContext, StepFacts, TypedStep
from holdfast.system import durable


class AheadFacts(StepFacts):
    ahead: dict[str, Facts] | None = None
    """What each database returned for its restore point, by name."""


class PrepareRestorePoint(TypedStep[AheadFacts], frozen=True):
    """Do what can be done of restore points while visitors are served; `CreateRestorePoint` completes them."""

    name = "restore_point.prepare"
    is_undone = True

    @property
    def title(self) -> str:
        return "prepare the restore point"

    def do(self, application: ApplicationContext, context: Context[AheadFacts]) -> None:
        """Continue without a database that fails here: its whole copy is then made while services are stopped."""
        ahead: dict[str, Facts] = {}
        for name, database in application.databases.items():
            try:
                if database.inspect()["exists"]:
                    ahead[name] = database.copy_ahead(context.operation)
            except CancelledError:
                raise
            except (HoldfastError, OSError) as error:
                context.say(
                    f"The restore point of {name} could not be prepared, so all of it is made while visitors wait:"
                    f" {application.host.redactor.text(str(error))}"
                )
                _discard_unless_down(application, name, context.operation)
        context.facts.ahead = ahead
        context.record()

    def undo(self, application: ApplicationContext, context: Context[AheadFacts]) -> None:
        _discard(application, context.operation)


def _discard_unless_down(application: ApplicationContext, name: str, operation: str) -> None:
    """Free the space of an unfinished copy; where that fails, the next copy replaces it or the undo drops it."""
    with suppress(HoldfastError, OSError):
        application.databases[name].discard(operation)


class CreateRestorePoint(TypedStep[CandidateFacts], frozen=True):
    """Create a candidate database of each database while services are stopped; durable when the step is done."""

    name = "restore_point.create"
    is_undone = True

    @property
    def title(self) -> str:
        return "make the restore point"

    def do(self, application: ApplicationContext, context: Context[CandidateFacts]) -> None:
        identities: dict[str, str | None] = {}
        candidates: dict[str, str] = {}
        prepared = context.facts_of(PrepareRestorePoint)
        ahead = (prepared.ahead if prepared is not None else None) or {}
        for name, database in application.databases.items():
            facts = database.inspect()
            identities[name] = facts["identity"]
            if facts["exists"]:
                candidates[name] = database.prepare(context.operation, None, ahead.get(name, {}))
        durable.barrier(application.barrier_paths())
        context.facts.databases, context.facts.candidates = identities, candidates
        context.record()

    def undo(self, application: ApplicationContext, context: Context[CandidateFacts]) -> None:
        """Remove the copy, and make the live database usable again where a copy was cut short."""
        _discard(application, context.operation)


class DropRestorePoint(TypedStep[NoFacts], frozen=True):
    """Drop the restore point. This is a closing step."""

    name = "restore_point.drop"

    @property
    def title(self) -> str:
        return "drop the restore point"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        _discard(application, context.operation)


def _discard(application: ApplicationContext, operation: str) -> None:
    for database in application.databases.values():
        database.discard(operation)
    for files in application.files.values():
        files.discard(operation)


def _restore_point(context: OperationContext) -> CandidateFacts:
    """Return the restore point of this operation. Raise StepError."""
    point = context.facts_of(CreateRestorePoint)
    if point is None:
        raise StepError("the restore point of this operation is not known; databases cannot be put back")
    return point


class WipeData(TypedStep[NoFacts], frozen=True):
    """Move all data out of the way; the undo of `AllowChanges` brings it back."""

    name = "data.wipe"
    may_change_data = True

    release: Release

    @property
    def title(self) -> str:
        return "remove the data"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        identities = _restore_point(context).databases or {}
        for name, database in application.databases.items():
            if database.inspect()["identity"] == identities.get(name):
                database.swap(context.operation, None, f"{context.operation}.wiped")
        for files in application.files.values():
            token = f"{context.operation}.wiped"
            if not files.staged(token):
                files.stage(token, (), _nothing, context.check_cancelled)
            files.apply(token)


def _nothing(entry: Entry, descriptor: int) -> None:
    raise StepError(f"unexpected file to restore: {entry.path}")


class AllowChanges(TypedStep[NoFacts], frozen=True):
    """Record that the data may change from here; the undo of this step relies on the record."""

    name = "restore_point.arm"
    is_undone = True
    undo_title = "put the data back"
    undo_strategy = "restore_point"

    files: tuple[str, ...]
    """The files datasets that are in the backup of this operation."""

    @property
    def title(self) -> str:
        return "let the migration write to the data"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        """Do nothing: the journal has what the undo needs."""

    def undo(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        """Put databases back by a rename, and files by difference from the backup of this operation."""
        if not any((context.started(RunTask), context.started(StartServices), context.started(WipeData))):
            return
        point = _restore_point(context)
        candidates, identities = point.candidates or {}, point.databases or {}
        for name, database in application.databases.items():
            candidate = candidates.get(name)
            if candidate is not None:
                database.swap(context.operation, candidate, f"{context.operation}.failed")
            elif identities.get(name) is None:
                database.swap(context.operation, None, f"{context.operation}.failed")
        self._put_files_back(application, context)

    def _put_files_back(self, application: ApplicationContext, context: OperationContext) -> None:
        if not self.files:
            return
        source = _saved(application, context)
        for name in self.files:
            files = application.files[name]
            attempt = 1
            while files.staged(f"{context.operation}.back{attempt}"):
                attempt += 1
            token = f"{context.operation}.back{attempt}"
            files.stage(token, source.listing(name), source.fetch, context.check_cancelled)
            files.apply(token)


def _saved(application: ApplicationContext, context: OperationContext) -> StoredBackup:
    """Return what this operation saved last before anything changed: an unlisted run or a committed backup."""
    last_pass, published = context.facts_of(TakeLastPass), context.facts_of(PublishBackup)
    if application.vault is not None and last_pass is not None and last_pass.run is not None:
        return application.vault.open_run(last_pass.run)
    if application.vault is not None and published is not None and published.set_id is not None:
        return application.vault.open_set(published.set_id)
    raise StepError("the backup of this operation is not known; files cannot be restored")
