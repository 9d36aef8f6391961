"""Patches of a tree, applied by `git apply`.

Facts (git-apply(1), measured with git 2.39): without `--reject` nothing is written unless all hunks of all files apply;
a path that is absolute, has `..` or leads through a link is refused; context must match exactly. In a work tree of git,
paths outside the current folder are silently skipped, so git must not find a repository above the tree. Settings of
the user could change what matches, so they are not read.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from holdfast.drivers.packages import patch_files, tarballs
from holdfast.errors import DamagedError, RefusedError, StepError
from holdfast.model.packages import AppliedPatch, Patch, PatchFit
from holdfast.system import durable
from holdfast.system.host import Host

FOLDER = ".holdfast-patches"
"""The folder in a patched release that keeps its patches; only Holdfast's account may read it."""
RECORD = "record.json"
_SECONDS = 120
_OWN = (".git", ".holdfast")
_CONFIGURATION = "holdfast.toml"
_PREFIXES = ("a/", "b/", "c/", "i/", "o/", "w/")
"""What git puts before paths (diff.mnemonicPrefix in git-config(1))."""
_DAY = 86400
_GIT_HEADER = re.compile(rb"^diff --git .", re.MULTILINE)
_PREFIXED_HEADER = re.compile(rb'^diff --git "?[abciow]/', re.MULTILINE)
_FORMER = re.compile(rb"^(?:rename|copy) from (.+)$", re.MULTILINE)


class PatchRecord(msgspec.Struct, frozen=True):
    """What a patched tree knows: its patches in their order, and of each patched file the time and mode before."""

    patches: tuple[AppliedPatch, ...] = ()
    before: dict[str, tuple[int, int]] = {}


def read_record(tree: Path) -> PatchRecord:
    """Return the record of a tree; an empty one if it was never patched. Raise DamagedError."""
    path = tree / FOLDER / RECORD
    try:
        return msgspec.json.decode(path.read_bytes(), type=PatchRecord)
    except FileNotFoundError:
        return PatchRecord()
    except msgspec.DecodeError as error:
        raise DamagedError(f"{path} is damaged: {error}") from error


def text_of(tree: Path, patch: AppliedPatch) -> bytes:
    """Return the text of an applied patch. Raise DamagedError where it is not the one that was applied."""
    path = tree / FOLDER / f"{patch.id}.patch"
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(text).hexdigest() != patch.id:
        raise DamagedError(f"{path} is damaged: its digest does not match")
    return text


def _former_names(name: str, text: bytes, strip: int) -> list[str]:
    """Return the names from which a patch renames or copies. Raise RefusedError for one that git had to quote."""
    found = []
    for raw in _FORMER.findall(text):
        if raw.startswith(b'"'):
            raise RefusedError(f"{name} renames a file whose name has special characters, which is not supported")
        path = raw.decode(errors="surrogateescape")
        found.append("/".join(path.split("/")[max(0, strip - 1) :]))  # such lines have no prefix
    return found


