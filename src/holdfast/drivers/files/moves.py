"""Renames that make a tree equal to a listing, and that can be undone.

Everything new is staged first; then a full list of moves is made durable; then the moves are carried out. Each move
looks at the present state before it acts, so a list can be applied or reverted again after a kill at any point. The
tree may belong to another account, which changes it meanwhile: it is accessed only by descriptors. The staged files are
in a folder of the tree that only Holdfast can enter, and are accessed by a path through that folder's descriptor.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import msgspec

from holdfast.drivers.entries import Selection, inside, order_of
from holdfast.drivers.files.staging import (
    Makers,
    Metadata,
    make_file,
    metadata_beneath,
    set_metadata,
    set_metadata_beneath,
    wanted_metadata,
    xattrs_beneath,
)
from holdfast.drivers.protocols.files import Fetch
from holdfast.errors import RefusedError, StepError
from holdfast.model import Entry
from holdfast.system import durable
from holdfast.system.confined import Beneath
from holdfast.system.host import Host

Digest = Callable[[Entry], str]


class EntryMove(TypedDict):
    """A rename out of the tree, or into it; `n` is the entry's name in Holdfast's folder.

    With `free`, nothing may be at the path by now: the application goes on, and nobody would keep what it put there.
    """

    do: Literal["aside", "place"]
    path: str
    n: int
    free: NotRequired[bool]


class MetadataMove(TypedDict):
    do: Literal["metadata"]
    path: str
    old: Metadata
    new: Metadata
    symlink: bool


Move = EntryMove | MetadataMove

LIST = "moves.jsonl"
_NEW_LIST = "moves.new"
_PLACE = "place"


def same_content(live: Entry, wanted: Entry, digest: Digest) -> bool:
    """Return whether the content is exactly the same.

    That is so with equal inode and ctime, which cannot be set freely, or with the digest of what is read now.
    """
    if live.kind != wanted.kind:
        return False
    if live.kind == "symlink":
        return live.raw_target() == wanted.raw_target()
    if live.kind != "file":
        return True
    if live.size != wanted.size:
        return False
    if live.inode == wanted.inode and live.ctime_ns == wanted.ctime_ns and live.mtime_ns == wanted.mtime_ns:
        return True
    return digest(live) == wanted.sha256


def same_metadata(live: Entry, wanted: Entry) -> bool:
    if (live.mode, live.uid, live.gid) != (wanted.mode, wanted.uid, wanted.gid) and live.kind != "symlink":
        return False
    return live.mtime_ns == wanted.mtime_ns


class Stager:
    """A stager that works out the moves for one tree and stages missing entries."""

    def __init__(
        self,
        tree: Beneath,
        folder: Path,
        record: Path,
        fetch: Fetch,
        digest: Digest,
        check: Callable[[], None],
        keeps: Callable[[bytes], bool],
        host: Host | None,
        within: Selection | None = None,
    ) -> None:
        """Put the staged files into `folder`, the list into `record`.

        `keeps` returns whether a directory contains entries outside of the dataset, which must stay; with a host, a
        second process may help. `within`: only what the listing names there is replaced, and everything else stays.
        """
        self._within = within
        self._makers = Makers(fetch, host)
        self._keeps = keeps
        self._tree = tree
        self._folder = folder
        self._record = record
        self._fetch = fetch
        self._digest = digest
        self._check = check
        self._list = open(record / _NEW_LIST, "w", encoding="ascii")
        self._moves = 0
        self._touched: set[bytes] = set()
        self._staged_root: tuple[bytes, bytes] | None = None  # path below the root, path in the stage
        self._directories: list[tuple[bytes, Entry]] = []  # staged
        self._groups: dict[str, _Place] = {}  # wanted group of hard links -> a file that belongs to it already
        self._group_of_live: dict[str, str] = {}  # live group -> the wanted group for which it is used
        self._number = 0

    def run(self, live: Iterable[Entry], wanted: Iterable[Entry]) -> int:
        """Merge both listings, which come in the same order; return the number of moves, made durable."""
        with self._list, self._makers:
            self._plan(live, wanted)
            self._makers.finish()
            # Directories get their metadata once nothing more is put into them, lower ones before upper ones.
            for target, entry in reversed(self._directories):
                set_metadata(target, wanted_metadata(entry))
        durable.sync_filesystem(self._folder)
        durable.write_file(self._record / _PLACE, identity(self._folder) or "")
        durable.sync_file(self._record / _NEW_LIST)
        durable.rename(self._record / _NEW_LIST, self._record / LIST)
        return self._moves

    def _plan(self, live: Iterable[Entry], wanted: Iterable[Entry]) -> None:
        live_entries, wanted_entries = iter(live), inside(wanted)
        here, there = next(live_entries, None), next(wanted_entries, None)
        skip: bytes | None = None  # everything below a directory that is moved away as a whole
        live_directories: dict[bytes, Entry] = {}
        while here is not None or there is not None:
            self._check()
            here_path = here.raw_path() if here is not None else None
            there_path = there.raw_path() if there is not None else None
            if here is not None and here_path is not None and skip is not None and here_path.startswith(skip):
                here = next(live_entries, None)
                continue
            here_first = there_path is None or (here_path is not None and order_of(here_path) < order_of(there_path))
            if here is not None and here_path is not None and here_first:
                if here.kind == "directory" and (self._within is not None or self._keeps(here_path)):
                    live_directories[here_path] = here
                elif self._within is None:
                    self._aside(here_path)
                    skip = here_path + b"/" if here.kind == "directory" else skip
                here = next(live_entries, None)
            elif here is not None and here_path == there_path and here_path is not None and there is not None:
                if self._within is not None and self._within.is_above(here_path):
                    if here.kind != "directory":
                        raise not_a_directory(here)
                    live_directories[here_path] = here
                    here, there = next(live_entries, None), next(wanted_entries, None)
                    continue
                if here.kind == "directory":
                    live_directories[here_path] = there
                if self._compare(here, there, here_path) and here.kind == "directory":
                    skip = here_path + b"/"
                here, there = next(live_entries, None), next(wanted_entries, None)
            elif there is not None and there_path is not None:
                self._create(there, there_path)
                there = next(wanted_entries, None)
        for parent in sorted(self._touched, key=order_of, reverse=True):
            entry = live_directories.get(parent)
            if entry is not None:
                self._note_metadata(parent, wanted_metadata(entry))

    def _note(self, move: Move) -> None:
        self._list.write(json.dumps(move) + "\n")
        self._moves += 1

    def _compare(self, live: Entry, wanted: Entry, path: bytes) -> bool:
        """Plan the moves that make one live entry equal to the wanted one; return whether it is replaced."""
        if self._same_links(live, wanted) and same_content(live, wanted, self._digest):
            if not same_metadata(live, wanted) or xattrs_beneath(self._tree, path) != wanted.xattrs:
                self._note_metadata(path, wanted_metadata(wanted))
            if wanted.hardlink and wanted.kind == "file":
                self._groups.setdefault(wanted.hardlink, _Place(path, in_tree=True))
                self._group_of_live[live.hardlink] = wanted.hardlink
            return False
        if live.kind == "directory" and self._keeps(path):
            raise StepError(
                f"{_text(path)} should become a {wanted.kind}, but contains entries that are not part of the dataset"
            )
        self._aside(path)
        self._create(wanted, path)
        return True

    def _same_links(self, live: Entry, wanted: Entry) -> bool:
        """Return whether a name may stay: its live group is used for its wanted group, and for no other."""
        if wanted.kind != "file" or not (live.hardlink or wanted.hardlink):
            return True
        if not (live.hardlink and wanted.hardlink):
            return False
        serves = self._group_of_live.get(live.hardlink)
        return serves == wanted.hardlink or (serves is None and wanted.hardlink not in self._groups)

    def _note_metadata(self, path: bytes, wanted: Metadata) -> None:
        found = metadata_beneath(self._tree, path)
        if found is not None:
            old, symlink = found
            self._note({"do": "metadata", "path": _text(path), "old": old, "new": wanted, "symlink": symlink})

    def _aside(self, path: bytes) -> None:
        self._number += 1
        self._note({"do": "aside", "path": _text(path), "n": self._number})
        self._touched.add(path.rpartition(b"/")[0])

    def _create(self, entry: Entry, path: bytes) -> None:
        """Stage an entry; below a directory that is staged already, it becomes part of that one move."""
        if self._staged_root is not None and path.startswith(self._staged_root[0] + b"/"):
            target = self._staged_root[1] + path[len(self._staged_root[0]) :]
        else:
            self._number += 1
            target = os.fsencode(self._folder / "stage" / str(self._number))
            move: EntryMove = {"do": "place", "path": _text(path), "n": self._number}
            if self._within is not None:
                move["free"] = True
            self._note(move)
            self._touched.add(path.rpartition(b"/")[0])
            if entry.kind == "directory":
                self._staged_root = (path, target)
        self._make(entry, path, target)

    def _make(self, entry: Entry, path: bytes, target: bytes) -> None:
        if entry.kind == "directory":
            os.mkdir(target, 0o700)
            self._directories.append((target, entry))
            return
        if entry.kind == "symlink":
            os.symlink(entry.raw_target(), target)
        elif entry.kind == "fifo":
            os.mkfifo(target, 0o600)
        elif entry.hardlink and entry.hardlink in self._groups:
            self._link(self._groups[entry.hardlink], target)
            return
        else:
            if entry.hardlink:
                make_file(self._fetch, entry, target)
                self._groups[entry.hardlink] = _Place(target, in_tree=False)
            else:
                self._makers.make(entry, target)
            return
        set_metadata(target, wanted_metadata(entry), symlink=entry.kind == "symlink")

    def _link(self, place: _Place, target: bytes) -> None:
        if place.in_tree:
            folder, name = self._tree.parent(place.path)
            os.link(name, target, src_dir_fd=folder, follow_symlinks=False)
        else:
            os.link(place.path, target)


def not_a_directory(entry: Entry) -> RefusedError:
    """Return the error of a way to a chosen path that is not a directory any more: it was not chosen itself."""
    return RefusedError(
        f"{entry.path} is a directory in the backup, and a {entry.kind} now",
        next_step="Restore that path instead, or move away what is there.",
    )


class _Place(msgspec.Struct, frozen=True):
    """The location of a file: below the tree's root, or staged."""

    path: bytes
    in_tree: bool


