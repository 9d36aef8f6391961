"""The steps of an export: plain files are written under a hidden name, and renamed after the commit."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Literal

import msgspec

from holdfast.application.context import ApplicationContext
from holdfast.drivers.interchange.folder import write_folder
from holdfast.drivers.interchange.tarball import write_tar
from holdfast.drivers.protocols.vaults import StoredBackup
from holdfast.errors import DamagedError, NoSpaceError, NotFoundError, RefusedError
from holdfast.model import Entry
from holdfast.steps import backup
from holdfast.steps.typed import Context, StepFacts, TypedStep, WarningFacts
from holdfast.system import durable

Format = Literal["tar.gz", "folder"]
SUMS = "SHA256SUMS"
_BLOCK_BYTES = 1 << 20
_COMPRESSED = ".zst"


def hidden(application: ApplicationContext, folder: Path, id: str) -> Path:
    """Return where an export is written: the same path for each attempt, and no other application's."""
    settings = application.loaded.configuration.application
    return folder / f".{id}.{settings.name}.{settings.environment}.export"


def taken(path: Path) -> RefusedError:
    return RefusedError(
        f"{path} already exists, and an export never overwrites anything",
        state="Nothing was changed.",
        next_step="Move it, or name another folder, then run the command again.",
    )


class ExportedSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A backup that is exported."""

    id: str


class ChosenSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A backup to export, and what of it."""

    id: str
    stored: tuple[str, ...]
    """Files as the vault stores them."""
    files: tuple[str, ...]
    """Datasets of files."""

    @property
    def names(self) -> set[str]:
        return {*self.stored, *self.files}


class WriteFacts(WarningFacts):
    created: bool | None = None
    """Whether this operation created the folder."""


class WriteExport(TypedStep[WriteFacts], frozen=True):
    """Write all chosen backups durably, each content verified by its digest; none gets its name yet."""

    name = "export.write"
    is_undone = True

    folder: str
    sets: tuple[ChosenSet, ...]
    format: Format
    size_bytes: int
    leaves: tuple[str, ...]
    """Warnings about data that leaves the vault."""
    need_bytes: dict[str, int]
    decompresses: bool = False
    """Whether a dump that the vault has compressed becomes the statements that a client reads."""

    @property
    def title(self) -> str:
        return "write the backup as plain files"

    def do(self, application: ApplicationContext, context: Context[WriteFacts]) -> None:
        folder = Path(self.folder)
        for where, need in self.need_bytes.items():
            if (free := durable.free_bytes(where)) < need:
                raise NoSpaceError(
                    f"{where} has {free >> 20} MiB free; this needs more than {need >> 20} MiB",
                    next_step="Free space there, or name another folder, then run the command again.",
                )
        if not folder.is_dir():
            context.facts.created = True
            context.record()
            durable.make_directory(folder)
        context.facts.warnings = list(self.leaves)
        context.record()
        done = 0

        def passed(size_bytes: int) -> None:
            nonlocal done
            done += size_bytes
            context.check_cancelled()
            context.progress(done, self.size_bytes, "bytes")

        for chosen in self.sets:
            self._write(application, folder, chosen, passed)
        durable.sync_filesystem(folder)
        durable.sync_directory(folder)

    def _write(
        self, application: ApplicationContext, folder: Path, chosen: ChosenSet, passed: Callable[[int], None]
    ) -> None:
        target = hidden(application, folder, chosen.id)
        durable.remove_tree(target)  # a killed export may have left files that its undo could not reach
        if os.path.lexists(folder / chosen.id):
            raise taken(folder / chosen.id)
        os.mkdir(target, 0o700)
        source = backup.vault_of(application).open_set(chosen.id)
        with _SumsFile(target / SUMS) as sums:
            _write_set(source, target, chosen, self.format, sums, passed, decompresses=self.decompresses)

    def undo(self, application: ApplicationContext, context: Context[WriteFacts]) -> None:
        folder = Path(self.folder)
        if not folder.is_dir():
            return  # for example of a removed disk; the next export of that backup removes what is left there
        for chosen in self.sets:
            durable.remove_tree(hidden(application, folder, chosen.id))
        if context.facts.created and not any(folder.iterdir()):
            folder.rmdir()


class PublishExportFacts(StepFacts):
    failed: str | None = None
    """The backup whose export was gone."""