class Patcher:
    """Applies patches to one tree of files."""

    def __init__(self, host: Host, tree: Path) -> None:
        self._host = host
        self._tree = tree

    def parse(self, name: str, text: bytes, strip: int | None) -> Patch:
        """Return a patch with its paths; `strip` None: 1 if all paths begin as git writes them, else 0.

        Raise RefusedError for what is not a patch, and for paths that no patch may have.
        """
        if strip is None:
            strip = self._usual_level(name, text)
        if _GIT_HEADER.search(text) is None:
            absolute = [path for path in self._names(name, text, 0) if path.startswith("/")]
            if absolute:
                raise RefusedError(f"{name} changes {absolute[0]!r}, which is not a file of the application")
        paths = (*self._names(name, text, strip), *_former_names(name, text, strip))
        for path in paths:
            parts = path.split("/")
            if ".." in parts or path.startswith("/") or any(part.startswith(_OWN) for part in parts):
                raise RefusedError(f"{name} changes {path!r}, which is not a file of the application")
            if path == _CONFIGURATION:
                raise RefusedError(
                    f"{name} changes {_CONFIGURATION}, which a patch may not do",
                    next_step="Commit that change to the repository, and build a package of it.",
                )
        return Patch(hashlib.sha256(text).hexdigest(), name, text, strip, paths)

    def _usual_level(self, name: str, text: bytes) -> int:
        if _GIT_HEADER.search(text) is not None:
            return 1 if len(_GIT_HEADER.findall(text)) == len(_PREFIXED_HEADER.findall(text)) else 0
        return 1 if all(path.startswith(_PREFIXES) for path in self._names(name, text, 0)) else 0

    def _names(self, name: str, text: bytes, strip: int) -> tuple[str, ...]:
        """Return the paths in a patch. Raise RefusedError for what is not a patch."""
        with tempfile.TemporaryFile() as listed:
            code, why = self._git(text, "--numstat", "-z", f"-p{strip}", output=listed)
            if code != 0:
                raise RefusedError(f"{name} is not a valid patch: {why}")
            listed.seek(0)
            fields = listed.read().decode(errors="surrogateescape").split("\0")
        paths = [field.rpartition("\t")[2] for field in fields if field]
        return tuple(dict.fromkeys(path for path in paths if path))

    def why_not(self, patch: Patch, *, reverse: bool = False) -> str:
        """Return why a patch does not apply; empty if it does. Nothing is written."""
        code, why = self._git(patch.text, "--check", f"-p{patch.strip}", *["--reverse"] * reverse)
        return why if code else ""

    def contains(self, patch: Patch) -> bool:
        """Return whether the tree has all changes of a patch already."""
        return not self.why_not(patch, reverse=True)

    def apply(self, patch: Patch, *, reverse: bool = False) -> None:
        """Apply a patch, or take it back: all hunks of all files, or nothing. Raise RefusedError."""
        folders = {path: (self._tree / path).parent.is_dir() for path in patch.paths}
        code, why = self._git(patch.text, f"-p{patch.strip}", *["--reverse"] * reverse)
        if code != 0:
            what = "cannot be taken back" if reverse else "does not apply"
            raise RefusedError(f"patch {patch.name} {what}: {why}")
        for path, had_folder in folders.items():
            above = (self._tree / path).parent
            while not had_folder and above != self._tree and above.is_dir():
                os.chmod(above, 0o755)
                above = above.parent

    def _git(self, text: bytes, *options: str, output: IO[bytes] | None = None) -> tuple[int, str]:
        """Run `git apply` on a patch; return its exit code and its errors on one line."""
        if (self._tree / ".git").exists():
            raise RefusedError(f"{self._tree} has a .git of its own, so it cannot be patched")
        with tempfile.TemporaryFile() as given:
            given.write(text)
            given.seek(0)
            done = self._host.run(
                ["git", "apply", "--whitespace=nowarn", *options],
                cwd=self._tree,
                environment={
                    "GIT_CEILING_DIRECTORIES": str(self._tree.parent),
                    "GIT_CONFIG_GLOBAL": "/dev/null",
                    "GIT_CONFIG_NOSYSTEM": "1",
                    "LC_ALL": "C",
                },
                stdin=given,
                output=output,
                check=False,
                timeout_seconds=_SECONDS,
            )
        why = "; ".join(line.removeprefix("error: ") for line in done.output_tail.splitlines() if line.strip())
        return done.exit_code, why


def fit(host: Host, name: str, text: bytes, strip: int | None, tree_with: Callable[[Sequence[str]], Path]) -> PatchFit:
    """Return how a patch fits; `tree_with` returns a tree with some files. Raise RefusedError for what is no patch."""
    patch = Patcher(host, tree_with(())).parse(name, text, strip)
    patcher = Patcher(host, tree_with(patch.paths))
    why = patcher.why_not(patch)
    return PatchFit(patch, contained=bool(why) and patcher.contains(patch), why_not=why)


