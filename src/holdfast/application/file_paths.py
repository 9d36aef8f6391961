"""Paths of files as operators type them: the dataset, then the path below its folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from holdfast.drivers.entries import Selection
from holdfast.drivers.files.tree import is_private
from holdfast.drivers.protocols.vaults import StoredBackup
from holdfast.errors import NotFoundError, UsageError
from holdfast.model import Backup, Entry


def datasets_of(backup: Backup) -> list[str]:
    """Return the files datasets of a backup."""
    return [name for name, facts in backup.datasets.items() if facts["kind"] == "files"]


def split(text: str, known: Sequence[str], where: str) -> tuple[str, bytes]:
    """Return dataset and path of `media/2026/x.jpg`; the path is empty for a whole dataset. Raise UsageError."""
    name, *parts = [part for part in text.split("/") if part] or [""]
    if name not in known:
        raise UsageError(
            f"there is no files dataset {name!r} in {where}",
            next_step=f"A path begins with the name of a dataset: {', '.join(known) or 'none'}.",
        )
    raw = [os.fsencode(part) for part in parts]
    if any(part in (b".", b"..") or b"\0" in part or is_private(part) for part in raw):
        raise UsageError(f"{text!r} is not a path in a dataset")
    return name, b"/".join(raw)


def shown(dataset: str, entry: Entry) -> str:
    """Return the path of an entry as it is printed: bytes that are no text are replaced, and controls are escaped."""
    return printable(f"{dataset}/{entry.path}")


def printable(text: str) -> str:
    """Return a text that cannot change a terminal."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def selections(paths: Iterable[tuple[str, bytes]]) -> dict[str, Selection]:
    """Return what is chosen of each dataset."""
    found: dict[str, list[bytes]] = {}
    for name, path in paths:
        found.setdefault(name, []).append(path)
    return {name: Selection(several) for name, several in found.items()}


def chosen_entries(source: StoredBackup, name: str, chosen: Selection) -> Iterator[Entry]:
    """Yield the entries of a selection. Raise NotFoundError, at the end, for a path that the backup does not have."""
    missing = [top for top in chosen.tops if top]
    for entry in source.entries(name, chosen) if all(chosen.tops) else source.listing(name):
        if missing and entry.raw_path() in missing:
            missing.remove(entry.raw_path())
        yield entry
    for path in missing:
        raise not_found(source.manifest, name, path)


def not_found(backup: Backup, name: str, path: bytes) -> NotFoundError:
    last = os.fsdecode(path.rpartition(b"/")[2])
    return NotFoundError(
        f"backup {backup.id} has no {printable(f'{name}/{os.fsdecode(path)}')}",
        next_step=f"To see which backups have it, run: holdfast backup find '{printable(last)}'",
    )