def identity(folder: Path) -> str | None:
    """Return the inode of a folder, which a rename keeps; None where there is no such folder."""
    try:
        return str(folder.stat().st_ino)
    except FileNotFoundError:
        return None


def place_recorded(record: Path) -> str | None:
    """Return the identity of the folder in which the moves of a list were staged."""
    try:
        return (record / _PLACE).read_text()
    except FileNotFoundError:
        return None


def _text(path: bytes) -> str:
    return path.decode(errors="surrogateescape")


def read_moves(folder: Path) -> Iterator[Move]:
    with open(folder / LIST) as lines:
        for line in lines:
            yield json.loads(line)


def _read_moves_backwards(folder: Path) -> Iterator[Move]:
    """Yield the moves from the last to the first, without all of them in memory."""
    starts = array("Q")
    with open(folder / LIST, "rb") as lines:
        position = 0
        for line in lines:
            starts.append(position)
            position += len(line)
        for start in reversed(starts):
            lines.seek(start)
            yield json.loads(lines.readline())


def _path(move: Move) -> bytes:
    return move["path"].encode(errors="surrogateescape")


def _places(folder: Path, move: EntryMove) -> tuple[bytes, bytes]:
    """Return where an entry is once it was moved out of the tree, and where it is before it is moved in."""
    number = str(move["n"])
    return os.fsencode(folder / "aside" / number), os.fsencode(folder / "stage" / number)


