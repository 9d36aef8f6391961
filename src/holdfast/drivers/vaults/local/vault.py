"""A vault of plain files on a local disk; docs/reference/vault.md describes its layout.

A backup is built under tmp/, synced once as a whole, its contents renamed into packs/ and objects/, and committed by
the rename of its folder into backups/. Deduplication trusts only contents that a published backup references.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from holdfast.drivers.entries import inside
from holdfast.drivers.protocols.vaults import OpenSet, Progress
from holdfast.drivers.vaults.local import manifest as manifests
from holdfast.drivers.vaults.local.damage import Damage, read_damage, write_damage
from holdfast.drivers.vaults.local.listing import read_digests, read_listing
from holdfast.drivers.vaults.local.reader import Contents
from holdfast.drivers.vaults.local.watched import Watched
from holdfast.drivers.vaults.local.writer import LocalRun
from holdfast.errors import DamagedError, NotFoundError, OwnerMismatchError, RefusedError
from holdfast.model import Backup
from holdfast.system import durable
from holdfast.system.host import Host

_VAULT_FILE = "holdfast-vault.json"
_LOCK_SECONDS = 10.0
_FOLDERS = ("objects", "packs", "tmp", "backups", "pins")


class LocalVault:
    def __init__(self, path: Path, owner: str, host: Host | None = None) -> None:
        """Do everything in this process where there is no host."""
        self._host = host
        self.path = path
        self.owner = owner
        self._runs: dict[str, LocalRun] = {}
        self._lock: int | None = None
        self._watched: tuple[str, dict[str, Watched]] | None = None  # trees watched for changes since a backup

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
            durable.write_file(self.path / _VAULT_FILE, manifests.sealed(value))
        os.chmod(self.path, 0o700)
        for name in _FOLDERS:
            durable.make_directory(self.path / name)

    def _check_owner(self) -> None:
        """Raise OwnerMismatchError, or DamagedError for a damaged vault file."""
        value = manifests.unseal(self.path / _VAULT_FILE)
        manifests.check_format(value, self.path / _VAULT_FILE)
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
        problems: list[str] = []
        if id is not None and not (self.path / "backups" / id).is_dir():
            raise NotFoundError(f"there is no backup {id} in {self.path}")
        try:
            self._check_owner()
        except DamagedError as error:
            problems.append(error.what)
        packs: set[str] = set()
        objects: set[str] = set()
        for folder in self._set_folders():
            if id is not None and folder.name != id:
                continue
            try:
                backup = manifests.read_manifest(folder)
            except DamagedError as error:
                problems.append(error.what)
                continue
            problems += self._verify_folder(folder, backup)
            if any(problem.startswith(f"{folder.name}/files.") for problem in problems):
                packs.update(backup.packs)
                continue
            problems += self._verify_references(folder, backup, packs, objects)
            check()
        return problems + self._verify_contents(packs, objects, progress, check)

    def _verify_folder(self, folder: Path, backup: Backup) -> list[str]:
        problems = manifests.wrong_files(folder, backup)
        expected = "".join(f"{facts['sha256']}  {name}\n" for name, facts in sorted(backup.files.items()))
        try:
            text = (folder / "SHA256SUMS").read_text()
        except (OSError, UnicodeDecodeError) as error:
            return [*problems, f"{folder.name}/SHA256SUMS cannot be read: {error}"]
        if text != expected:
            problems.append(f"{folder.name}/SHA256SUMS is damaged: it differs from the manifest")
        if folder.parent == self.path / "backups" and backup.id != folder.name:
            problems.append(f"{folder.name}/manifest.json belongs to {backup.id}")
        return problems

    def _verify_references(self, folder: Path, backup: Backup, packs: set[str], objects: set[str]) -> list[str]:
        """Return the problems of the listings: missing contents, and entries that a restore would refuse."""
        problems = []
        contents = Contents(self.path, backup.packs)
        problems += contents.problems
        packs.update(backup.packs)
        for name in backup.datasets:
            listing = folder / f"files.{name}.jsonl.zst"
            if not listing.exists():
                continue
            try:
                for entry in inside(read_listing(listing)):
                    if entry.kind == "file" and not contents.in_pack(entry.sha256):
                        if not contents.object_path(entry.sha256).is_file():
                            problems.append(
                                f"{folder.name}: the content of {entry.path} ({entry.sha256[:12]}) is missing"
                            )
                        else:
                            objects.add(entry.sha256)
            except DamagedError as error:
                problems.append(f"{folder.name}/{listing.name} cannot be restored: {error.what}")
        contents.close()
        return problems

    def _verify_contents(
        self, packs: set[str], objects: set[str], progress: Progress, check: Callable[[], None]
    ) -> list[str]:
        """Return the contents whose bytes do not match their names, and record them for later backups."""
        problems = []
        wrong_packs: set[str] = set()
        wrong_objects: set[str] = set()
        done, total = 0, len(packs) + len(objects)
        for name in sorted(packs):
            wrong = Contents(self.path, []).wrong_in_pack(name)
            if wrong:
                wrong_packs.add(name)
            problems += wrong
            done += 1
            check()
            progress(done, total, "contents")
        for digest in sorted(objects):
            path = self.path / "objects" / digest[:2] / digest
            if manifests.file_digest(path) != digest:
                problems.append(f"objects/{digest[:2]}/{digest} is damaged: its digest does not match")
                wrong_objects.add(digest)
            done += 1
            check()
            progress(done, total, "contents")
        known = read_damage(self.path)
        found = Damage((known.packs - packs) | wrong_packs, (known.objects - objects) | wrong_objects)
        try:
            write_damage(self.path, found)
        except OSError as error:
            problems.append(f"the damage cannot be recorded, so later backups may rely on damaged contents: {error}")
        return problems

    def open_set(self, id: str) -> OpenSet:
        folder = self.path / "backups" / id
        if not folder.is_dir():
            raise NotFoundError(
                f"there is no backup {id} in {self.path}", next_step="Run `holdfast backup list` to see them."
            )
        return self._open(folder)

    def open_run(self, run: str) -> OpenSet:
        return self._open(self._finished(run))

    def _finished(self, run: str) -> Path:
        folder = self.path / "tmp" / run / "set"
        if not folder.is_dir():
            raise NotFoundError(f"the unfinished backup {run} is not in the vault {self.path}")
        return folder

    def _open(self, folder: Path) -> OpenSet:
        self._check_owner()
        backup = manifests.read_manifest(folder)
        problems = self._verify_folder(folder, backup)
        contents = Contents(self.path, backup.packs)
        problems += contents.problems
        if problems:
            raise DamagedError(
                f"backup {backup.id} is damaged: {'; '.join(problems[:3])}",
                state="Nothing was changed.",
                next_step="Choose another backup. `holdfast backup verify` lists all damage.",
            )
        return backup, lambda name: read_listing(folder / f"files.{name}.jsonl.zst"), contents.fetch, folder

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

    def prune(self, remove: Sequence[str], run: str) -> Mapping[str, int]:
        self._check_owner()
        self._hold(fcntl.LOCK_EX)
        try:
            return self._prune(remove, run)
        finally:
            if self._runs:
                self._hold(fcntl.LOCK_SH)
            self._release()

    def _prune(self, remove: Sequence[str], run: str) -> Mapping[str, int]:
        broken = self.damaged()
        if broken:
            raise DamagedError(
                f"Pruning is refused while a backup is damaged: {', '.join(broken)}",
                state="Nothing was removed.",
                next_step="Run `holdfast backup verify` to see the damage, then move the damaged folder out of the"
                " vault.",
            )
        pinned = [id for id in remove if self.pins(id)]
        if pinned:
            raise RefusedError(f"pinned backups are not removed: {', '.join(pinned)}")
        for present in self._set_folders():
            problems = manifests.wrong_files(present, manifests.read_manifest(present))
            if problems:
                raise DamagedError(
                    f"Pruning is refused while a backup is damaged: {problems[0]}",
                    state="Nothing was removed.",
                    next_step="Run `holdfast backup verify` to see the damage, then move the damaged folder out of the"
                    " vault.",
                )
        folder = self.path / "tmp" / run
        durable.make_directory(folder)
        removed = 0
        for id in remove:
            source = self.path / "backups" / id
            if source.is_dir():
                durable.rename(source, folder / id)
                removed += 1
        swept, size = self._sweep()
        for left in (self.path / "tmp").iterdir():  # including those of abandoned operations
            durable.remove_tree(left)
        return {"removed": removed, "swept": swept, "size_bytes": size}

    def remove(self, id: str) -> None:
        self._check_owner()
        folder, work = self.path / "backups" / id, self.path / "tmp" / f"removed.{id}"
        if folder.is_dir():
            durable.rename(folder, work)
        durable.remove_tree(work)

    def _sweep(self) -> tuple[int, int]:
        """Remove packs and objects that no published backup references; the caller has checked all backups."""
        packs: set[str] = set()
        objects: set[str] = set()
        for folder in self._set_folders():
            backup = manifests.read_manifest(folder)
            packs.update(backup.packs)
            for name in backup.datasets:
                listing = folder / f"files.{name}.jsonl.zst"
                if listing.exists():
                    objects.update(read_digests(listing))
        dead = [path for path in (self.path / "packs").iterdir() if path.stem not in packs]
        dead += [path for path in (self.path / "objects").glob("??/*") if path.name not in objects]
        size = 0
        for path in dead:
            size += path.stat().st_size
            os.unlink(path)
        return len(dead), size
