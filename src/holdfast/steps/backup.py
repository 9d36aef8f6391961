"""The steps of a backup: first copy, last pass and snapshots, manifest, publication."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

import msgspec
import zstandard
from msgspec.structs import asdict

from holdfast import VERSION
from holdfast.application.context import ApplicationContext
from holdfast.drivers.protocols.vaults import Progress, Vault, VaultRun
from holdfast.errors import DamagedBackupError, DamagedError, NoSpaceError, RefusedError, StepError
from holdfast.model import Backup, Facts, Snapshot, Stored
from holdfast.model.packages import Package
from holdfast.steps import consistency, index_snapshots, migrations, switches, vault_files
from holdfast.steps.typed import Context, NoFacts, OperationContext, StepFacts, TypedStep

CODE_ARCHIVE, CODE_RECORD, CONFIGURATION = "code.tar.zst", "code.json", "config.tar.zst"
"""Names of files in a backup."""
_SLACK_BYTES = 4 << 20


def vault_of(application: ApplicationContext) -> Vault:
    if application.vault is None:
        raise RefusedError("no vault is configured", next_step='Add [vaults.local] with `kind = "local"` and a `path`.')
    return application.vault


class CopyFacts(StepFacts):
    run: str | None = None
    """The unfinished backup."""
    written: dict[str, Stored] | None = None
    """The totals of each files dataset."""


class CopyFiles(TypedStep[CopyFacts], frozen=True):
    """Copy the files for the first time, while everything runs."""

    name = "backup.copy"
    is_undone = True
    undo_title = "remove unfinished copies from the vault"

    files: tuple[str, ...]
    databases: tuple[str, ...]

    @property
    def title(self) -> str:
        return "copy files to the vault while everything runs"

    def do(self, application: ApplicationContext, context: Context[CopyFacts]) -> None:
        vault = vault_of(application)
        known = vault.backups()[-1:]  # their totals show how much is left
        run = vault.begin(context.operation)
        stored = {}
        for name in self.files:
            total = next((item.datasets[name]["size_bytes"] for item in known if name in item.datasets), None)
            stored[name] = run.store_tree(
                name,
                application.files[name],
                keep_vanished=False,
                check=context.check_cancelled,
                progress=_of_total(context.progress, total),
            )
        context.facts.run, context.facts.written = context.operation, stored
        context.record()
        need = sum(application.databases[name].inspect()["size_bytes"] for name in self.databases)
        free = vault.free_bytes()
        if free is not None and free < need + _SLACK_BYTES:
            raise NoSpaceError(
                f"the vault has {free >> 20} MiB free; the databases need {need >> 20} MiB",
                next_step="Free space there, or run: holdfast backup prune",
            )

    def undo(self, application: ApplicationContext, context: Context[CopyFacts]) -> None:
        """Remove what was copied. A published backup stays, because it is whole."""
        if application.vault is not None:
            application.vault.abandon(context.operation)
        vault_files.remove_copies(application, context.operation)


def copied(context: OperationContext) -> dict[str, Stored]:
    """Return what the first pass stored."""
    copy = context.facts_of(CopyFiles)
    return (copy.written if copy is not None else None) or {}


def _of_total(progress: Progress, total: int | None) -> Progress:
    """Return a progress function that adds the total, for a reader that does not know it."""
    return lambda done, _, unit: progress(done, total, unit)


class FinishFacts(StepFacts):
    set_id: str | None = None
    """The backup, which the commit keeps."""
    instant: str | None = None
    writer_held_seconds: float | None = None


class FinishBackup(TypedStep[FinishFacts], frozen=True):
    """Do the last pass and the snapshots at the planned level, then add the rest of the backup."""

    name = "backup.finish"

    files: tuple[str, ...]
    databases: tuple[str, ...]
    level: str
    reason: str = ""
    code: bool = True
    tolerant: bool = False
    """Whether it may lack files that the database names."""
    safety: bool = False
    """Whether it contains what is about to be replaced."""

    @property
    def title(self) -> str:
        return f"dump databases and copy changed files ({self.level})"

    def do(self, application: ApplicationContext, context: Context[FinishFacts]) -> None:
        run = vault_of(application).run(context.operation)
        taken = consistency.take(
            application,
            run,
            context,
            level=self.level,
            databases=self.databases,
            files=self.files,
            stored=copied(context),
            tolerant=self.tolerant,
        )
        datasets = files_facts(taken)
        for name in self.databases:
            datasets[name] = database_facts(application, run, name, taken.snapshots[name])
        datasets |= index_snapshots.taken(context)
        if self.code:
            store_code(application, run, context)
        store_configuration(application, run, tolerant=self.safety)
        manifest = manifest_of(application, context.operation, taken, datasets, reason=self.reason, safety=self.safety)
        for warning in taken.warnings:
            context.say(warning)
        for warning in (*taken.warnings, *index_snapshots.warnings(context)):
            manifest.reason = f"{manifest.reason}; {warning}".removeprefix("; ")
        run.finish(manifest)
        context.facts.set_id, context.facts.instant = manifest.id, taken.instant
        context.facts.writer_held_seconds = round(taken.writer_held_seconds, 4)
        context.record()
        if taken.writer_held_seconds:
            context.say(f"writers were held for {taken.writer_held_seconds * 1000:.0f} ms")


def files_facts(taken: consistency.Instant) -> dict[str, Facts]:
    """Return what a manifest says of each files dataset."""
    return {name: {"kind": "files", **msgspec.to_builtins(totals)} for name, totals in taken.stored.items()}


def database_facts(application: ApplicationContext, run: VaultRun, name: str, snapshot: Snapshot) -> Facts:
    """Make the dump of a database part of the backup, and return what the manifest says of it."""
    database = application.databases[name]
    section = application.loaded.configuration.databases[name]
    return {
        **({"discovered": {"by": section.discovered_by, "name": section.name}} if section.discovered_by else {}),
        "kind": database.kind,
        "size_bytes": vault_files.keep_dump(application, run, name),
        "tool": database.inspect()["tool"],
        "file": vault_files.dump_name(application, name),
        "rows": {table: facts["rows"] for table, facts in snapshot.tables.items()},
        "engine": snapshot.facts,
    }


def totals_of(datasets: Mapping[str, Facts]) -> tuple[int, int]:
    """Return the bytes of a backup's datasets, and how many of them are new in the vault."""
    found = [(item["size_bytes"], item.get("new_bytes")) for item in datasets.values()]
    return sum(size for size, _ in found), sum(size if new is None else new for size, new in found)


