"""The steps of a backup: first copy, last pass and snapshots, manifest, publication."""

from __future__ import annotations

import json
import os
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from holdfast import VERSION
from holdfast.application.context import Opened
from holdfast.drivers.protocols.vaults import Progress, Vault, VaultRun
from holdfast.engine.runner import StepContext
from holdfast.errors import NoSpaceError, RefusedError, StepError
from holdfast.model import Backup, Package, Snapshot, Stored
from holdfast.steps import consistency, migrations
from holdfast.system import durable

_SLACK_BYTES = 4 << 20


def vault_of(opened: Opened) -> Vault:
    if opened.vault is None:
        raise RefusedError("no vault is configured", next_step='Add [vaults.local] with `kind = "local"` and a `path`.')
    return opened.vault


def copy(opened: Opened, context: StepContext) -> None:
    """Copy the files for the first time, while everything runs."""
    vault = vault_of(opened)
    known = vault.backups()[-1:]  # their totals show how much is left
    run = vault.begin(context.operation)
    stored = {}
    for name in context.parameters["files"]:
        total = next((item.datasets[name]["size_bytes"] for item in known if name in item.datasets), None)
        stored[name] = run.store_tree(
            name,
            opened.files[name],
            keep_vanished=False,
            check=context.check_cancelled,
            progress=_of_total(context.progress, total),
        )
    context.record(
        {"run": context.operation, "written": {name: msgspec.to_builtins(item) for name, item in stored.items()}}
    )
    need = sum(opened.databases[name].inspect()["size_bytes"] for name in context.parameters["databases"])
    vault_path = run.folder
    if durable.free_bytes(vault_path) < need + _SLACK_BYTES:
        raise NoSpaceError(
            f"the vault has {durable.free_bytes(vault_path) >> 20} MiB free; the databases need {need >> 20} MiB",
            next_step="Free space there, or run: holdfast backup prune",
        )


def _of_total(progress: Progress, total: int | None) -> Progress:
    """Return a progress function that adds the total, for a reader that does not know it."""
    return lambda done, _, unit: progress(done, total, unit)


def abandon(opened: Opened, context: StepContext) -> None:
    """Undo `copy`. A published backup stays, because it is whole."""
    if opened.vault is not None:
        opened.vault.abandon(context.operation)


def copied(context: StepContext) -> dict[str, Stored]:
    """Return what the first pass stored."""
    written = context.earlier.get("backup.copy", {}).get("written", {})
    return {name: msgspec.convert(item, Stored) for name, item in written.items()}


def finish(opened: Opened, context: StepContext) -> None:
    """Do the last pass and the snapshots at the planned level, then add the rest of the backup."""
    vault = vault_of(opened)
    run = vault.run(context.operation)
    taken = consistency.take(
        opened,
        run,
        context,
        level=context.parameters["level"],
        databases=context.parameters["databases"],
        files=context.parameters["files"],
        stored=copied(context),
        tolerant=context.parameters.get("tolerant", False),
    )
    datasets: dict[str, dict[str, Any]] = {}
    for name, totals in taken.stored.items():
        datasets[name] = {"kind": "files", **msgspec.to_builtins(totals)}
    for name in context.parameters["databases"]:
        datasets[name] = database_facts(opened, run, name, taken.snapshots[name])
    store_code(opened, run, context)
    store_configuration(opened, run, tolerant=context.parameters.get("safety", False))
    manifest = manifest_of(opened, context, taken, datasets)
    for warning in taken.warnings:
        context.say(warning)
        manifest.reason = f"{manifest.reason}; {warning}".removeprefix("; ")
    run.finish(manifest)
    context.record(
        {"set_id": manifest.id, "instant": taken.instant, "writer_held_seconds": round(taken.writer_held_seconds, 4)}
    )
    if taken.writer_held_seconds:
        context.say(f"writers were held for {taken.writer_held_seconds * 1000:.0f} ms")


def database_facts(opened: Opened, run: VaultRun, name: str, snapshot: Snapshot) -> dict[str, Any]:
    database = opened.databases[name]
    dump = consistency.dump_path(opened, run.folder, name)
    return {
        "kind": database.kind,
        "size_bytes": _size_bytes(dump),
        "tool": database.inspect()["tool"],
        "file": dump.name,
        "rows": {table: facts["rows"] for table, facts in snapshot.tables.items()},
        "engine": snapshot.facts,
    }


def _size_bytes(dump: Path) -> int:
    """Return the size of a dump, which is a file or a folder of files."""
    return sum(path.stat().st_size for path in (dump.iterdir() if dump.is_dir() else [dump]))


