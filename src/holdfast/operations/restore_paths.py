"""The plan of `backup restore ID --path`: single files and folders come back while the services go on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from holdfast.application import file_paths
from holdfast.application.application import App
from holdfast.application.file_differences import Difference, differences
from holdfast.drivers.entries import Selection
from holdfast.drivers.files import moves
from holdfast.drivers.protocols.vaults import StoredBackup
from holdfast.model import Entry, Plan
from holdfast.operations import backup as backups
from holdfast.operations import parts
from holdfast.steps.restore_paths import ChosenPath, RestorePaths, named

_MOST_NAMED = 10


def plan(app: App, reference: str, paths: Sequence[str]) -> Plan:
    """Return the plan of a restore of files and folders, named as `DATASET/PATH`.

    Raise NotFoundError, UsageError, RefusedError or DamagedError; nothing is changed.
    """
    known = list(app.loaded.configuration.files)
    chosen = [file_paths.split(text, known, "holdfast.toml") for text in paths]
    found = backups.find(app, reference, {name for name, _ in chosen})
    for name, _ in chosen:
        file_paths.split(name, file_paths.datasets_of(found), f"backup {found.id}")
    source = backups.vault(app).open_set(found.id, ())
    notes: list[str] = []
    need: dict[str, int] = {}
    for name, selection in file_paths.selections(chosen).items():
        effect = _Effect(name)
        effect.add_all(app, source, selection)
        notes += effect.notes()
        if not _shares_blocks(app, name):
            place = str(_existing(app.context.files[name].root))
            need[place] = need.get(place, 1 << 20) + effect.size_bytes
    keep = app.loaded.configuration.upgrade.keep_replaced
    notes.append(f"The files go back to {found.instant}. Services keep running. Replaced files are kept for {keep}.")
    steps = tuple(ChosenPath.of(name, path) for name, path in chosen)
    return Plan(
        kind="backup.restore_paths",
        title=f"restore {named(steps)} of backup {found.id}",
        steps=(
            parts.preflight(app, parts.Datasets((), (), False), taken_over=False, stops=False, more=need),
            RestorePaths(found.id, steps),
        ),
        also_locks=("backup",),
        notes=tuple(notes),
        barrier_paths=tuple(app.context.barrier_paths()),
        parameters=parts.parameters(app, None, set=found.id),
    )


class _Effect:
    """What a restore does to one dataset, for the operator to read before it begins."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._counts = {"replaced": 0, "brought back": 0, "given its earlier mode, owner or time": 0, "left alone": 0}
        self._named: list[str] = []
        self.size_bytes = 0

    def add_all(self, app: App, source: StoredBackup, selection: Selection) -> None:
        files = app.context.files[self._name]
        wanted = file_paths.chosen_entries(source, self._name, selection)
        gone: bytes | None = None  # a directory in whose place a file comes, with everything in it
        for difference in differences(wanted, files.look(selection), files):
            path = difference.entry.raw_path()
            if gone is not None and path.startswith(gone):
                continue
            if difference.change == "changed" and difference.entry.kind == "directory":
                gone = path + b"/"
            if selection.covers(path):
                self._add(difference)
            elif difference.change == "changed":
                raise moves.not_a_directory(difference.entry)

    def _add(self, difference: Difference) -> None:
        before, after = difference.before, difference.after
        if before is None:
            self._counts["left alone"] += 1
            return
        if difference.change == "metadata":
            self._count("given its earlier mode, owner or time", before, "")
            return
        self.size_bytes += before.size
        if after is None:
            self._count("brought back", before, "")
        else:
            self._count("replaced", before, f" (now {_described(after)}, in the backup {_described(before)})")

    def _count(self, what: str, entry: Entry, more: str) -> None:
        self._counts[what] += 1
        if len(self._named) < _MOST_NAMED:
            self._named.append(f"{file_paths.shown(self._name, entry)} is {what}{more}.")

    def notes(self) -> list[str]:
        """Return a line for each of the first entries, and the number of all."""
        changed = sum(self._counts.values()) - self._counts["left alone"]
        found = list(self._named)
        if changed > len(self._named):
            counts = (f"{count:,} {what}" for what, count in self._counts.items() if count and what != "left alone")
            found.append(f"In {self._name}, {changed:,} entries in all: {'; '.join(counts)}.")
        if not changed:
            found.append(f"{self._name} already has all of it as it is in the backup.")
        if self._counts["left alone"]:
            found.append(f"{self._counts['left alone']:,} entries that are not in the backup stay in {self._name}.")
        return found


def _described(entry: Entry) -> str:
    if entry.kind == "directory":
        return "a directory with everything in it"
    return f"{entry.size:,} bytes of {file_paths.modified(entry)}" if entry.kind == "file" else f"a {entry.kind}"


def _shares_blocks(app: App, name: str) -> bool:
    """Return whether the filesystem may share the blocks of what is restored with the vault."""
    folder = backups.vault(app).capabilities.folder
    place = _existing(app.context.files[name].root)
    return folder is not None and os.stat(folder).st_dev == os.stat(place).st_dev


def _existing(place: Path) -> Path:
    while not place.is_dir():
        place = place.parent
    return place