def manifest_of(
    application: ApplicationContext,
    operation: str,
    taken: consistency.Instant,
    datasets: dict[str, Facts],
    *,
    reason: str,
    safety: bool,
    with_migrations: bool = True,
) -> Backup:
    vault = vault_of(application)
    existing = vault.backups()
    release = application.current_release()
    settings = application.loaded.configuration.application
    size_bytes, new_bytes = totals_of(datasets)
    facts: Facts = asdict(release) if release is not None else {}
    if migrations.known(application):
        if with_migrations:
            facts["migrations"] = migrations.applied(application)
    else:
        facts["schema"] = {
            name: migrations.fingerprint(snapshot.tables, snapshot.schema_version)
            for name, snapshot in taken.snapshots.items()
        }
    return Backup(
        id=vault.new_id(),
        sequence=max((item.sequence for item in existing), default=0) + 1,
        created_at=taken.instant,
        instant=taken.instant,
        consistency=taken.level,
        application=settings.name,
        environment=settings.environment,
        operation=operation,
        release=facts,
        datasets=datasets,
        packs=[],
        holdfast_version=VERSION,
        size_bytes=size_bytes,
        new_bytes=new_bytes,
        reason=reason,
        safety=safety,
        instants_apart_seconds=round(taken.apart_seconds, 4),
        writer_held_seconds=round(taken.writer_held_seconds, 4),
        secrets_inside=bool(application.loaded.configuration.backup.config_files or application.shared_configuration()),
    )


def store_code(application: ApplicationContext, run: VaultRun, context: OperationContext) -> None:
    """Store the package of the current release, without its content where an earlier backup has the same."""
    release = application.current_release()
    mode = application.loaded.configuration.backup.code
    if release is None or mode == "none":
        return
    package = application.package_of(release)
    if package is None:
        context.say(f"the package of release {release.label} is gone; the backup records only its commit")
        _write(run, CODE_RECORD, json.dumps({"commit": release.commit, "label": release.label}))
        return
    _write(run, CODE_RECORD, json.dumps(asdict(package), indent=1, default=asdict))
    if mode == "archive" or package.patches:  # no commit has the patches
        _link_or_copy_archive(application, run, package)


def _link_or_copy_archive(application: ApplicationContext, run: VaultRun, package: Package) -> None:
    vault = vault_of(application)
    for backup in reversed(vault.backups()) if vault.capabilities.links else ():
        stored = backup.files.get(CODE_ARCHIVE)
        if stored is not None and stored["sha256"] == package.digest:
            run.link(CODE_ARCHIVE, backup.id)
            return
    vault_files.add_file(run, CODE_ARCHIVE, Path(package.path) / "package.tar.zst")


def _write(run: VaultRun, name: str, text: str) -> None:
    with run.write(name) as file:
        file.write(text.encode())


OWN_FILES = ("holdfast*.toml", "holdfast.secrets.*.json")
"""Patterns of what Holdfast itself keeps next to holdfast.toml: configuration, and secrets as ciphertext."""


