"""The steps of a restore: candidate databases and their swap, files by difference. The replaced data allows an undo."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

from holdfast.application.context import Opened
from holdfast.drivers.protocols.vaults import Vault
from holdfast.drivers.vaults.factory import open_vault_of
from holdfast.engine.runner import StepContext
from holdfast.errors import CancelledError, DamagedError, HoldfastError, NoSpaceError, RefusedError
from holdfast.model import Backup, Facts, Package, Release
from holdfast.steps import backup, consistency, difference, migrations
from holdfast.steps.release import UnpackFacts, link_shared, remove_unpacked
from holdfast.steps.typed import Context, OperationContext, TypedStep
from holdfast.system import durable

_SLACK_BYTES = 4 << 20
_OTHER_BACKUP = "Choose another backup; run `holdfast backup verify` to see all damage."
LOADING = ("database.load", "database.import", "database.import_cold")
"""The steps that load candidate databases."""


def source_vault(opened: Opened, context: StepContext) -> Vault:
    """Return the vault of a plan: that of another environment if its parameters name one."""
    other = context.parameters.get("vault")
    if other is None:
        return backup.vault_of(opened)
    return open_vault_of(other["kind"], Path(other["path"]), other["owner"], opened.host)


def pin(opened: Opened, context: StepContext) -> None:
    """Pin the backup, so that a prune of the other environment does not remove it meanwhile."""
    source_vault(opened, context).pin(context.parameters["set"], context.operation, True)


def unpin(opened: Opened, context: StepContext) -> None:
    """Undo `pin`, or close it after the commit. If that vault is gone, so are its pins."""
    if Path(context.parameters["vault"]["path"]).is_dir():
        source_vault(opened, context).pin(context.parameters["set"], context.operation, False)


def check(opened: Opened, context: StepContext) -> None:
    """Check everything that can be seen before anything changes: damage, missing datasets, versions, space."""
    set_id = context.parameters["set"]
    backup_set, _, _, _ = source_vault(opened, context).open_set(set_id)
    for name in (*context.parameters["databases"], *context.parameters["files"]):
        source = _set_of(opened, context, name)
        if name not in source.datasets:
            raise RefusedError(
                f"backup {source.id} has no dataset {name}; it has {', '.join(sorted(source.datasets))}",
                next_step="Choose datasets with `--only` or `--except`.",
            )
    need = sum(_set_of(opened, context, name).datasets[name]["size_bytes"] for name in context.parameters["databases"])
    for name in context.parameters["databases"]:
        private = opened.databases[name].private_folder
        if private is not None and (free := durable.free_bytes(private.parent)) < need + _SLACK_BYTES:
            raise NoSpaceError(
                f"database {name} has {free >> 20} MiB free next to it; the restore needs {need >> 20} MiB",
                next_step="Free space there, then run the command again.",
            )
    for name in context.parameters["files"]:
        try:
            found = source_vault(opened, context).open_set(context.parameters["sets"][name])
            difference.check(opened.files[name], name, found, OperationContext(context))
        except DamagedError as error:
            error.next_step = _OTHER_BACKUP
            raise
    release = context.parameters.get("release")
    if release is not None and migrations.known(opened) and context.parameters["databases"]:
        _check_code_fits(opened, Release(**release), backup_set)
    context.record({"set_id": set_id})


def _set_of(opened: Opened, context: StepContext, dataset: str) -> Backup:
    """Return the backup that a dataset is taken from. Raise DamagedError."""
    return source_vault(opened, context).open_set(context.parameters["sets"][dataset])[0]


def _check_code_fits(opened: Opened, release: Release, found: Backup) -> None:
    if found.release.get("commit") == release.commit:
        return  # it ran on this very database, maybe with migrations that were declared compatible with it
    if not Path(release.path).is_dir():
        return  # it is unpacked from the backup first, whose code knows its own database
    applied: list[str] = found.release.get("migrations", [])
    older = migrations.incompatible(opened, migrations.not_in(opened, applied, migrations.shipped(opened, release)))
    if older:
        raise RefusedError(
            f"release {release.label} is older than the database in the backup: it does not know {', '.join(older)}",
            next_step="Restore the code with it (leave out `--except code`), or upgrade first.",
        )


class UnpackBackupCode(TypedStep[UnpackFacts], frozen=True):
    """Create the release of the backup if it is missing, from the package store or from the backup."""

    name = "restore.unpack_code"
    is_undone = True

    set: str
    sets: dict[str, str]
    databases: tuple[str, ...]
    files: tuple[str, ...]
    release: Release

    @property
    def title(self) -> str:
        return "unpack the release if it is missing"

    def do(self, opened: Opened, context: Context[UnpackFacts]) -> None:
        release = self.release
        path = Path(release.path)
        if path.is_dir() and (path / ".holdfast-release.json").exists():
            if opened.containers is not None and (gone := opened.containers.missing_images(release.path)):
                raise RefusedError(
                    f"images of {release.label} are gone: {', '.join(gone)}",
                    next_step=f"To build them again, run: holdfast package build {release.commit}",
                )
            return
        package = opened.find_package(release.commit) or self._package_of_backup(opened)
        durable.make_directory(path.parent, 0o755)
        context.facts.path, context.facts.created = release.path, True
        context.record()
        opened.packages.unpack(package, path, asdict(release))
        link_shared(opened, path)

    def _package_of_backup(self, opened: Opened) -> Package:
        archive = backup.vault_of(opened).folder(self.set) / "code.tar.zst"
        if not archive.exists():
            raise RefusedError(
                f"the code of release {self.release.label} is neither in the package store nor in the backup",
                next_step=f"Run `holdfast package build {self.release.commit}`, or restore with `--except code`.",
            )
        return opened.packages.adopt(archive)

    def undo(self, opened: Opened, context: Context[UnpackFacts]) -> None:
        remove_unpacked(opened, context)


def load_databases(opened: Opened, context: StepContext) -> None:
    """Load each dump as a candidate database and verify it; nothing visible changes."""
    candidates = {}
    identities = {}
    for name in context.parameters["databases"]:
        database = opened.databases[name]
        backup_set, _, _, folder = source_vault(opened, context).open_set(context.parameters["sets"][name])
        identities[name] = database.inspect()["identity"]
        facts = {**backup_set.datasets[name].get("engine", {}), "rows": backup_set.datasets[name].get("rows", {})}
        facts["elsewhere"] = "vault" in context.parameters
        candidates[name] = database.prepare(context.operation, consistency.dump_path(opened, folder, name), facts)
        if context.parameters.get("into"):
            database.hand_over(context.operation, context.parameters["into"], rehearsal=True)
    durable.barrier(opened.barrier_paths())
    context.record({"candidates": candidates, "databases": identities})


def discard(opened: Opened, context: StepContext) -> None:
    """Undo `load_databases`."""
    for database in opened.databases.values():
        database.discard(context.operation)


def prove(opened: Opened, context: StepContext) -> None:
    """Load each database of a backup as a candidate database, compare it and drop it.

    Raise DamagedError naming each that cannot be loaded, once all were tried.
    """
    failed: list[str] = []
    advice: list[str] = []
    for name in context.parameters["databases"]:
        try:
            _prove_one(opened, context, name)
        except CancelledError:
            raise
        except HoldfastError as error:
            failed.append(f"{name}: {error.what}")
            advice += [error.next_step] if error.next_step else []
        finally:
            opened.databases[name].discard(context.operation)
    if failed:
        raise DamagedError(
            f"backup {context.parameters['set']} cannot be restored: {'; '.join(failed)}",
            next_step="\n".join(advice)
            or "The server's message says what is missing: a right of this account, an extension, a name without its"
            " schema. Fix it in the live database, then make a new backup.",
        )


def _prove_one(opened: Opened, context: StepContext, name: str) -> None:
    found, _, _, folder = source_vault(opened, context).open_set(context.parameters["sets"][name])
    facts = {**found.datasets[name].get("engine", {}), "rows": found.datasets[name].get("rows", {})}
    opened.databases[name].prepare(context.operation, consistency.dump_path(opened, folder, name), facts)


def prove_new(opened: Opened, context: StepContext) -> None:
    """Prove a backup whose databases, engine or schema differ from the last proven ones. This is a closing step.

    A failure is a warning: the backup exists, and the operator must know its worth.
    """
    set_id = context.commit_facts.get("set_id") or context.earlier.get("backup.publish", {}).get("set_id")
    if set_id is None or not opened.loaded.configuration.backup.prove:
        return
    found = backup.vault_of(opened).open_set(set_id)[0]
    path = opened.loaded.state / "proven.json"
    known: dict[str, str] = durable.read_json(path) if path.exists() else {}
    for name in context.parameters["databases"]:
        mark = _mark_of(found, name)
        if known.get(name) == mark or not _has_room(opened, found, name):
            continue
        try:
            values = {"set": set_id, "sets": {name: set_id}, "databases": [name]}
            prove(opened, replace(context, parameters={**context.parameters, **values}))
        except HoldfastError as error:  # even errors of the server: after the commit nothing here is a failure
            opened.host.warn(f"{error.what}\n{error.next_step}".rstrip())
            context.record({"warnings": [error.what]})
        else:
            known[name] = mark
            durable.write_file(path, json.dumps(known))


def _mark_of(found: Backup, name: str) -> str:
    """Return a digest of what decides whether a dump can be loaded: engine, extensions, tables, migrations."""
    facts = found.datasets[name]
    words = [
        facts["kind"],
        facts["tool"],
        sorted(facts.get("rows", {})),
        facts.get("engine", {}).get("extensions"),
        found.release.get("migrations"),
        found.release.get("schema"),
    ]
    return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()


def _has_room(opened: Opened, found: Backup, name: str) -> bool:
    """Return whether a candidate leaves as much space as it takes, as far as that can be seen from here."""
    private = opened.databases[name].private_folder
    return private is None or durable.free_bytes(private.parent) > 2 * found.datasets[name]["size_bytes"] + _SLACK_BYTES


def loaded(context: StepContext) -> Facts:
    """Return the facts of the step that loaded the candidates: from a backup, a dump or a data directory."""
    return next(context.earlier[name] for name in LOADING if context.earlier.get(name))


def swap_databases(opened: Opened, context: StepContext) -> None:
    beside = loaded(context)
    for name, candidate in beside["candidates"].items():
        identity = opened.databases[name].inspect()["identity"]
        if identity not in (beside["databases"][name], candidate):
            raise RefusedError(
                f"database {name} was replaced by another program during the restore",
                next_step="Find out which one, then run the command again.",
            )
        opened.databases[name].swap(context.operation, candidate, f"{context.operation}.replaced")


def swap_back(opened: Opened, context: StepContext) -> None:
    for name, identity in loaded(context)["databases"].items():
        opened.databases[name].swap(context.operation, identity, f"{context.operation}.undone")


def restore_files(opened: Opened, context: StepContext) -> None:
    """Stage all differences, verified by their digests, before the first file moves."""
    for name in context.parameters["files"]:
        _, listing, fetch, _ = source_vault(opened, context).open_set(context.parameters["sets"][name])
        try:
            opened.files[name].stage(context.operation, listing(name), fetch, context.check_cancelled)
        except DamagedError as error:
            error.next_step = _OTHER_BACKUP
            raise
    for name in context.parameters["files"]:
        opened.files[name].apply(context.operation)


def revert_files(opened: Opened, context: StepContext) -> None:
    for name in context.parameters["files"]:
        opened.files[name].revert(context.operation)
        opened.files[name].discard(context.operation)


def hand_over(opened: Opened, context: StepContext) -> None:
    """Turn the candidate into an independent database, which Holdfast no longer manages. This is a closing step."""
    database = opened.databases[context.parameters["database"]]
    database.hand_over(context.operation, context.parameters["name"])
    database.discard(context.operation)


def tidy(opened: Opened, context: StepContext) -> None:
    """Drop replaced data unless it is to be kept; `preflight` removes it later. This is a closing step."""
    if context.parameters.get("keep_replaced"):
        return
    kept = context.earlier.get("backup.complete", {}).get("kept", [])
    for name, database in opened.databases.items():
        if name not in kept:
            database.discard(context.operation)
    for files in opened.files.values():
        files.discard(context.operation)
