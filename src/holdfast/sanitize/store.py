"""Sanitized backups in a folder of the vault: plain dumps, and beside them a sealed file that says what they are."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from holdfast.config.similar import no_such
from holdfast.errors import DamagedError, NotFoundError
from holdfast.system import durable
from holdfast.system.sealed import check_format, sealed, unseal

FOLDER = "sanitized"
FORMAT = 1
_ID = re.compile(r"\d{14}")
_MANIFEST = "-sanitized.json"
_HIDDEN = ".{}.unfinished"


class SanitizedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The dump of one database."""

    database: str
    kind: str
    size_bytes: int
    sha256: str
    """Of the file as it is."""
    rows: Mapping[str, int]
    schema: str
    """The digest of the schema that was read."""
    load: str
    """The command that loads it with the engine's own client."""


class SanitizedBackup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one sanitized backup is; the key is named by a part of its digest alone."""

    id: str
    owner: str
    instant: str
    release: str
    rules: str
    """The digest of the rules and of the decisions."""
    key: str
    encrypted_to: tuple[str, ...]
    files: Mapping[str, SanitizedFile]
    exempt: tuple[str, ...] = ()
    """Tables of which some rows were left unchanged, by a rule."""
    comment: str = ""
    format: int = FORMAT

    @property
    def size_bytes(self) -> int:
        return sum(one.size_bytes for one in self.files.values())


class SanitizedBackups:
    """The folder. Only its owner may enter it."""

    def __init__(self, vault: Path, owner: str) -> None:
        self.folder = vault / FOLDER
        self._owner = owner

    def new_id(self) -> str:
        """Return an id made of the time, that no other one has."""
        taken = {name[:14] for name in os.listdir(self.folder)} if self.folder.is_dir() else set()
        number = int(datetime.now(UTC).strftime("%Y%m%d%H%M%S"))
        while str(number) in taken:
            number += 1
        return str(number)

    def hidden(self, id: str) -> Path:
        """Return the folder in which one is written; nothing there is listed."""
        return self.folder / _HIDDEN.format(id)

    def begin(self, id: str) -> Path:
        """Make that folder, and remove those of earlier attempts that their undo could not reach.

        The lock of backups lets one operation write at a time.
        """
        durable.make_directory(self.folder)
        for left in self.folder.glob(_HIDDEN.format("*")):
            durable.remove_tree(left)
        durable.make_directory(self.hidden(id))
        return self.hidden(id)

    def finish(self, backup: SanitizedBackup) -> None:
        """Write the sealed file, durably; `publish` lists the backup."""
        durable.write_file(self.hidden(backup.id) / f"{backup.id}{_MANIFEST}", sealed(msgspec.to_builtins(backup)))
        durable.sync_directory(self.hidden(backup.id))

    def publish(self, id: str) -> None:
        """Give the files of a finished one their names, the sealed file last. Idempotent."""
        hidden = self.hidden(id)
        if not hidden.is_dir():
            return
        for name in sorted(os.listdir(hidden), key=lambda name: name.endswith(_MANIFEST)):
            durable.rename(hidden / name, self.folder / name)
        durable.remove_tree(hidden)

    def abandon(self, id: str) -> None:
        """Remove what was written of one that is not listed. Idempotent."""
        durable.remove_tree(self.hidden(id))

    def remove(self, id: str) -> None:
        """Remove one, the sealed file first. Idempotent."""
        if not _ID.fullmatch(id) or not self.folder.is_dir():
            return
        for name in sorted(os.listdir(self.folder), key=lambda name: not name.endswith(_MANIFEST)):
            if name.startswith(f"{id}-sanitized"):
                durable.unlink(self.folder / name)

    def all(self) -> tuple[list[SanitizedBackup], list[str]]:
        """Return those that are whole, oldest first, and the names of sealed files that are damaged."""
        found, damaged = [], []
        names = sorted(os.listdir(self.folder)) if self.folder.is_dir() else []
        for name in names:
            if name.endswith(_MANIFEST) and not name.startswith("."):
                try:
                    found.append(self._read(self.folder / name))
                except DamagedError:
                    damaged.append(name)
        return found, damaged

    def _read(self, path: Path) -> SanitizedBackup:
        value = unseal(path)
        check_format(value, path, FORMAT)
        try:
            found = msgspec.convert(value, SanitizedBackup)
        except msgspec.ValidationError as error:
            raise DamagedError(f"{path} is damaged: {error}") from error
        if found.owner != self._owner or not _ID.fullmatch(found.id) or any("/" in name for name in found.files):
            raise DamagedError(f"{path} is not a sanitized backup of {self._owner}")
        return found

    def find(self, reference: str) -> SanitizedBackup:
        """Return one by its id, a unique prefix, the name of its file, or `latest`. Raise NotFoundError."""
        found, _ = self.all()
        if not found:
            raise NotFoundError("there is no sanitized backup yet", next_step="Run: holdfast backup create --sanitized")
        if reference == "latest":
            return found[-1]
        wanted = Path(reference).name.partition("-sanitized")[0]
        matches = [one for one in found if wanted and one.id.startswith(wanted)]
        if len(matches) != 1:
            raise no_such("sanitized backup", reference, ["latest", *(one.id for one in found)])
        return matches[0]

    def path(self, name: str) -> Path:
        return self.folder / name

    def verify(self, backup: SanitizedBackup) -> None:
        """Raise DamagedError unless every file has the bytes that were written."""
        for name, facts in backup.files.items():
            try:
                with open(self.path(name), "rb") as file:
                    digest = hashlib.file_digest(file, "sha256")
            except OSError as error:
                raise DamagedError(f"sanitized backup {backup.id}: {name} cannot be read: {error}") from error
            if digest.hexdigest() != facts.sha256:
                raise DamagedError(
                    f"sanitized backup {backup.id} is damaged: the digest of {name} does not match",
                    next_step="Make a new one: holdfast backup create --sanitized",
                )
