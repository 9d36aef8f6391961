"""The set of an operation that replaces data: its files in the window, its databases after the commit.

What the window needs is a way back: files that changed since they were copied before it, and restore points, or the
replaced databases themselves. A dump grows with the data, so it is taken from those once visitors are served again.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from holdfast import durable
from holdfast.engine.runner import StepContext
from holdfast.errors import DamagedError, HoldfastError, StepError, lacks_space
from holdfast.model import Snapshot, Stored
from holdfast.steps import backup, consistency, migrations, restore
from holdfast.steps.opened import Opened


def take(opened: Opened, context: StepContext) -> None:
    """Finishes a set without databases, which an undo can read and nobody else sees."""
    vault = backup.vault_of(opened)
    if "backup.publish" in context.earlier:  # the first pass became a set of its own
        run, stored = vault.begin(f"{context.operation}.last"), dict[str, Stored]()
    else:
        run, stored = vault.run(context.operation), backup.copied(context)
    taken = consistency.take(
        opened, run, context, level="quiesce", databases=(), files=context.parameters["files"], stored=stored
    )
    datasets = {name: {"kind": "files", **msgspec.to_builtins(totals)} for name, totals in taken.stored.items()}
    backup.store_code(opened, run, context)
    backup.store_configuration(opened, run)
    try:
        manifest = backup.manifest_of(opened, context, taken, datasets)
    except StepError as error:  # only then is the manifest without the migrations of a database that is broken
        if not context.parameters.get("tolerant"):
            raise
        context.say(f"applied migrations are not known: {error.what}")
        manifest = backup.manifest_of(opened, context, taken, datasets, with_migrations=False)
    run.finish(manifest)
    context.record({"run": run.id, "set_id": manifest.id})


def abandon(opened: Opened, context: StepContext) -> None:
    """The undo of `take`."""
    if opened.vault is not None:
        opened.vault.abandon(f"{context.operation}.last")


def complete(opened: Opened, context: StepContext) -> None:
    """Dumps the restore points, or what was replaced, into the set and commits it.

    A backup from before the window gives way to it. What was replaced because it is broken may not be dumped ever:
    a `tolerant` step keeps it beside the new one instead.
    """
    vault = backup.vault_of(opened)
    taken, kept = context.earlier["backup.last_pass"], []
    if all(one.id != taken["set_id"] for one in vault.backups()):
        run, manifest = vault.resume(taken["run"])
        for name in context.parameters["databases"]:
            try:
                snapshot = _dump(opened, context, name, consistency.dump_path(opened, run.folder, name))
            except (StepError, DamagedError) as error:
                if lacks_space(error) or not context.parameters.get("tolerant"):
                    raise
                kept.append(name)
                warning = f"database {name} as it was could not be dumped and stays beside the new one: {error.what}"
                context.say(warning)
                manifest.reason = f"{manifest.reason}; {warning}"
                continue
            facts = manifest.datasets[name] = backup.database_facts(opened, run, name, snapshot)
            manifest.size_bytes += facts["size_bytes"]
            manifest.new_bytes += facts["size_bytes"]
            if "schema" in manifest.release:
                manifest.release["schema"][name] = migrations.fingerprint(snapshot.tables)
        run.finish(manifest)
        if vault.publish(run.id) != taken["set_id"]:
            raise StepError(f"the vault listed another set than {taken['set_id']}")
    vault.abandon(taken["run"])  # what a publication left that died right after its commit
    before = context.earlier.get("backup.publish", {}).get("set_id")
    if before is not None:
        vault.pin(before, context.operation, False)
        if not any(one.id == before and one.pinned for one in vault.backups()):  # an operator may want to keep it
            vault.remove(before)
    context.record({"set_id": taken["set_id"], "kept": kept})


def _dump(opened: Opened, context: StepContext, name: str, target: Path) -> Snapshot:
    """Raises StepError or DamagedError, with nothing left at the target."""
    if "restore_point.create" in context.earlier:
        identity = context.earlier["restore_point.create"]["candidates"][name]
    else:
        identity = restore.loaded(context)["databases"][name]
    try:
        return opened.databases[name].dump(context.operation, identity, target, consistency.COUNT_SECONDS)
    except HoldfastError:
        if target.is_dir():
            durable.remove_tree(target)
        target.unlink(missing_ok=True)
        raise
