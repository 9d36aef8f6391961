"""The backup of an operation that replaces data: its files in the window, its databases after the commit.

The window only needs what an undo uses: files that changed since they were copied before it, and restore points or the
replaced databases. A dump takes longer the more data there is, so it is made from those once visitors are served again.
"""

from __future__ import annotations

from pathlib import Path

from holdfast.application.context import Opened
from holdfast.drivers.protocols.vaults import VaultRun
from holdfast.engine.runner import StepContext
from holdfast.errors import CommandFailedError, DamagedError, HoldfastError, NoSpaceError, StepError, lacks_space
from holdfast.model import Backup, Snapshot, Stored
from holdfast.steps import backup, consistency, migrations, restore
from holdfast.steps.typed import Context, OperationContext, StepFacts, TypedStep
from holdfast.system import durable

_SLACK_BYTES = 1 << 20
_ENDED_BY_SIGNAL = (128 + 9, 128 + 15)  # the exit codes that a shell or an engine reports for signals


class LastPassFacts(StepFacts):
    run: str | None = None
    """The backup that is not listed yet, which an undo reads."""
    set_id: str | None = None
    """The backup, which the commit keeps."""


class TakeLastPass(TypedStep[LastPassFacts], frozen=True):
    """Finish a backup without databases, which an undo can read and which is not listed yet."""

    name = "backup.last_pass"
    is_undone = True

    files: tuple[str, ...]
    reason: str
    code: bool = True
    tolerant: bool = False
    """Whether the databases may be broken."""
    safety: bool = False
    """Whether it contains what is about to be replaced."""

    @property
    def title(self) -> str:
        return "copy files that changed since the backup"

    def do(self, opened: Opened, context: Context[LastPassFacts]) -> None:
        vault = backup.vault_of(opened)
        if context.facts_of(backup.PublishBackup) is not None:  # the first pass became a backup of its own
            run, stored = vault.begin(f"{context.operation}.last"), dict[str, Stored]()
        else:
            run, stored = vault.run(context.operation), backup.copied(context)
        taken = consistency.take(opened, run, context, level="quiesce", databases=(), files=self.files, stored=stored)
        if self.code:
            backup.store_code(opened, run, context)
        backup.store_configuration(opened, run, tolerant=self.safety)
        manifest = self._manifest(opened, context, taken)
        run.finish(manifest)
        context.facts.run, context.facts.set_id = run.id, manifest.id
        context.record()

    def _manifest(self, opened: Opened, context: OperationContext, taken: consistency.Instant) -> Backup:
        def manifest_of(*, with_migrations: bool) -> Backup:
            return backup.manifest_of(
                opened,
                context.operation,
                taken,
                backup.files_facts(taken),
                reason=self.reason,
                safety=self.safety,
                with_migrations=with_migrations,
            )

        try:
            return manifest_of(with_migrations=True)
        except StepError as error:  # the manifest omits migrations only if the database is broken
            if not self.tolerant:
                raise
            context.say(f"applied migrations are not known: {error.what}")
            return manifest_of(with_migrations=False)

    def undo(self, opened: Opened, context: Context[LastPassFacts]) -> None:
        if opened.vault is not None:
            opened.vault.abandon(f"{context.operation}.last")


