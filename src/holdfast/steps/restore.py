"""The steps of a restore: checks, code, candidate databases, files by difference."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from holdfast.application.context import ApplicationContext
from holdfast.drivers.protocols.vaults import StoredBackup, Vault
from holdfast.drivers.vaults.factory import open_vault_of
from holdfast.errors import DamagedError, NoSpaceError, RefusedError
from holdfast.model import Backup, Entry, Facts, Release
from holdfast.model.packages import Package
from holdfast.steps import backup, difference, migrations, release_paths, tasks, vault_files
from holdfast.steps.candidates import CandidateFacts
from holdfast.steps.release import UnpackFacts, remove_unpacked, unpack_package
from holdfast.steps.typed import Context, FactsT, NoFacts, StepFacts, TypedStep
from holdfast.system import durable

_SLACK_BYTES = 4 << 20
_OTHER_BACKUP = "Choose another backup; run `holdfast backup verify` to see all damage."


# --- what is restored ----------------------------------------------------------------------------------


class OtherVault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The vault of another environment."""

    kind: str
    path: str
    """Its location, as a driver of that kind names it."""
    owner: str

    @property
    def environment(self) -> str:
        """Return application and environment of its owner."""
        return self.owner.partition(" (")[0]


class Chosen(NamedTuple):
    """What is restored; the first parameters of the steps of a restore."""

    set: str
    sets: dict[str, str]
    databases: tuple[str, ...]
    files: tuple[str, ...]
    release: Release | None = None
    vault: OtherVault | None = None


class OfBackup(TypedStep[FactsT], frozen=True):
    """A step that reads backups."""

    set: str
    """The backup; that of the database if there are several."""
    sets: dict[str, str]
    """The backup of each dataset."""
    databases: tuple[str, ...]
    files: tuple[str, ...]
    release: Release | None = None
    """The release that will run."""
    vault: OtherVault | None = None
    """The vault of another environment; None for the own one."""

    def source_vault(self, application: ApplicationContext) -> Vault:
        if self.vault is None:
            return backup.vault_of(application)
        return open_vault_of(self.vault.kind, self.vault.path, self.vault.owner, application.host)

    def open_set_of(self, application: ApplicationContext, dataset: str) -> StoredBackup:
        """Return the backup that a dataset is taken from. Raise DamagedError."""
        return self.source_vault(application).open_set(self.sets[dataset])