def _take_out(tree: Beneath, path: bytes, target: bytes) -> None:
    """Move an entry out of the tree into Holdfast's folder; do nothing where it is missing."""
    folder, name = tree.parent(path)
    with contextlib.suppress(FileNotFoundError):
        _renamed(folder, lambda: durable.move(name, target, src_dir_fd=folder), tree, path)
    tree.forget(path)


def _put_in(tree: Beneath, source: bytes, path: bytes) -> None:
    """Move an entry from Holdfast's folder to its path in the tree."""
    folder, name = tree.parent(path)
    _renamed(folder, lambda: durable.move(source, name, dst_dir_fd=folder), tree, source)
    tree.forget(path)


def _renamed(folder: int, rename: Callable[[], None], tree: Beneath, moved: bytes) -> None:
    """Rename; permissions and flags that forbid it, to the owner or to everyone, are lifted for that moment."""
    try:
        rename()
        return
    except PermissionError:
        pass
    with contextlib.ExitStack() as held:
        held.enter_context(durable.changeable(folder))
        if moved.startswith(b"/"):
            node = os.open(moved, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            held.callback(os.close, node)
        else:
            node = held.enter_context(tree.node(moved))
        held.enter_context(durable.changeable(node))
        for each in (folder, node):
            status = os.fstat(each)
            if stat.S_ISDIR(status.st_mode) and status.st_mode & 0o300 != 0o300 and status.st_uid == os.geteuid():
                os.chmod(f"/proc/self/fd/{each}", status.st_mode & 0o7777 | 0o300)
                held.callback(os.chmod, f"/proc/self/fd/{each}", status.st_mode & 0o7777)
        rename()


def apply_moves(tree: Beneath, folder: Path, record: Path) -> None:
    """Carry out the list; skip moves that are done already."""
    for move in read_moves(record):
        path = _path(move)
        if move["do"] == "metadata":
            set_metadata_beneath(tree, path, move["new"], symlink=move["symlink"])
            continue
        aside, stage = _places(folder, move)
        if move["do"] == "place":
            if os.path.lexists(stage):
                if move.get("free") and tree.status(path) is not None:
                    raise StepError(
                        f"{move['path']} came into being meanwhile, and would be overwritten",
                        next_step="Run the command again.",
                    )
                _put_in(tree, stage, path)
        elif not os.path.lexists(aside) and tree.status(path) is not None:
            _take_out(tree, path, aside)
    durable.barrier([folder])


def revert_moves(tree: Beneath, folder: Path, record: Path) -> None:
    """Undo the list, last move first; skip moves that were never done."""
    for move in _read_moves_backwards(record):
        if move["do"] == "metadata":
            continue
        path = _path(move)
        aside, stage = _places(folder, move)
        if move["do"] == "place":
            if not os.path.lexists(stage) and tree.status(path) is not None:
                _take_out(tree, path, stage)
        elif os.path.lexists(aside):
            _put_in(tree, aside, path)
    # Directory times change with every move inside, so all metadata is restored last.
    for move in _read_moves_backwards(record):
        if move["do"] == "metadata":
            set_metadata_beneath(tree, _path(move), move["old"], symlink=move["symlink"])
    durable.barrier([folder])