def complete(opened: Opened, context: StepContext) -> None:
    """Dump the restore points or the replaced databases into the backup and commit it.

    The earlier backup from before the window is then removed. A replaced database that is broken may be impossible to
    dump: a `tolerant` step keeps it next to the new one instead.
    """
    vault = backup.vault_of(opened)
    taken = context.earlier["backup.last_pass"]
    if all(one.id != taken["set_id"] for one in vault.backups()):
        run, manifest = vault.resume(taken["run"])
        manifest.reason = context.parameters["reason"]  # drop what a dead attempt added
        for name in context.parameters["databases"]:
            if name not in manifest.datasets:  # else a dead attempt had already added it
                _add(opened, context, run, manifest, name)
        run.finish(manifest)
        if vault.publish(run.id) != taken["set_id"]:
            raise StepError(f"the vault published another backup than {taken['set_id']}")
    listed = next(one for one in vault.backups() if one.id == taken["set_id"])
    vault.abandon(taken["run"])  # remove what is left of a publication that died right after its commit
    before = context.earlier.get("backup.publish", {}).get("set_id")
    if before is not None:
        vault.pin(before, context.operation, False)
        if not any(one.id == before and one.pinned for one in vault.backups()):  # the operator may have pinned it
            vault.remove(before)
    # Read this from the backup itself, because this step may have died right after it was published.
    kept = [name for name, identity in _beside(context).items() if identity and name not in listed.datasets]
    context.record({"set_id": taken["set_id"], "kept": kept})


def _beside(context: StepContext) -> dict[str, str | None]:
    """Return the identities of databases next to the live ones: restore points or replaced databases."""
    if "restore_point.create" in context.earlier:
        return dict(context.earlier["restore_point.create"]["candidates"])
    if not any(context.earlier.get(name) for name in restore.LOADING):
        return {}  # only files were replaced
    return dict(restore.loaded(context)["databases"])


def _add(opened: Opened, context: StepContext, run: VaultRun, manifest: Backup, name: str) -> None:
    """Add a database to the backup, unless it cannot be read and the step is tolerant. Idempotent."""
    target = consistency.dump_path(opened, run.folder, name)
    try:
        snapshot = _dump(opened, context, name, target)
    except (StepError, DamagedError, OSError) as error:
        if not context.parameters.get("tolerant") or _may_pass(opened, name, error, target):
            raise
        try:
            snapshot = _dump(opened, context, name, target)  # a broken database fails again
        except (StepError, DamagedError, OSError) as again:
            said = again.what if isinstance(again, HoldfastError) else str(again)
            warning = opened.host.redactor.text(
                f"the replaced database {name} could not be dumped and is kept next to the new one for"
                f" {opened.loaded.configuration.upgrade.keep_replaced}, with {context.operation} in its name:"
                f" {said.splitlines()[0]}"
            )
            context.say(warning)
            manifest.reason = f"{manifest.reason}; {warning}"
            return
    manifest.datasets[name] = backup.database_facts(opened, run, name, snapshot)
    manifest.size_bytes, manifest.new_bytes = backup.totals_of(manifest.datasets)
    if "schema" in manifest.release:
        manifest.release["schema"][name] = migrations.fingerprint(snapshot.tables)


def _may_pass(opened: Opened, name: str, error: Exception, target: Path) -> bool:
    """Return whether the failure says nothing about the database: an ended program, an unavailable server or vault."""
    if isinstance(error, CommandFailedError) and (
        error.exit_code_of_command < 0 or error.exit_code_of_command in _ENDED_BY_SIGNAL
    ):
        return True
    try:
        opened.databases[name].inspect()
        durable.write_file(target, b"can be written")
        target.unlink()
    except (HoldfastError, OSError):
        return True
    return False


def _dump(opened: Opened, context: StepContext, name: str, target: Path) -> Snapshot:
    """Dump a database; leave nothing at the target on a failure.

    Raise NoSpaceError for a full vault, else StepError, DamagedError or OSError.
    """
    identity = _beside(context)[name]
    if identity is None:
        raise StepError(f"database {name} did not exist")
    try:
        return opened.databases[name].dump(context.operation, identity, target, consistency.COUNT_SECONDS)
    except (HoldfastError, OSError) as error:
        # A dump program reports a full disk only as text.
        full = lacks_space(error) or durable.free_bytes(target.parent) < _SLACK_BYTES
        if target.is_dir():
            durable.remove_tree(target)
        target.unlink(missing_ok=True)
        if full:
            raise NoSpaceError(
                f"the vault is full; database {name} is not in the backup of this operation yet",
                next_step="Free space there, then run: holdfast recover",
            ) from error
        raise