def store_configuration(application: ApplicationContext, run: VaultRun, *, tolerant: bool = False) -> None:
    """Store holdfast.toml, its overlays, encrypted secrets, backup.config_files, and shared files that are no data.

    Datasets and Holdfast's own files are left out.

    A configured file that is missing fails the backup. `tolerant`: it is omitted, as in a restore that brings it back;
    so it is before the first installation, which may write it.
    """
    tolerant = tolerant or application.current_release() is None
    root = application.loaded.root
    names = sorted(path.name for pattern in OWN_FILES for path in root.glob(pattern))
    configured = application.loaded.configuration.backup.config_files
    names += [*configured, *application.shared_configuration()]
    others = {Path(place) for place in application.places()}
    switched = switches.originals(application)

    def own(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        kept = member.isreg() or member.isdir() or member.issym() or member.islnk()
        return member if kept and root / member.name not in others and root / member.name not in switched else None

    with (
        run.write(CONFIGURATION) as file,
        zstandard.ZstdCompressor().stream_writer(file, closefd=False) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in names:
            path = root / name
            if root not in path.resolve().parents:
                raise StepError(f"backup.config_files: {name} is outside {root}")
            if path.exists() or path.is_symlink():
                tar.add(path, arcname=os.path.normpath(name), filter=own)
                _add_originals(tar, root, os.path.normpath(name), switched)
            elif not tolerant:
                raise StepError(
                    f"backup.config_files: {path} does not exist",
                    next_step="Put it back, or remove it from backup.config_files.",
                )


def _add_originals(tar: tarfile.TarFile, root: Path, name: str, switched: Mapping[Path, bytes | None]) -> None:
    """Add the files of a configured name as they are without what the gate has set in them."""
    for path, content in switched.items():
        inside = os.path.relpath(path, root)
        if content is not None and (inside == name or inside.startswith(f"{name}/")):
            member = tar.gettarinfo(path, arcname=inside)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


class PublishFacts(StepFacts):
    set_id: str | None = None
    """The backup, which the commit keeps."""


class PublishBackup(TypedStep[PublishFacts], frozen=True):
    """Publish the backup by a rename."""

    name = "backup.publish"
    is_undone = True
    undo_title = "unpin the backup (it is kept)"

    pin: bool = False
    """Whether the backup is pinned for this operation, which still needs it."""

    @property
    def title(self) -> str:
        return "commit the backup"

    def do(self, application: ApplicationContext, context: Context[PublishFacts]) -> None:
        vault = vault_of(application)
        set_id = vault.publish(context.operation)
        if self.pin:
            vault.pin(set_id, context.operation, True)
        context.facts.set_id = set_id
        context.record()

    def undo(self, application: ApplicationContext, context: Context[PublishFacts]) -> None:
        """Remove the pin. The backup stays."""
        _unpin(application, context.operation)


class UnpinBackup(TypedStep[NoFacts], frozen=True):
    """Remove the pin of this operation's backup. This is a closing step."""

    name = "backup.unpin"

    safety: bool = False
    """Whether it is a safety backup, for the title."""

    @property
    def title(self) -> str:
        return "unpin the safety backup" if self.safety else "unpin the backup"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        _unpin(application, context.operation)


def _unpin(application: ApplicationContext, operation: str) -> None:
    for backup in application.vault.backups() if application.vault is not None else ():
        if backup.operation == operation and application.vault is not None:
            application.vault.pin(backup.id, operation, False)


class CheckPrune(TypedStep[NoFacts], frozen=True):
    """Refuse a prune before its commit; after that, one that cannot be done would stay open."""

    name = "backup.check_prune"

    remove: tuple[str, ...]

    @property
    def title(self) -> str:
        return "verify the backups' own files"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        try:
            vault_of(application).check_prune(self.remove)
        except DamagedError as error:
            raise DamagedBackupError(error.what, next_step=error.next_step) from error


class PruneFacts(StepFacts):
    counts: dict[str, int] | None = None
    """How much was removed; None where something prevented it after the commit."""


class PruneBackups(TypedStep[PruneFacts], frozen=True):
    """Remove the backups that the plan names, and unreferenced content. This is a closing step."""

    name = "backup.prune"

    remove: tuple[str, ...]

    @property
    def title(self) -> str:
        return "remove backups and unreferenced content"

    def do(self, application: ApplicationContext, context: Context[PruneFacts]) -> None:
        """Prune. What prevents it only now is reported, because the next prune removes the same again."""
        try:
            context.facts.counts = dict(vault_of(application).prune(self.remove, context.operation))
        except NoSpaceError:
            raise
        except (DamagedError, RefusedError) as error:
            context.say(f"nothing was removed: {error.what}")
        context.record()