def change(
    host: Host, tree: Path, committed_at: int, add: Sequence[Patch], remove: Sequence[str], applied_at: str
) -> tuple[AppliedPatch, ...]:
    """Take patches back, the last one first, and apply others; return all that the tree has then.

    Raise RefusedError where one does not apply: the tree is not to be used then.
    """
    patcher = Patcher(host, tree)
    record = read_record(tree)
    patches, before = list(record.patches), dict(record.before)
    for one in reversed(record.patches):
        if one.id in remove:
            patcher.apply(Patch(one.id, one.name, text_of(tree, one), one.strip, one.paths), reverse=True)
            patches.remove(one)
            durable.unlink(tree / FOLDER / f"{one.id}.patch")
    for patch in add:
        for path in patch.paths:
            if path not in before and (found := _looked_at(tree / path)) is not None:
                before[path] = found
        patcher.apply(patch)
        patches.append(AppliedPatch(patch.id, patch.name, patch.strip, applied_at, patch.paths))
        (tree / FOLDER).mkdir(mode=0o700, exist_ok=True)
        (tree / FOLDER / f"{patch.id}.patch").write_bytes(patch.text)
    touched = {path for one in (*record.patches, *patches) for path in one.paths}
    for path in touched:
        _settle(tree / path, path, patches, before, committed_at)
    if patches:
        kept = {path: facts for path, facts in before.items() if any(path in one.paths for one in patches)}
        (tree / FOLDER / RECORD).write_bytes(
            msgspec.json.encode(PatchRecord(tuple(patches), dict(sorted(kept.items()))))
        )
        for own in (tree / FOLDER).iterdir():
            own.chmod(0o600)
            tarballs.set_time(own, committed_at)
    else:
        durable.remove_tree(tree / FOLDER)
    return tuple(patches)


def _looked_at(path: Path) -> tuple[int, int] | None:
    """Return the time and the mode of a file, None if it does not exist."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return int(status.st_mtime), stat.S_IMODE(status.st_mode)


def _settle(
    path: Path, name: str, patches: Sequence[AppliedPatch], before: Mapping[str, tuple[int, int]], committed_at: int
) -> None:
    """Give a patched file a time that depends on its patches alone, and an unpatched one those from before."""
    if not os.path.lexists(path) or path.is_dir():
        return
    ids = [one.id for one in patches if name in one.paths]
    if not path.is_symlink():
        executable = path.stat().st_mode & 0o100
        os.chmod(path, before[name][1] if not ids and name in before else 0o755 if executable else 0o644)
    at = before[name][0] if not ids and name in before else committed_at
    tarballs.set_time(path, patched_time(committed_at, ids) if ids else at)


def patched_time(committed_at: int, ids: Sequence[str]) -> int:
    """Return the time of a file with these patches: not that of the commit, and another one for other patches."""
    return committed_at + 2 + int(hashlib.sha256("".join(ids).encode()).hexdigest()[:8], 16) % _DAY


def apply_folder(host: Host, tree: Path, folder: str, committed_at: int) -> dict[str, int]:
    """Apply the `*.patch` files in a folder of a tree in the order of their names; return the times of changed files.

    One that the tree contains already is left out. Raise StepError that names the first that does not apply.
    """
    patcher = Patcher(host, tree)
    applied: dict[str, list[str]] = {}
    place = tree / folder
    for path in sorted(place.glob("*.patch")) if folder and place.is_dir() and not place.is_symlink() else ():
        name = f"{folder}/{path.name}"
        if path.is_symlink():
            raise StepError(f"{name} is a link, not a patch")
        try:
            found = fit(host, name, patch_files.read(path), None, lambda paths: tree)
            if found.contained:
                host.log({"kind": "output", "text": f"{name}: the tree contains it already\n"})
                continue
            patch = found.patch
            if found.why_not:
                raise RefusedError(f"{name} does not apply: {found.why_not}")
            patcher.apply(patch)
        except RefusedError as error:
            raise StepError(f"the build failed at its patch: {error.what}", next_step=error.next_step) from error
        for changed in patch.paths:
            applied.setdefault(changed, []).append(patch.id)
    return {path: patched_time(committed_at, ids) for path, ids in applied.items()}