def manifest_of(
    opened: Opened,
    context: StepContext,
    taken: consistency.Instant,
    datasets: dict[str, dict[str, Any]],
    *,
    with_migrations: bool = True,
) -> Backup:
    vault = vault_of(opened)
    existing = vault.backups()
    release = opened.current_release()
    application = opened.loaded.configuration.application
    facts: dict[str, Any] = asdict(release) if release is not None else {}
    if migrations.known(opened):
        if with_migrations:
            facts["migrations"] = migrations.applied(opened)
    else:
        facts["schema"] = {name: migrations.fingerprint(snapshot.tables) for name, snapshot in taken.snapshots.items()}
    return Backup(
        id=vault.new_id(),
        sequence=max((item.sequence for item in existing), default=0) + 1,
        created_at=taken.instant,
        instant=taken.instant,
        consistency=taken.level,
        application=application.name,
        environment=application.environment,
        operation=context.operation,
        release=facts,
        datasets=datasets,
        packs=[],
        holdfast_version=VERSION,
        size_bytes=sum(item["size_bytes"] for item in datasets.values()),
        new_bytes=sum(item.get("new_bytes", item["size_bytes"]) for item in datasets.values()),
        reason=context.parameters.get("reason", ""),
        safety=context.parameters.get("safety", False),
        instants_apart_seconds=round(taken.apart_seconds, 4),
        writer_held_seconds=round(taken.writer_held_seconds, 4),
        secrets_inside=bool(opened.loaded.configuration.backup.config_files),
    )


def store_code(opened: Opened, run: VaultRun, context: StepContext) -> None:
    """Store the package of the current release, hard-linked to that of an earlier backup if it is the same."""
    release = opened.current_release()
    mode = opened.loaded.configuration.backup.code
    if release is None or mode == "none" or not context.parameters.get("code", True):
        return
    package = opened.find_package(release.commit)
    if package is None:
        context.say(f"the package of release {release.label} is gone; the backup records only its commit")
        durable.write_file(run.folder / "code.json", json.dumps({"commit": release.commit, "label": release.label}))
        return
    durable.write_file(run.folder / "code.json", json.dumps(asdict(package), indent=1))
    if mode == "archive":
        _link_or_copy_archive(opened, run, package)


def _link_or_copy_archive(opened: Opened, run: VaultRun, package: Package) -> None:
    vault = vault_of(opened)
    target = run.folder / "code.tar.zst"
    for backup in reversed(vault.backups()):
        stored = backup.files.get("code.tar.zst")
        if stored is not None and stored["sha256"] == package.digest:
            os.link(vault.folder(backup.id) / "code.tar.zst", target)
            return
    durable.clone_or_copy(Path(package.path) / "package.tar.zst", target)


def store_configuration(opened: Opened, run: VaultRun, *, tolerant: bool = False) -> None:
    """Store holdfast.toml, its overlays and backup.config_files, without datasets and Holdfast's own files.

    A configured file that is missing fails the backup. `tolerant`: it is omitted, as in a restore that brings it back.
    """
    root = opened.loaded.root
    names = sorted(path.name for path in root.glob("holdfast*.toml"))
    names += opened.loaded.configuration.backup.config_files
    others = {Path(place) for place in opened.places()}

    def own(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        kept = member.isreg() or member.isdir() or member.issym() or member.islnk()
        return member if kept and root / member.name not in others else None

    unfinished = run.folder / "config.tar.zst.unfinished"
    with (
        open(unfinished, "wb", opener=_private) as file,
        zstandard.ZstdCompressor().stream_writer(file) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in names:
            path = root / name
            if root not in path.resolve().parents:
                raise StepError(f"backup.config_files: {name} is outside {root}")
            if path.exists() or path.is_symlink():
                tar.add(path, arcname=os.path.normpath(name), filter=own)
            elif not tolerant:
                raise StepError(
                    f"backup.config_files: {path} does not exist",
                    next_step="Put it back, or remove it from backup.config_files.",
                )
    durable.sync_file(unfinished)
    durable.rename(unfinished, run.folder / "config.tar.zst")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def publish(opened: Opened, context: StepContext) -> None:
    """Publish the backup by a rename; pin it for this operation if the plan says so."""
    vault = vault_of(opened)
    set_id = vault.publish(context.operation)
    if context.parameters.get("pin"):
        vault.pin(set_id, context.operation, True)
    context.record({"set_id": set_id})


def unpin(opened: Opened, context: StepContext) -> None:
    """Undo `publish` before the commit, or close it after that: the backup stays, the pin is removed."""
    if opened.vault is None:
        return
    for backup in opened.vault.backups():
        if backup.operation == context.operation:
            opened.vault.pin(backup.id, context.operation, False)


def prune(opened: Opened, context: StepContext) -> None:
    """Remove the backups that the plan names, and unreferenced content. This is a closing step."""
    result = vault_of(opened).prune(context.parameters["remove"], context.operation)
    context.record({"counts": dict(result)})
