"""The closing steps of an operation that replaces data: its databases come into the backup, and the rest is dropped.

The window only needs what an undo uses: files that changed since they were copied before it, and restore points or the
replaced databases. A dump takes longer the more data there is, so it is made from those once visitors are served again.
"""

from __future__ import annotations

from holdfast.application.context import ApplicationContext
from holdfast.drivers.protocols.vaults import VaultRun
from holdfast.errors import CommandFailedError, DamagedError, HoldfastError, NoSpaceError, StepError, lacks_space
from holdfast.model import Backup, Snapshot
from holdfast.steps import backup, consistency, migrations, swap, vault_files
from holdfast.steps.candidates import COMPLETE
from holdfast.steps.last_pass import LastPassFacts, TakeLastPass
from holdfast.steps.restore_point import CreateRestorePoint
from holdfast.steps.typed import Context, NoFacts, OperationContext, StepFacts, TypedStep
from holdfast.system import durable

_SLACK_BYTES = 1 << 20
_TRIAL = "trial"  # a file that shows whether the vault can be written
_ENDED_BY_SIGNAL = (128 + 9, 128 + 15)  # the exit codes that a shell or an engine reports for signals


class CompleteFacts(StepFacts):
    set_id: str | None = None
    """The backup, which the commit keeps."""
    kept: list[str] | None = None
    """The replaced databases that are not in the backup and stay next to the new ones."""


class CompleteBackup(TypedStep[CompleteFacts], frozen=True):
    """Dump the restore points or the replaced databases into the backup and commit it.

    The earlier backup from before the window is then removed. A replaced database that is broken may be impossible to
    dump: a `tolerant` step keeps it next to the new one instead.
    """

    name = COMPLETE

    databases: tuple[str, ...]
    reason: str
    tolerant: bool = False
    safety: bool = False
    """Whether the backup contains what was replaced, for the title."""

    @property
    def title(self) -> str:
        return f"dump the {'replaced databases' if self.safety else 'restore point'} into the backup"

    def do(self, application: ApplicationContext, context: Context[CompleteFacts]) -> None:
        vault = backup.vault_of(application)
        run_id, set_id = _last_pass(context)
        if all(one.id != set_id for one in vault.backups()):
            run, manifest = vault.resume(run_id)
            manifest.reason = self.reason  # drop what a dead attempt added
            for name in self.databases:
                if name not in manifest.datasets:  # else a dead attempt had already added it
                    self._add(application, context, run, manifest, name)
            run.finish(manifest)
            if vault.publish(run.id) != set_id:
                raise StepError(f"the vault published another backup than {set_id}")
        listed = next(one for one in vault.backups() if one.id == set_id)
        vault.abandon(run_id)  # remove what is left of a publication that died right after its commit
        published = context.facts_of(backup.PublishBackup)
        before = published.set_id if published is not None else None
        if before is not None:
            vault.pin(before, context.operation, False)
            if not any(one.id == before and one.pinned for one in vault.backups()):  # the operator may have pinned it
                vault.remove(before)
        # Read this from the backup itself, because this step may have died right after it was published.
        kept = [name for name, identity in _replaced(context).items() if identity and name not in listed.datasets]
        context.facts.set_id, context.facts.kept = set_id, kept
        context.record()

    def _add(
        self, application: ApplicationContext, context: OperationContext, run: VaultRun, manifest: Backup, name: str
    ) -> None:
        """Add a database to the backup, unless it cannot be read and the step is tolerant. Idempotent."""
        try:
            snapshot = _dump(application, context, run, name)
        except (StepError, DamagedError, OSError) as error:
            if not self.tolerant or _may_pass(application, run, name, error):
                raise
            try:
                snapshot = _dump(application, context, run, name)  # a broken database fails again
            except (StepError, DamagedError, OSError) as again:
                warning = _kept_warning(application, context.operation, name, again)
                context.say(warning)
                manifest.reason = f"{manifest.reason}; {warning}"
                return
        manifest.datasets[name] = backup.database_facts(application, run, name, snapshot)
        manifest.size_bytes, manifest.new_bytes = backup.totals_of(manifest.datasets)
        if "schema" in manifest.release:
            manifest.release["schema"][name] = migrations.fingerprint(snapshot.tables, snapshot.schema_version)


def _last_pass(context: OperationContext) -> tuple[str, str]:
    """Return the ids of the unlisted run and of its backup. Raise StepError."""
    taken = context.facts_of(TakeLastPass) or LastPassFacts()
    if taken.run is None or taken.set_id is None:
        raise StepError("the backup of this operation is not known; databases cannot be added to it")
    return taken.run, taken.set_id


def _kept_warning(application: ApplicationContext, operation: str, name: str, error: Exception) -> str:
    what = error.what if isinstance(error, HoldfastError) else str(error)
    return application.host.redactor.text(
        f"the replaced database {name} could not be dumped and is kept next to the new one for"
        f" {application.loaded.configuration.upgrade.keep_replaced}, with {operation} in its name:"
        f" {what.splitlines()[0]}"
    )


def _replaced(context: OperationContext) -> dict[str, str | None]:
    """Return the identities of databases next to the live ones: restore points or replaced databases."""
    point = context.facts_of(CreateRestorePoint)
    if point is not None:
        return dict(point.candidates or {})
    loaded = swap.loaded(context)
    return (loaded.databases if loaded is not None else None) or {}  # none if only files were replaced


def _may_pass(application: ApplicationContext, run: VaultRun, name: str, error: Exception) -> bool:
    """Return whether the failure says nothing about the database: an ended program, an unavailable server or vault."""
    if isinstance(error, CommandFailedError) and (
        error.exit_code_of_command < 0 or error.exit_code_of_command in _ENDED_BY_SIGNAL
    ):
        return True
    try:
        application.databases[name].inspect()
        with run.write(_TRIAL) as file:
            file.write(b"can be written")
        run.remove(_TRIAL)
    except (HoldfastError, OSError):
        return True
    return False


def _dump(application: ApplicationContext, context: OperationContext, run: VaultRun, name: str) -> Snapshot:
    """Dump a database; leave nothing of it on a failure.

    Raise NoSpaceError for a full vault, else StepError, DamagedError or OSError.
    """
    identity = _replaced(context)[name]
    if identity is None:
        raise StepError(f"database {name} did not exist")
    target = vault_files.dump_path(application, run, name)
    try:
        return application.databases[name].dump(context.operation, identity, target, consistency.COUNT_SECONDS)
    except (HoldfastError, OSError) as error:
        # A dump program reports a full disk only as text.
        full = lacks_space(error) or durable.free_bytes(target.parent) < _SLACK_BYTES
        vault_files.drop_dump(application, run, name)
        if full:
            where = "the vault" if run.place_of(target.name) is not None else target.parent
            raise NoSpaceError(
                f"{where} is full; database {name} is not in the backup of this operation yet",
                next_step="Free space there, then run: holdfast recover",
            ) from error
        raise


class TidyReplaced(TypedStep[NoFacts], frozen=True):
    """Drop replaced data unless it is to be kept; `Preflight` removes it later. This is a closing step."""

    name = "restore.tidy"

    keep_replaced: bool = False

    @property
    def title(self) -> str:
        return "keep the replaced data" if self.keep_replaced else "drop the replaced data"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        if self.keep_replaced:
            return
        completed = context.facts_of(CompleteBackup)
        kept = (completed.kept if completed is not None else None) or []
        for name, database in application.databases.items():
            if name not in kept:
                database.discard(context.operation)
        for files in application.files.values():
            files.discard(context.operation)
