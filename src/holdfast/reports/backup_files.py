"""What is in the files datasets of backups: listings, the backups that have a file, and differences.

Listings are read as streams, so that the memory does not grow with the number of files.
"""

from __future__ import annotations

import heapq
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from holdfast.application import file_paths
from holdfast.application.application import App
from holdfast.application.file_differences import Difference, compare, differences
from holdfast.config.load import ResolvedConfig
from holdfast.drivers.entries import Children, NamePattern, Selection
from holdfast.drivers.interchange import extraction
from holdfast.drivers.protocols.vaults import StoredBackup, Vault
from holdfast.drivers.vaults.factory import open_vault
from holdfast.errors import HoldfastError, NotFoundError, RefusedError
from holdfast.model import Backup, Entry
from holdfast.operations import backup as backups
from holdfast.system.host import Host

Named = tuple[str, Entry]
"""A dataset, and an entry of it."""


class BackupReader:
    """The backups of a vault. No journal is opened and no application need be installed."""

    def __init__(self, loaded: ResolvedConfig, host: Host) -> None:
        """Open the vault. Raise RefusedError without one."""
        self.loaded = loaded
        self.vault: Vault = backups.require_vault(open_vault(loaded, host))

    def find(self, reference: str) -> Backup:
        """Return a backup by id, unique prefix or `latest`. Raise NotFoundError or UsageError."""
        return backups.find_in(self.vault, self.loaded, reference, self.loaded.configuration.files)

    def open(self, backup: Backup) -> StoredBackup:
        """Open a backup for its files: nothing is read before it is needed. Raise DamagedError."""
        return self.vault.open_set(backup.id, ())


# --- listing -------------------------------------------------------------------------------------------


def listed(reader: BackupReader, backup: Backup, path: str, *, recursive: bool) -> Iterator[Named]:
    """Return the entries in a folder of a backup, or with `recursive` all below it; the entry itself for a file.

    Without a path, they are those of all files datasets. Raise NotFoundError, UsageError or DamagedError.
    """
    source = reader.open(backup)
    known = file_paths.datasets_of(backup)
    if not path.strip("/"):
        return itertools.chain.from_iterable(_below(source, name, b"", recursive=recursive) for name in known)
    name, raw = file_paths.split(path, known, f"backup {backup.id}")
    found = _below(source, name, raw, recursive=recursive)
    if not raw:
        return found
    top = next(found, None)
    if top is None:
        raise file_paths.not_found(backup, name, raw)
    return found if top[1].kind == "directory" else iter([top])


def _below(source: StoredBackup, name: str, path: bytes, *, recursive: bool) -> Iterator[Named]:
    """Yield the entry at a path, and those in it."""
    chosen = Selection([path]) if recursive else Children(path)
    entries = source.listing(name) if recursive and not path else source.entries(name, chosen)
    return ((name, entry) for entry in entries if chosen.covers(entry.raw_path()))


# --- finding -------------------------------------------------------------------------------------------

State = Literal["new", "changed", "metadata", "same"]
"""How an entry is compared with the same path in the next older backup; `new` where that does not have it."""


class Version(msgspec.Struct):
    """An entry in a backup; `backups` counts this one and the older ones in which it is exactly the same."""

    backup: Backup
    entry: Entry
    state: State
    backups: int = 1


class FoundPath(msgspec.Struct, frozen=True):
    """A path that matches, with its versions, the newest first."""

    dataset: str
    versions: list[Version]


def found(reader: BackupReader, pattern: str, only: Backup | None = None, *, each: bool = False) -> Iterator[FoundPath]:
    """Yield the paths that match a pattern, in the order of the listings, with the backups that have them.

    Backups in which an entry is the same as in the next older one are joined to that one, unless `each` is set.
    `only`: that backup alone, which is still compared with the next older one.
    """
    newest_first = reader.vault.backups()[::-1]
    for name in dict.fromkeys(name for backup in newest_first for name in file_paths.datasets_of(backup)):
        having = [backup for backup in newest_first if name in backup.datasets]
        if only is not None:
            having = [backup for backup in having if backup.sequence <= only.sequence][:2]
        # Listings with the same digest are read once: in most backups of the night nothing has changed.
        digest_of = partial(_digest_of_listing, name)
        alike = [list(several) for _, several in itertools.groupby(having, digest_of)]
        matching = [_numbered(reader, one[0], name, pattern, number) for number, one in enumerate(alike)]
        for _, group in itertools.groupby(heapq.merge(*matching, key=lambda one: one[:2]), lambda one: one[0]):
            versions = _versions({number: entry for _, number, entry in group}, alike)
            if only is not None:
                versions = [version for version in versions if version.backup.id == only.id]
            if versions:
                yield FoundPath(name, versions if each or only is not None else _joined(versions))


def _numbered(
    reader: BackupReader, backup: Backup, name: str, pattern: str, number: int
) -> Iterator[tuple[bytes, int, Entry]]:
    """Yield the matching entries of a backup, each with its place in the order and the number of the backup."""
    for entry in reader.open(backup).entries(name, NamePattern(pattern, name)):
        yield entry.order(), number, entry


def _digest_of_listing(name: str, backup: Backup) -> str:
    """Return the digest of a listing as the manifest has it; something unique if the vault keeps none there."""
    digests = (facts["sha256"] for file, facts in backup.files.items() if file.startswith(f"files.{name}."))
    return next(digests, backup.id)