class PinSource(OfBackup[NoFacts], frozen=True):
    """Pin the backup, so that a prune of the other environment does not remove it meanwhile."""

    name = "clone.pin"
    is_undone = True

    @property
    def title(self) -> str:
        return f"pin backup {self.set} of {self.vault.environment if self.vault is not None else ''}"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        self.source_vault(application).pin(self.set, context.operation, True)

    def undo(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        _unpin(self, application, context.operation)


class UnpinSource(OfBackup[NoFacts], frozen=True):
    """Remove the pin of the other environment's backup. This is a closing step."""

    name = "clone.unpin"

    @property
    def title(self) -> str:
        return f"unpin backup {self.set} of {self.vault.environment if self.vault is not None else ''}"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        _unpin(self, application, context.operation)


def _unpin(step: PinSource | UnpinSource, application: ApplicationContext, operation: str) -> None:
    """Remove a pin. If that vault is gone, so are its pins."""
    if step.vault is not None and (vault := step.source_vault(application)).exists():
        vault.pin(step.set, operation, False)


# --- checking ------------------------------------------------------------------------------------------


class CheckFacts(StepFacts):
    set_id: str | None = None
    """The backup, which the commit keeps."""


class CheckBackup(OfBackup[CheckFacts], frozen=True):
    """Check everything that can be seen before anything changes: damage, missing datasets, versions, space."""

    name = "restore.check"

    @property
    def title(self) -> str:
        return "check the backup"

    def do(self, application: ApplicationContext, context: Context[CheckFacts]) -> None:
        vault = self.source_vault(application)
        found = vault.open_set(self.set).manifest
        for name in (*self.databases, *self.files):
            source = self.open_set_of(application, name).manifest
            if name not in source.datasets:
                raise RefusedError(
                    f"backup {source.id} has no dataset {name}; it has {', '.join(sorted(source.datasets))}",
                    next_step="Choose datasets with `--only` or `--except`.",
                )
        self._check_space(application, vault)
        for name in self.files:
            try:
                source_of_files = self.open_set_of(application, name)
                difference.check(application.files[name], name, source_of_files, vault.capabilities, context)
            except DamagedError as error:
                error.next_step = _OTHER_BACKUP
                raise
        if self.release is not None and migrations.known(application) and self.databases:
            _check_code_fits(application, self.release, found)
        context.facts.set_id = self.set
        context.record()

    def _check_space(self, application: ApplicationContext, vault: Vault) -> None:
        manifests = {name: self.open_set_of(application, name).manifest for name in self.databases}
        sizes = {name: manifest.datasets[name]["size_bytes"] for name, manifest in manifests.items()}
        need = sum(sizes.values())
        if not vault.capabilities.in_place:  # dumps are copied to this machine one after the other
            free, copy = durable.free_bytes(application.loaded.state), max(sizes.values(), default=0)
            if free < copy + _SLACK_BYTES:
                raise NoSpaceError(
                    f"{application.loaded.state} has {free >> 20} MiB free; the restore needs {copy >> 20} MiB there",
                    next_step="Free space there, then run the command again.",
                )
        for name in self.databases:
            private = application.databases[name].private_folder
            if private is not None and (free := durable.free_bytes(private.parent)) < need + _SLACK_BYTES:
                raise NoSpaceError(
                    f"database {name} has {free >> 20} MiB free next to it; the restore needs {need >> 20} MiB",
                    next_step="Free space there, then run the command again.",
                )


def _check_code_fits(application: ApplicationContext, release: Release, found: Backup) -> None:
    if found.release.get("commit") == release.commit:
        return  # it ran on this very database, maybe with migrations that were declared compatible with it
    if not Path(release.path).is_dir():
        return  # it is unpacked from the backup first, whose code knows its own database
    applied: list[str] = found.release.get("migrations", [])
    older = migrations.unknown_among(application, release, applied, migrations.shipped(application, release))
    if older:
        raise RefusedError(
            f"release {release.label} is older than the database in the backup: it does not know"
            f" {migrations.listed(older)}",
            next_step="Restore the code with it (leave out `--except code`), or upgrade first.",
        )


# --- code ----------------------------------------------------------------------------------------------


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

    def do(self, application: ApplicationContext, context: Context[UnpackFacts]) -> None:
        release = self.release
        path = Path(release.path)
        if path.is_dir() and (path / ".holdfast-release.json").exists():
            if gone := application.runtime.missing_images(release.path):
                raise RefusedError(
                    f"images of {release.label} are gone: {', '.join(gone)}",
                    next_step=f"To build them again, run: holdfast package build {release.commit}",
                )
            return
        package = application.package_of(release) or self._package_of_backup(application, context.operation)
        unpack_package(application, context, package, release)
        if application.loaded.configuration.tasks.task("prepare") is not None:
            tasks.run(application, release, "prepare", context.operation)

    def _package_of_backup(self, application: ApplicationContext, operation: str) -> Package:
        names = (backup.CODE_ARCHIVE, backup.CODE_RECORD)
        source = backup.vault_of(application).open_set(self.set, names)
        if backup.CODE_ARCHIVE not in source.manifest.files:
            raise RefusedError(
                f"the code of release {self.release.label} is neither in the package store nor in the backup",
                next_step=f"Run `holdfast package build {self.release.commit}`, or restore with `--except code`.",
            )
        with vault_files.at_hand(application, source, names, operation) as folder:
            return application.packages.adopt(folder / backup.CODE_ARCHIVE)

    def undo(self, application: ApplicationContext, context: Context[UnpackFacts]) -> None:
        remove_unpacked(application, context)
        vault_files.remove_copies(application, context.operation)


# --- databases -----------------------------------------------------------------------------------------


class LoadDatabases(OfBackup[CandidateFacts], frozen=True):
    """Load each dump as a candidate database and verify it; nothing visible changes."""

    name = "database.load"
    is_undone = True

    into: str | None = None
    """The name under which the only database is handed over, instead of a swap."""

    @property
    def title(self) -> str:
        if self.into is not None:
            return f"load a candidate database of {', '.join(self.databases)}"
        return "load candidate databases"

    def do(self, application: ApplicationContext, context: Context[CandidateFacts]) -> None:
        candidates: dict[str, str] = {}
        identities: dict[str, str | None] = {}
        for name in self.databases:
            database = application.databases[name]
            source = self.open_set_of(application, name)
            identities[name] = database.inspect()["identity"]
            facts = {**engine_facts(source.manifest, name), "elsewhere": self.vault is not None}
            with vault_files.dump_of(application, source, name, context.operation) as dump:
                candidates[name] = database.prepare(context.operation, dump, facts)
            if self.into:
                database.hand_over(context.operation, self.into, rehearsal=True)
        durable.barrier(application.barrier_paths())
        context.facts.candidates, context.facts.databases = candidates, identities
        context.record()

    def undo(self, application: ApplicationContext, context: Context[CandidateFacts]) -> None:
        for database in application.databases.values():
            database.discard(context.operation)
        vault_files.remove_copies(application, context.operation)


def engine_facts(found: Backup, name: str) -> Facts:
    """Return what the engine must know to load a dump of a backup."""
    return {**found.datasets[name].get("engine", {}), "rows": found.datasets[name].get("rows", {})}


class HandOver(TypedStep[NoFacts], frozen=True):
    """Turn the candidate into an independent database, which Holdfast no longer manages. This is a closing step."""

    name = "database.hand_over"

    database: str
    new_name: str = msgspec.field(name="name")

    @property
    def title(self) -> str:
        return f"rename it to {self.new_name}"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        database = application.databases[self.database]
        database.hand_over(context.operation, self.new_name)
        database.discard(context.operation)


# --- files ---------------------------------------------------------------------------------------------


class RestoreFiles(OfBackup[NoFacts], frozen=True):
    """Stage all differences, verified by their digests, before the first file moves."""

    name = "files.restore"
    is_undone = True

    owner: tuple[int, int] | None = None
    """The user and group whose files become those of this environment's account, if it has another one."""

    @property
    def title(self) -> str:
        return "copy files that differ" if self.vault is not None else "restore files by difference"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        for name in self.files:
            source = self.open_set_of(application, name)
            wanted = self._given(application, source.listing(name))
            try:
                application.files[name].stage(context.operation, wanted, source.fetch, context.check_cancelled)
            except DamagedError as error:
                error.next_step = _OTHER_BACKUP
                raise
        for name in self.files:
            application.files[name].apply(context.operation)

    def _given(self, application: ApplicationContext, entries: Iterable[Entry]) -> Iterable[Entry]:
        """Return entries, with the account of this environment in place of the other one's."""
        account = release_paths.owner_of(application)
        if self.owner is None or account.ids is None or self.owner == account.ids[:2]:
            return entries
        (uid, gid), (new_uid, new_gid, _) = self.owner, account.ids
        return (
            replace(
                entry,
                uid=new_uid if entry.uid == uid else entry.uid,
                gid=new_gid if entry.gid == gid else entry.gid,
            )
            for entry in entries
        )

    def undo(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        for name in self.files:
            application.files[name].revert(context.operation)
            application.files[name].discard(context.operation)
