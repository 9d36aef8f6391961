"""A backup's own files where programs of this machine need them: in the vault itself, or as copies that are streamed.

Database programs read and write files, not streams. A vault that is not `in_place` gets its dumps from a folder of the
operation, and dumps come from it into one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from holdfast.application.context import ApplicationContext
from holdfast.drivers.protocols.vaults import StoredBackup, VaultRun
from holdfast.errors import DamagedError
from holdfast.system import durable

_BLOCK_BYTES = 1 << 20


def dump_name(application: ApplicationContext, name: str) -> str:
    """Return the name of a database's dump in a backup."""
    return f"database.{name}.{application.databases[name].extension}"


# --- writing -------------------------------------------------------------------------------------------


def dump_path(application: ApplicationContext, run: VaultRun, name: str) -> Path:
    """Return the path to which a database is dumped, before `keep_dump`."""
    file = dump_name(application, name)
    place = run.place_of(file)
    if place is not None:
        return place
    folder = _outgoing(application, run.id)
    durable.make_directory(folder)
    return folder / file


def keep_dump(application: ApplicationContext, run: VaultRun, name: str) -> int:
    """Make the dump of a database part of the backup; return its bytes."""
    file = dump_name(application, name)
    if run.place_of(file) is None:
        path = _outgoing(application, run.id) / file
        run.remove(file)
        for part in sorted(path.iterdir()) if path.is_dir() else [path]:
            add_file(run, file if part == path else f"{file}/{part.name}", part)
        _remove(path)
    return run.size_of(file)


def drop_dump(application: ApplicationContext, run: VaultRun, name: str) -> None:
    """Remove what a failed dump left. Idempotent."""
    run.remove(dump_name(application, name))
    _remove(_outgoing(application, run.id) / dump_name(application, name))


def add_file(run: VaultRun, name: str, source: Path) -> None:
    """Copy a file of this machine into a backup, as a reflink where the vault allows it."""
    place = run.place_of(name)
    if place is not None:
        durable.clone_or_copy(source, place)
        return
    with open(source, "rb") as reader, run.write(name) as writer:
        shutil.copyfileobj(reader, writer, _BLOCK_BYTES)


# --- reading -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def dump_of(application: ApplicationContext, source: StoredBackup, name: str, operation: str) -> Iterator[Path]:
    """Yield the path of a database's dump. Raise DamagedError."""
    file = dump_name(application, name)
    with at_hand(application, source, [file], operation) as folder:
        yield folder / file


@contextlib.contextmanager
def at_hand(
    application: ApplicationContext, source: StoredBackup, names: Sequence[str], operation: str
) -> Iterator[Path]:
    """Yield a folder of this machine with some of a backup's files. Raise DamagedError."""
    places = [source.place_of(name) for name in names]
    folders = {place.parent for place in places if place is not None}
    if None not in places and len(folders) == 1:
        yield folders.pop()
        return
    folder = application.operation_folder(operation) / "incoming"
    durable.remove_tree(folder)
    durable.make_directory(folder)
    try:
        for file, facts in source.manifest.files.items():
            if file.partition("/")[0] in names:
                durable.make_directory((folder / file).parent)
                _fetch(source, file, facts["sha256"], folder / file)
        yield folder
    finally:
        durable.remove_tree(folder)


def _fetch(source: StoredBackup, name: str, sha256: str, target: Path) -> None:
    digest = hashlib.sha256()
    with source.open(name) as reader, open(target, "wb", opener=_private) as writer:
        while block := reader.read(_BLOCK_BYTES):
            digest.update(block)
            writer.write(block)
    if digest.hexdigest() != sha256:
        raise DamagedError(f"{name} of backup {source.manifest.id} is damaged: its digest does not match")


# --- what an operation leaves ----------------------------------------------------------------------------


def remove_copies(application: ApplicationContext, operation: str) -> None:
    """Remove the copies that an interrupted operation left. Idempotent."""
    folder = application.loaded.state / "operations" / operation
    for name in ("outgoing", "incoming"):
        durable.remove_tree(folder / name)


def _outgoing(application: ApplicationContext, run: str) -> Path:
    return application.loaded.state / "operations" / run.partition(".")[0] / "outgoing"


def _remove(path: Path) -> None:
    if path.is_dir():
        durable.remove_tree(path)
    path.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