class PublishExport(TypedStep[PublishExportFacts], frozen=True):
    """Rename each export to its name. This is a closing step.

    An export that is gone, for example with a removed disk, is an error once; a recovery that misses it again ignores
    it.
    """

    name = "export.publish"

    folder: str
    sets: tuple[ExportedSet, ...]

    @property
    def title(self) -> str:
        return "put the plain files in place"

    def do(self, application: ApplicationContext, context: Context[PublishExportFacts]) -> None:
        folder = Path(self.folder)
        for exported in self.sets:
            source, target = hidden(application, folder, exported.id), folder / exported.id
            if not source.is_dir():
                if target.is_dir():
                    continue
                if context.facts.failed:
                    context.say(f"the export of {exported.id} is gone; run the command again")
                    continue
                context.facts.failed = exported.id
                context.record()
                raise NotFoundError(f"{folder} no longer contains the export of {exported.id}")
            if os.path.lexists(target):
                raise taken(target)
            durable.rename(source, target)


def _write_set(
    source: StoredBackup,
    target: Path,
    chosen: ChosenSet,
    form: Format,
    sums: _SumsFile,
    passed: Callable[[int], None],
    *,
    decompresses: bool,
) -> None:
    manifest = source.manifest
    for name, facts in sorted(manifest.files.items()):
        if name.partition("/")[0] not in chosen.stored:
            continue
        if decompresses and name.endswith(_COMPRESSED):
            plain = name.removesuffix(_COMPRESSED)
            sums.add(os.fsencode(plain), _decompress(source, name, target / plain, facts["sha256"], passed))
        else:
            (target / name).parent.mkdir(mode=0o700, exist_ok=True)
            _copy(source, name, target / name, facts["sha256"], passed)
            sums.add(os.fsencode(name), facts["sha256"])
    for name in chosen.files:
        if form == "folder":

            def wrote(path: bytes, entry: Entry, name: str = name) -> None:
                sums.add(os.fsencode(name) + b"/" + path, entry.sha256)

            write_folder(target / name, partial(source.listing, name), source.fetch, wrote, passed)
            continue
        with _Hashed(target / f"{name}.tar.gz") as archive:
            taken_at = datetime.fromisoformat(manifest.instant).timestamp()
            write_tar(archive, source.listing(name), source.fetch, target, passed, taken_at)
        sums.add(os.fsencode(f"{name}.tar.gz"), archive.digest())
    with _Hashed(target / "manifest.json") as copy:
        copy.write(source.manifest_text())
    sums.add(b"manifest.json", copy.digest())


def _copy(source: StoredBackup, name: str, target: Path, sha256: str, passed: Callable[[int], None]) -> None:
    """Copy a file of a backup. Raise DamagedError if the content is not what the manifest names."""
    with source.open(name) as reader, _Hashed(target) as writer:
        while block := reader.read(_BLOCK_BYTES):
            writer.write(block)
            passed(len(block))
    if writer.digest() != sha256:
        raise _damaged(source, name, "its digest does not match")


def _decompress(source: StoredBackup, name: str, target: Path, sha256: str, passed: Callable[[int], None]) -> str:
    """Write what a compressed file of a backup contains; return the digest of that. Raise DamagedError."""
    import zstandard  # noqa: PLC0415 # only for this export

    stored = hashlib.sha256()
    expanded = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)
    with source.open(name) as reader, _Hashed(target) as writer:
        while block := reader.read(_BLOCK_BYTES):
            stored.update(block)
            try:
                writer.write(expanded.decompress(block))
            except zstandard.ZstdError as error:
                raise _damaged(source, name, str(error)) from error
            passed(len(block))
    if stored.hexdigest() != sha256:
        raise _damaged(source, name, "its digest does not match")
    return writer.digest()


def _damaged(source: StoredBackup, name: str, how: str) -> DamagedError:
    return DamagedError(
        f"{name} of backup {source.manifest.id} is damaged: {how}",
        next_step="Run `holdfast backup verify` to see all damage, and choose another backup.",
    )


class _Hashed:
    """A new file that only its owner can read; it is hashed while it is written."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def digest(self) -> str:
        return self._digest.hexdigest()

    def __enter__(self) -> _Hashed:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class _SumsFile:
    """SHA256SUMS in the format of coreutils' `sha256sum -c`, which escapes a backslash or line break in a name."""

    def __init__(self, path: Path) -> None:
        self._file = _Hashed(path)

    def add(self, name: bytes, sha256: str) -> None:
        escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
        sign = b"\\" if escaped != name else b""
        self._file.write(sign + sha256.encode() + b"  " + escaped + b"\n")

    def __enter__(self) -> _SumsFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.__exit__(*error)
