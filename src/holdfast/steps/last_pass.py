"""The set of an upgrade in maintenance mode: its files in the window, its databases after the commit.

What the window needs is a way back: files that changed since the backup before it, and restore points. A dump grows
with the data, so it is taken from the restore point once visitors are served again.
"""

from __future__ import annotations

import msgspec

from holdfast.engine.runner import StepContext
from holdfast.errors import StepError
from holdfast.steps import backup, consistency, migrations
from holdfast.steps.opened import Opened


def take(opened: Opened, context: StepContext) -> None:
    """Finishes a set without databases, which an undo can read and nobody else sees."""
    vault = backup.vault_of(opened)
    run = vault.begin(f"{context.operation}.last")
    taken = consistency.take(
        opened, run, context, level="quiesce", databases=(), files=context.parameters["files"], stored={}
    )
    datasets = {name: {"kind": "files", **msgspec.to_builtins(totals)} for name, totals in taken.stored.items()}
    backup.store_code(opened, run, context)
    backup.store_configuration(opened, run)
    manifest = backup.manifest_of(opened, context, taken, datasets)
    run.finish(manifest)
    context.record({"run": run.id, "set_id": manifest.id})


def abandon(opened: Opened, context: StepContext) -> None:
    """The undo of `take`."""
    if opened.vault is not None:
        opened.vault.abandon(f"{context.operation}.last")


def complete(opened: Opened, context: StepContext) -> None:
    """Dumps the restore points into the set and commits it, in place of the backup from before the window."""
    vault = backup.vault_of(opened)
    taken, before = context.earlier["backup.last_pass"], context.earlier["backup.publish"]["set_id"]
    if all(one.id != taken["set_id"] for one in vault.backups()):
        run, manifest = vault.resume(taken["run"])
        for name in context.parameters["databases"]:
            snapshot = opened.databases[name].dump(
                context.operation, consistency.dump_path(opened, run.folder, name),
                consistency.COUNT_SECONDS,
            )  # fmt: skip
            facts = manifest.datasets[name] = backup.database_facts(opened, run, name, snapshot)
            manifest.size_bytes += facts["size_bytes"]
            manifest.new_bytes += facts["size_bytes"]
            if "schema" in manifest.release:
                manifest.release["schema"][name] = migrations.fingerprint(snapshot.tables)
        run.finish(manifest)
        if vault.publish(run.id) != taken["set_id"]:
            raise StepError(f"the vault listed another set than {taken['set_id']}")
    vault.abandon(taken["run"])  # what a publication left that died right after its commit
    vault.pin(before, context.operation, False)
    if not any(one.id == before and one.pinned for one in vault.backups()):  # an operator may want to keep it
        vault.remove(before)
    context.record({"set_id": taken["set_id"]})
