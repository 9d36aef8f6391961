"""The verification of a local vault: every byte of the backups' own files and of the contents that they name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast.drivers.entries import inside
from holdfast.drivers.protocols.vaults import Progress
from holdfast.drivers.vaults.local import manifest as manifests
from holdfast.drivers.vaults.local.damage import Damage, read_damage, write_damage
from holdfast.drivers.vaults.local.listing import read_listing
from holdfast.drivers.vaults.local.reader import Contents
from holdfast.errors import DamagedError
from holdfast.model import Backup


class Verification:
    """One verification; `problems` collects what is found."""

    def __init__(self, vault: Path, progress: Progress, check: Callable[[], None]) -> None:
        self._vault = vault
        self._progress = progress
        self._check = check
        self._packs: set[str] = set()
        self._objects: set[str] = set()
        self.problems: list[str] = []

    def run(self, folders: Sequence[Path]) -> list[str]:
        """Verify backups, then each content that one of them names; return the problems."""
        for folder in folders:
            try:
                backup = manifests.read_manifest(folder)
            except DamagedError as error:
                self.problems.append(error.what)
                continue
            self.problems += manifests.problems_of(folder, backup)
            if any(problem.startswith(f"{folder.name}/files.") for problem in self.problems):
                self._packs.update(backup.packs)
                continue
            self._verify_references(folder, backup)
            self._check()
        self._verify_contents()
        return self.problems

    def _verify_references(self, folder: Path, backup: Backup) -> None:
        """Find problems of the listings: missing contents, and entries that a restore would refuse."""
        contents = Contents(self._vault, backup.packs)
        self.problems += contents.problems
        self._packs.update(backup.packs)
        for name in backup.datasets:
            listing = folder / f"files.{name}.jsonl.zst"
            if not listing.exists():
                continue
            try:
                for entry in inside(read_listing(listing)):
                    if entry.kind == "file" and not contents.in_pack(entry.sha256):
                        if not contents.object_path(entry.sha256).is_file():
                            self.problems.append(
                                f"{folder.name}: the content of {entry.path} ({entry.sha256[:12]}) is missing"
                            )
                        else:
                            self._objects.add(entry.sha256)
            except DamagedError as error:
                self.problems.append(f"{folder.name}/{listing.name} cannot be restored: {error.what}")
        contents.close()

    def _verify_contents(self) -> None:
        """Find contents whose bytes do not match their names, and record them for later backups."""
        wrong_packs: set[str] = set()
        wrong_objects: set[str] = set()
        done, total = 0, len(self._packs) + len(self._objects)
        for name in sorted(self._packs):
            wrong = Contents(self._vault, []).wrong_in_pack(name)
            if wrong:
                wrong_packs.add(name)
            self.problems += wrong
            done += 1
            self._check()
            self._progress(done, total, "contents")
        for digest in sorted(self._objects):
            path = self._vault / "objects" / digest[:2] / digest
            if manifests.file_digest(path) != digest:
                self.problems.append(f"objects/{digest[:2]}/{digest} is damaged: its digest does not match")
                wrong_objects.add(digest)
            done += 1
            self._check()
            self._progress(done, total, "contents")
        known = read_damage(self._vault)
        found = Damage((known.packs - self._packs) | wrong_packs, (known.objects - self._objects) | wrong_objects)
        try:
            write_damage(self._vault, found)
        except OSError as error:
            self.problems.append(
                f"the damage cannot be recorded, so later backups may rely on damaged contents: {error}"
            )
