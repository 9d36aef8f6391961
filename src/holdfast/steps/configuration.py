"""The restore of configuration from a backup: missing files come back; existing ones are replaced only on request."""

from __future__ import annotations

import contextlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import zstandard

from holdfast.application.context import ApplicationContext
from holdfast.drivers.protocols.vaults import StoredBackup, Vault
from holdfast.errors import DamagedError
from holdfast.steps.backup import CONFIGURATION, vault_of
from holdfast.steps.typed import Context, StepFacts, TypedStep
from holdfast.system import durable


def open_configuration(vault: Vault, id: str) -> StoredBackup:
    """Open a backup for its configuration alone. Raise NotFoundError or DamagedError."""
    return vault.open_set(id, [CONFIGURATION])


def members(source: StoredBackup) -> list[str]:
    """Return the names of files in a backup's configuration, relative to the folder of holdfast.toml."""
    if CONFIGURATION not in source.manifest.files:
        return []
    with _archive(source) as archive:
        return [_safe(member) for member in archive if not member.isdir()]


@contextlib.contextmanager
def _archive(source: StoredBackup) -> Iterator[tarfile.TarFile]:
    with (
        source.open(CONFIGURATION) as file,
        zstandard.ZstdDecompressor().stream_reader(file) as stream,
        tarfile.open(fileobj=stream, mode="r|") as archive,
    ):
        yield archive


def _safe(member: tarfile.TarInfo) -> str:
    """Return a member's name. Raise DamagedError for a name outside the folder."""
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise DamagedError(
            f"the configuration in the backup contains a file {member.name!r}, which is outside its folder"
        )
    return member.name


class ConfigurationFacts(StepFacts):
    created: list[str] | None = None
    replaced: list[str] | None = None
    """The files that were renamed before they were written again."""


class RestoreConfiguration(TypedStep[ConfigurationFacts], frozen=True):
    """Write missing files; with `over` also those that differ, after a rename of the existing ones."""

    name = "restore.configuration"
    is_undone = True

    set: str
    over: bool = False

    @property
    def title(self) -> str:
        return "restore configuration" if self.over else "restore missing configuration"

    def do(self, application: ApplicationContext, context: Context[ConfigurationFacts]) -> None:
        source = open_configuration(vault_of(application), self.set)
        created: list[str] = []
        replaced: list[str] = []
        if CONFIGURATION not in source.manifest.files:
            return
        with _archive(source) as archive:
            for member in archive:
                target = application.loaded.root / _safe(member)
                if not _is_reached(application.loaded.root, target):
                    continue
                content = _content(application.loaded.root, archive, member)
                exists = os.path.lexists(target)
                if exists and (not self.over or member.isdir() or _is_same(target, member, content)):
                    continue
                (replaced if exists else created).append(member.name)
                context.facts.created, context.facts.replaced = list(created), list(replaced)
                context.record()
                if exists:
                    durable.rename(target, _aside(target, context.operation))
                _write(target, member, content)
        if created or replaced:
            context.say(f"configuration restored: {', '.join(sorted({*created, *replaced}))}")

    def undo(self, application: ApplicationContext, context: Context[ConfigurationFacts]) -> None:
        for name in reversed(context.facts.created or []):
            target = application.loaded.root / name
            if target.is_dir() and not target.is_symlink():
                with contextlib.suppress(OSError):  # it contains other files by now
                    target.rmdir()
            else:
                durable.unlink(target)
        for name in context.facts.replaced or []:
            target = application.loaded.root / name
            if os.path.lexists(_aside(target, context.operation)):
                durable.rename(_aside(target, context.operation), target)


def _is_reached(root: Path, target: Path) -> bool:
    """Return whether every folder on the way is a folder: configuration is not written through a link."""
    return not any(parent.is_symlink() for parent in target.parents if root in parent.parents)


def _content(root: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.isreg():
        file = archive.extractfile(member)
        return file.read() if file is not None else b""
    return (root / member.linkname).read_bytes() if member.islnk() and (root / member.linkname).is_file() else b""


def _is_same(target: Path, member: tarfile.TarInfo, content: bytes) -> bool:
    if member.issym():
        return target.is_symlink() and os.readlink(target) == member.linkname
    return target.is_file() and not target.is_symlink() and target.read_bytes() == content


def _write(target: Path, member: tarfile.TarInfo, content: bytes) -> None:
    if member.isdir():
        durable.make_directory(target, member.mode & 0o777)
    elif member.issym():
        durable.make_directory(target.parent, 0o755)
        durable.point_link(target, member.linkname)
    else:
        durable.make_directory(target.parent, 0o755)
        durable.write_file(target, content, member.mode & 0o777)
    with contextlib.suppress(PermissionError):  # only root gives files away
        os.chown(target, member.uid, member.gid, follow_symlinks=False)


def _aside(target: Path, operation: str) -> Path:
    return target.with_name(f"{target.name}.before-{operation}")
