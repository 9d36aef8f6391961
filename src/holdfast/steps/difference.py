"""The check that reads the files of a restore to their end before anything stops."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from holdfast.drivers.entries import inside
from holdfast.drivers.protocols.files import Files
from holdfast.drivers.protocols.vaults import Capabilities, StoredBackup
from holdfast.errors import NoSpaceError
from holdfast.model import Entry
from holdfast.steps.typed import OperationContext
from holdfast.system import durable

_SLACK_BYTES = 4 << 20


def check(files: Files, name: str, source: StoredBackup, vault: Capabilities, context: OperationContext) -> None:
    """Read the content of each file that differs from a backup, as the restore will. Visitors go on writing meanwhile.

    Raise DamagedError for content that does not match its digest, NoSpaceError where it does not fit.
    """
    place = files.root
    while not place.is_dir():
        place = place.parent
    known: set[str] = set()
    need = 0
    # It has no name, so that nothing is left of it after a kill; it is where the restore stages its files.
    with tempfile.TemporaryFile(dir=place) as sink:
        for entry, live in _differing(files.scan(), inside(source.listing(name))):
            context.check_cancelled()
            if not entry.sparse and (live is None or live.size != entry.size):  # else only its time may be another
                need += entry.size
            if entry.sha256 in known:
                continue
            known.add(entry.sha256)
            source.fetch(entry, sink.fileno())
            sink.seek(0)
            sink.truncate()
    near = vault.folder is not None and vault.folder.stat().st_dev == place.stat().st_dev
    if not near:  # else the filesystem may share blocks of both
        _require_space(place, name, need)


def _require_space(place: Path, name: str, need: int) -> None:
    free = durable.free_bytes(place)
    if free < need + _SLACK_BYTES:
        raise NoSpaceError(
            f"files {name} have {free >> 20} MiB free next to them; the restore needs {(need >> 20) + 1} MiB",
            next_step="Free space there, then run the command again.",
        )


def _differing(live: Iterable[Entry], wanted: Iterable[Entry]) -> Iterator[tuple[Entry, Entry | None]]:
    """Yield the files of a listing that the tree lacks, or has with another size or time, with the tree's entry.

    Both come in one order.
    """
    left = iter(live)
    here = next(left, None)
    for entry in wanted:
        while here is not None and here.order() < entry.order():
            here = next(left, None)
        same = here if here is not None and here.raw_path() == entry.raw_path() and here.kind == entry.kind else None
        if entry.kind == "file" and (same is None or (same.size, same.mtime_ns) != (entry.size, entry.mtime_ns)):
            yield entry, same
