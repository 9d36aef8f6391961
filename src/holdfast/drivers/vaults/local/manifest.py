"""`manifest.json`, `SHA256SUMS` and `holdfast-vault.json`: records that are sealed, and sums."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

import msgspec

from holdfast.errors import DamagedError
from holdfast.model import Backup, StoredFile
from holdfast.system.sealed import check_format, sealed, unseal

FORMAT = 1
_LISTED = {field for field in Backup.__struct_fields__ if field not in ("pinned", "verified_at")}


def write_manifest(backup: Backup) -> bytes:
    value = {key: item for key, item in msgspec.to_builtins(backup).items() if key in _LISTED}
    return sealed({"format": FORMAT, **value})


def read_manifest(folder: Path) -> Backup:
    """Return the manifest in a backup's folder. Raise DamagedError, or RefusedError for a newer format."""
    value = unseal(folder / "manifest.json")
    check_format(value, folder / "manifest.json", FORMAT)
    value.pop("format")
    try:
        backup = msgspec.convert(value, Backup)
    except msgspec.ValidationError as error:
        raise DamagedError(f"{folder}/manifest.json is damaged: {error}") from error
    for name, depth in (*((name, 2) for name in backup.files), *((name, 1) for name in backup.packs)):
        parts = name.split("/")
        if len(parts) > depth or any(part in ("", ".", "..") for part in parts):
            raise DamagedError(f"{folder}/manifest.json names a file outside the backup: {name!r}")
    return backup


def file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(folder: Path) -> list[Path]:
    """Return the files of a backup's folder, including those of dumps that are folders."""
    return [path for path in (*folder.glob("*"), *folder.glob("*/*")) if path.is_file()]


def sums(folder: Path) -> tuple[bytes, dict[str, StoredFile]]:
    """Return the SHA256SUMS text for all files of a backup, and name -> size and digest for the manifest."""
    found: dict[str, StoredFile] = {}
    for path in sorted(files_of(folder)):
        name = str(path.relative_to(folder))
        if name not in ("SHA256SUMS", "manifest.json"):
            found[name] = {"size_bytes": path.stat().st_size, "sha256": file_digest(path)}
    text = "".join(f"{facts['sha256']}  {name}\n" for name, facts in found.items())
    return text.encode(), found


def wrong_files(folder: Path, backup: Backup, only: Collection[str] | None = None) -> list[str]:
    """Return the problems of the files in a backup's own folder, or only of some of them."""
    problems = []
    for name, facts in backup.files.items():
        if only is not None and name not in only:
            continue
        path = folder / name
        if not path.is_file():
            problems.append(f"{folder.name}/{name} is missing")
        elif path.stat().st_size != facts["size_bytes"] or file_digest(path) != facts["sha256"]:
            problems.append(f"{folder.name}/{name} is damaged: its digest does not match")
    return problems


def problems_of(folder: Path, backup: Backup) -> list[str]:
    """Return the problems of the files in a backup's own folder and of their sums."""
    problems = wrong_files(folder, backup)
    expected = "".join(f"{facts['sha256']}  {name}\n" for name, facts in sorted(backup.files.items()))
    try:
        text = (folder / "SHA256SUMS").read_text()
    except (OSError, UnicodeDecodeError) as error:
        return [*problems, f"{folder.name}/SHA256SUMS cannot be read: {error}"]
    if text != expected:
        problems.append(f"{folder.name}/SHA256SUMS is damaged: it differs from the manifest")
    if folder.parent.name == "backups" and backup.id != folder.name:
        problems.append(f"{folder.name}/manifest.json belongs to {backup.id}")
    return problems