def _versions(entries: Mapping[int, Entry], alike: Sequence[Sequence[Backup]]) -> list[Version]:
    """Return an entry in each backup that has it, newest first, compared with the next older one."""
    versions: list[Version] = []
    for number, entry in sorted(entries.items()):
        older = entries.get(number + 1)
        state: State = "new"
        if older is not None:
            change = compare(older, entry)
            state = "same" if change is None else "metadata" if change == "metadata" else "changed"
        *same, oldest = alike[number]
        versions += [Version(backup, entry, "same") for backup in same]
        versions.append(Version(oldest, entry, state))
    return versions


def _joined(versions: Sequence[Version]) -> list[Version]:
    joined: list[Version] = []
    for version in versions:
        if joined and joined[-1].state == "same":
            joined[-1].backups += 1
            joined[-1].state = version.state
        else:
            joined.append(version)
    return joined


# --- differences ---------------------------------------------------------------------------------------


class Rows(msgspec.Struct, frozen=True):
    """The rows of a table; None where they were not counted in time, or where there is no such table."""

    table: str
    before: int | None
    after: int | None


class Comparison:
    """A backup beside another one, or beside the live application if there is none."""

    def __init__(self, reader: BackupReader, before: Backup, after: Backup | None, app: App | None) -> None:
        self._reader = reader
        self.before = before
        self.after = after
        self._app = app
        self.notes: list[str] = []
        """The datasets that are not compared, and why."""
        names = before.datasets.keys()
        others = after.datasets.keys() if after is not None else self._live_names()
        self._both = [name for name in names if name in others]
        for name in sorted(names ^ others):
            where = f"backup {before.id}" if name in names else self.other
            self.notes.append(f"{name} is only in {where}, and is not compared.")

    @property
    def other(self) -> str:
        return f"backup {self.after.id}" if self.after is not None else "the live application"

    def _live_names(self) -> set[str]:
        assert self._app is not None
        return {*self._app.context.databases, *self._app.context.files}

    def files(self, check: Callable[[], None]) -> Iterator[tuple[str, Difference]]:
        """Yield what differs in the files datasets of both. Raise DamagedError."""
        source = self._reader.open(self.before)
        for name in file_paths.datasets_of(self.before):
            if name not in self._both:
                continue
            before = source.listing(name)
            if self.after is None:
                assert self._app is not None
                live = self._app.context.files[name]
                found = differences(before, live.scan(), live, check)
            else:
                found = differences(before, self._reader.open(self.after).listing(name), check=check)
            yield from ((name, difference) for difference in found)

    def rows(self) -> dict[str, list[Rows]]:
        """Return the rows of each table of the databases in both."""
        compared = {}
        for name in self._both:
            before = self.before.datasets[name]
            if before["kind"] == "files":
                continue
            try:
                after = self._rows_after(name)
            except HoldfastError as error:
                self.notes.append(f"{name} is not compared: {error.what}")
                continue
            old = before.get("rows", {})
            compared[name] = [Rows(table, old.get(table), after.get(table)) for table in sorted({*old, *after})]
        return compared

    def _rows_after(self, name: str) -> Mapping[str, int | None]:
        if self.after is not None:
            rows: Mapping[str, int | None] = self.after.datasets[name].get("rows", {})
            return rows
        assert self._app is not None
        database = self._app.context.databases[name]
        if not database.inspect()["exists"]:
            raise NotFoundError("the database does not exist")
        return {table: facts["rows"] for table, facts in database.tables().items()}


# --- extraction ----------------------------------------------------------------------------------------


def extract(
    reader: BackupReader, backup: Backup, paths: Sequence[str], folder: str, host: Host, check: Callable[[], None]
) -> str:
    """Write files of a backup into a new or empty folder, each under its dataset's name; return the folder.

    Raise NotFoundError, UsageError, RefusedError or DamagedError; nothing is left then.
    """
    known = file_paths.datasets_of(backup)
    chosen = file_paths.selections(file_paths.split(path, known, f"backup {backup.id}") for path in paths)
    target = _elsewhere(reader, folder)
    source = reader.open(backup)

    def entries_of(name: str) -> Callable[[], Iterator[Entry]]:
        return lambda: file_paths.chosen_entries(source, name, chosen[name])

    extraction.extract(target, {name: entries_of(name) for name in chosen}, source.fetch, check, host)
    return str(target)


def _elsewhere(reader: BackupReader, folder: str) -> Path:
    """Return an absolute path that is in no dataset and in nothing of Holdfast's own. Raise RefusedError."""
    target = Path(os.path.abspath(folder))
    loaded = reader.loaded
    places = {
        f"dataset {name}": loaded.path(item.path) for name, item in loaded.configuration.files.items() if item.path
    }
    if (vault := reader.vault.capabilities.folder) is not None:
        places["vault"] = vault
    places["state directory"] = loaded.state
    places["folder of releases"] = loaded.path(loaded.configuration.releases.path)
    for what, place in places.items():
        if target.resolve().is_relative_to(place.resolve()):
            raise RefusedError(f"{target} is inside the {what} ({place})", next_step="Name a folder elsewhere.")
    return target
