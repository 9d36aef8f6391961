"""The steps that put search indices into a backup, and that delete snapshots which no backup has any more.

An index is made from the databases, so a backup is made without it where its server fails, and says so.
"""

from __future__ import annotations

from holdfast.application.context import ApplicationContext
from holdfast.config import kinds
from holdfast.drivers.protocols.indices import SearchIndex
from holdfast.drivers.protocols.vaults import VaultRun
from holdfast.engine.journal import utc_now
from holdfast.errors import CancelledError, HoldfastError, StepError
from holdfast.model import Facts
from holdfast.steps import vault_files
from holdfast.steps.typed import Context, NoFacts, OperationContext, TypedStep, WarningFacts
from holdfast.system import durable


def record_name(name: str) -> str:
    """Return the name of an index's record in a backup."""
    return f"index.{name}.json"


class SnapshotFacts(WarningFacts):
    taken: dict[str, Facts] | None = None
    """What the manifest says of each index that is in the backup."""


class SnapshotIndices(TypedStep[SnapshotFacts], frozen=True):
    """Take a snapshot of each index, and put its record into the unfinished backup."""

    name = "index.snapshot"
    is_undone = True
    undo_title = "delete snapshots that are in no backup"

    indices: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"take snapshots of {', '.join(self.indices)}"

    def do(self, application: ApplicationContext, context: Context[SnapshotFacts]) -> None:
        if application.vault is None:
            raise StepError("no vault is configured")
        run = application.vault.run(context.operation)
        context.facts.taken, context.facts.warnings = {}, []
        for name in self.indices:
            context.check_cancelled()
            try:
                context.facts.taken[name] = _take(application, run, name, context.operation)
            except CancelledError:
                raise
            except HoldfastError as error:
                warning = f"the backup is without the index {name}: {application.host.redactor.text(error.what)}"
                context.facts.warnings.append(warning)
                context.say(warning)
        context.record()

    def undo(self, application: ApplicationContext, context: Context[SnapshotFacts]) -> None:
        """Delete the snapshots of an unfinished backup. A published backup keeps its own."""
        drop_unknown(application, context)


def _take(application: ApplicationContext, run: VaultRun, name: str, operation: str) -> Facts:
    index = application.indices[name]
    path = application.operation_folder(operation) / record_name(name)
    path.unlink(missing_ok=True)
    with index.freeze_writes(None) as fix:
        snapshot = fix(path, [], 0)()
    run.remove(record_name(name))
    vault_files.add_file(run, record_name(name), path)
    durable.unlink(path)
    return {
        "kind": index.kind,
        "size_bytes": run.size_of(record_name(name)),
        "tool": index.inspect()["tool"],
        "file": record_name(name),
        "rows": {table: facts["rows"] for table, facts in snapshot.tables.items()},
        "engine": {**snapshot.facts, "taken_at": utc_now()},
    }


def taken(context: OperationContext) -> dict[str, Facts]:
    """Return what the manifest of this operation's backup says of its indices."""
    found = context.facts_of(SnapshotIndices)
    return (found.taken if found is not None else None) or {}


def warnings(context: OperationContext) -> list[str]:
    """Return why this operation's backup is without an index."""
    found = context.facts_of(SnapshotIndices)
    return (found.warnings if found is not None else None) or []


class DropSnapshots(TypedStep[NoFacts], frozen=True):
    """Delete the snapshots that no backup has any more. This is a closing step."""

    name = "index.prune"

    @property
    def title(self) -> str:
        return "delete snapshots of indices that are in no backup"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        drop_unknown(application, context)


def drop_unknown(application: ApplicationContext, context: OperationContext) -> None:
    """Delete such snapshots; what fails is reported, and the next prune deletes them."""
    if application.vault is None or application.vault.damaged():
        return  # a backup that cannot be read may have any of them
    keep = {
        str(facts["engine"].get("snapshot"))
        for backup in application.vault.backups()
        for facts in backup.datasets.values()
        if facts["kind"] in kinds.INDICES
    }
    for name, index in _with_snapshots(application).items():
        try:
            index.drop_snapshots(keep)
        except CancelledError:
            raise
        except HoldfastError as error:
            context.say(f"snapshots of the index {name} could not be deleted: {error.what}")


def _with_snapshots(application: ApplicationContext) -> dict[str, SearchIndex]:
    return {name: index for name, index in application.indices.items() if index.content == "snapshot"}
