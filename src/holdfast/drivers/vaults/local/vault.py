"""A vault of plain files on a local disk; docs/reference/vault.md describes its layout.

A backup is built under tmp/, synced once as a whole, its contents renamed into packs/ and objects/, and committed by
the rename of its folder into backups/. Deduplication trusts only contents that a published backup references.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.drivers.protocols.vaults import Capabilities, Progress
from holdfast.drivers.vaults.local import manifest as manifests
from holdfast.errors import DamagedError, NotFoundError, OwnerMismatchError, RefusedError
from holdfast.model import Backup
from holdfast.system import durable
from holdfast.system.host import Host
from holdfast.system.sealed import check_format, sealed, unseal

if TYPE_CHECKING:
    from holdfast.drivers.vaults.local.reader import LocalBackup
    from holdfast.drivers.vaults.local.watched import Watched
    from holdfast.drivers.vaults.local.writer import LocalRun

_VAULT_FILE = "holdfast-vault.json"
_LOCK_SECONDS = 10.0
_FOLDERS = ("objects", "packs", "tmp", "backups", "pins")


class LocalVault:
    kind = "local"

    def __init__(self, path: Path, owner: str, host: Host | None = None) -> None:
        """Do everything in this process where there is no host."""
        self._host = host
        self.path = path
        self.owner = owner
        self._runs: dict[str, LocalRun] = {}
        self._lock: int | None = None
        self._watched: tuple[str, dict[str, Watched]] | None = None  # trees watched for changes since a backup

    @property
    def location(self) -> str:
        return str(self.path)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(folder=self.path, in_place=True, links=True)

    def exists(self) -> bool:
        return self.path.is_dir()

    def free_bytes(self) -> int:
        return durable.free_bytes(self.path)

    # --- opening -----------------------------------------------------------------------------------

    def create_or_open(self) -> None:
        """Make the vault if the folder is empty or missing. Raise OwnerMismatchError, DamagedError, RefusedError."""
        if (self.path / _VAULT_FILE).exists():
            self._check_owner()
        else:
            if self.path.is_dir() and any((self.path / name).exists() for name in ("backups", "packs", "objects")):
                raise DamagedError(
                    f"{self.path} contains backups but no {_VAULT_FILE}",
                    next_step="Restore that file from a copy, or set another vault path.",
                )
            if self.path.is_dir() and any(
                not name.startswith(".") for name in os.listdir(self.path) if name != "lost+found"
            ):
                raise RefusedError(
                    f"{self.path} is not empty and not a vault", next_step="Set an empty folder in `vaults`."
                )
            durable.make_directory(self.path)
            value = {"format": manifests.FORMAT, "id": secrets.token_hex(16), "owner": self.owner}
            durable.write_file(self.path / _VAULT_FILE, sealed(value))
        os.chmod(self.path, 0o700)
        for name in _FOLDERS:
            durable.make_directory(self.path / name)

    def _check_owner(self) -> None:
        """Raise OwnerMismatchError, or DamagedError for a damaged vault file."""
        value = unseal(self.path / _VAULT_FILE)
        check_format(value, self.path / _VAULT_FILE, manifests.FORMAT)
        if value["owner"] != self.owner:
            raise OwnerMismatchError(
                f"the vault {self.path} belongs to {value['owner']}, not to {self.owner}",
                next_step="Give each application and environment a vault path of its own.",
            )

    def _hold(self, mode: int) -> None:
        """Lock the vault until `_release`: several runs may write at a time, but nothing else runs during pruning.

        The lock is the vault's own, because a copy of the application with another state directory has other locks. It
        ends with its process. Raise RefusedError where other processes keep it.
        """
        if self._lock is None:
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, mode | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    break
            time.sleep(0.05)
        self._release()
        raise RefusedError(
            f"another process is using the vault {self.path}",
            next_step="Run the command again when that process has ended.",
        )

    def _release(self) -> None:
        """Unlock the vault where no run of this process is in progress."""
        if self._lock is not None and not self._runs:
            os.close(self._lock)
            self._lock = None

    # --- writing -----------------------------------------------------------------------------------

    def begin(self, run: str) -> LocalRun:
        from holdfast.drivers.vaults.local.writer import LocalRun

        self.create_or_open()
        self._hold(fcntl.LOCK_SH)
        latest = self.latest()
        found = self._runs[run] = LocalRun(self.path, run, self._work(run), latest, self._host)
        # A later run of the same operation continues from the backup just published; any other reads everything.
        if latest is not None and self._watched is not None and run.startswith(f"{latest.operation}."):
            set_id, watched = self._watched
            if set_id == latest.id:
                found.go_on_from(watched)
        self._watched = None
        return found

    def resume(self, run: str) -> tuple[LocalRun, Backup]:
        from holdfast.drivers.vaults.local.writer import LocalRun

        self._check_owner()
        self._hold(fcntl.LOCK_SH)
        manifest = manifests.read_manifest(self._finished(run))
        self._runs[run] = LocalRun(self.path, run, self.path / "tmp" / run, None, self._host, manifest.packs)
        return self._runs[run], manifest

    def _work(self, run: str) -> Path:
        """Return an empty folder for a run."""
        folder = self.path / "tmp" / run
        if folder.exists():
            durable.remove_tree(folder)
        durable.make_directory(folder / "set")
        return folder

    def run(self, run: str) -> LocalRun:
        return self._runs[run]

    def latest(self) -> Backup | None:
        found = self.backups()
        return found[-1] if found else None

    def new_id(self) -> str:
        taken = {folder.name for folder in self._set_folders()}
        moment = int(time.time())
        while (name := time.strftime("%Y-%m-%d-%H%M%S", time.gmtime(moment))) in taken:
            moment += 1
        return name

    def folder(self, id: str) -> Path:
        return self.path / "backups" / id

    def publish(self, run: str) -> str:
        self._check_owner()
        id = self._publish(run)
        if run in self._runs:
            self._watched = (id, self._runs.pop(run).watched)
        self._release()
        return id

    def _publish(self, run: str) -> str:
        folder = self.path / "tmp" / run
        finished = folder / "set"
        if not (finished / "manifest.json").exists():
            for backup in self.backups():
                if backup.operation == run:
                    durable.remove_tree(folder)
                    return backup.id
            raise NotFoundError(f"the unfinished backup {run} is not in the vault {self.path}")
        backup = manifests.read_manifest(finished)
        durable.rename(finished, self.path / "backups" / backup.id)
        durable.remove_tree(folder)
        return backup.id

    def abandon(self, run: str) -> None:
        # The vault is not checked: a run's folder has the name of its operation, and an undo must always succeed.
        self._runs.pop(run, None)
        durable.remove_tree(self.path / "tmp" / run)
        self._release()

    # --- reading -----------------------------------------------------------------------------------

    def _set_folders(self) -> list[Path]:
        root = self.path / "backups"
        return sorted(root.iterdir()) if root.is_dir() else []

    def backups(self) -> list[Backup]:
        found = []
        for folder in self._set_folders():
            try:
                backup = manifests.read_manifest(folder)
            except DamagedError:
                continue
            backup.pinned = bool(self.pins(backup.id))
            found.append(backup)
        return sorted(found, key=lambda backup: backup.sequence)

    def damaged(self) -> list[str]:
        """Return the folders in backups/ whose manifest does not verify."""
        broken = []
        for folder in self._set_folders():
            try:
                manifests.read_manifest(folder)
            except DamagedError:
                broken.append(folder.name)
        return broken

    def verify(self, id: str | None, progress: Progress, check: Callable[[], None]) -> list[str]:
        from holdfast.drivers.vaults.local.verification import Verification

        if id is not None and not (self.path / "backups" / id).is_dir():
            raise NotFoundError(f"there is no backup {id} in {self.path}")
        found = Verification(self.path, progress, check)
        try:
            self._check_owner()
        except DamagedError as error:
            found.problems.append(error.what)
        return found.run([folder for folder in self._set_folders() if id in (None, folder.name)])

    def open_set(self, id: str, only: Collection[str] | None = None) -> LocalBackup:
        folder = self.path / "backups" / id
        if not folder.is_dir():
            raise NotFoundError(
                f"there is no backup {id} in {self.path}", next_step="Run `holdfast backup list` to see them."
            )
        return self._open(folder, only)

    def open_run(self, run: str) -> LocalBackup:
        return self._open(self._finished(run), None)

    def _finished(self, run: str) -> Path:
        folder = self.path / "tmp" / run / "set"
        if not folder.is_dir():
            raise NotFoundError(f"the unfinished backup {run} is not in the vault {self.path}")
        return folder

    def _open(self, folder: Path, only: Collection[str] | None) -> LocalBackup:
        from holdfast.drivers.vaults.local.reader import LocalBackup

        self._check_owner()
        found = LocalBackup(self.path, folder, manifests.read_manifest(folder), only)
        problems = found.problems()
        if problems:
            raise DamagedError(
                f"backup {found.manifest.id} is damaged: {'; '.join(problems[:3])}",
                state="Nothing was changed.",
                next_step="Choose another backup. `holdfast backup verify` lists all damage.",
            )
        return found

    # --- pins and pruning --------------------------------------------------------------------------

    def pins(self, id: str) -> list[str]:
        folder = self.path / "pins"
        return (
            [name.partition(".")[2] for name in os.listdir(folder) if name.partition(".")[0] == id]
            if folder.is_dir()
            else []
        )

    def pin(self, id: str, by: str, pinned: bool) -> None:
        self._check_owner()
        path = self.path / "pins" / f"{id}.{by}"
        if pinned:
            if not (self.path / "backups" / id).is_dir():
                raise NotFoundError(f"there is no backup {id} in {self.path}")
            durable.write_file(path, b"")
        else:
            durable.unlink(path)

    def check_prune(self, remove: Sequence[str]) -> None:
        from holdfast.drivers.vaults.local import pruning

        with self._alone():
            pruning.check(self._set_folders(), self._pinned(remove))

    def prune(self, remove: Sequence[str], run: str) -> Mapping[str, int]:
        from holdfast.drivers.vaults.local import pruning

        with self._alone():
            return pruning.prune(self.path, self._set_folders, remove, run, pinned=self._pinned(remove))

    def _pinned(self, ids: Sequence[str]) -> list[str]:
        return [id for id in ids if self.pins(id)]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other runs out of the vault."""
        self._check_owner()
        self._hold(fcntl.LOCK_EX)
        try:
            yield
        finally:
            if self._runs:
                self._hold(fcntl.LOCK_SH)
            self._release()

    def remove(self, id: str) -> None:
        self._check_owner()
        folder, work = self.path / "backups" / id, self.path / "tmp" / f"removed.{id}"
        if folder.is_dir():
            durable.rename(folder, work)
        durable.remove_tree(work)
