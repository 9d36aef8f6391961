"""Creation of files: content, owner, mode, extended attributes, times; for many files, also by a second process."""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import pickle
import stat
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TypedDict

from holdfast.drivers.files.tree import read_xattrs
from holdfast.drivers.protocols.files import Fetch
from holdfast.model import Entry
from holdfast.system import durable
from holdfast.system.confined import Beneath
from holdfast.system.host import Host
from holdfast.system.worker import Worker, WorkerDiedError

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_BATCH_FILES = 128
_WORKER_FILES = 512  # starting a second process costs about as much as making this many small files
_WORKER_BATCHES = 4


class Metadata(TypedDict):
    """Everything about a file but its kind, name and content, as lists of moves have it."""

    mode: str
    uid: int
    gid: int
    mtime_ns: int
    xattrs: dict[str, str]


def _metadata(status: os.stat_result, xattrs: dict[str, str]) -> Metadata:
    return {
        "mode": f"{status.st_mode & 0o7777:o}",
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mtime_ns": status.st_mtime_ns,
        "xattrs": xattrs,
    }


def metadata_beneath(tree: Beneath, path: bytes) -> tuple[Metadata, bool] | None:
    """Return the metadata at a path of a tree, and whether it is a symlink; None where there is nothing."""
    try:
        with tree.node(path) as node:
            status = os.fstat(node)
            symlink = stat.S_ISLNK(status.st_mode)
            return _metadata(status, {} if symlink else read_xattrs(_way_to(node), follow=True)), symlink
    except (FileNotFoundError, NotADirectoryError):
        return None


def xattrs_beneath(tree: Beneath, path: bytes) -> dict[str, str]:
    found = metadata_beneath(tree, path)
    return found[0]["xattrs"] if found is not None else {}


def set_metadata_beneath(tree: Beneath, path: bytes, wanted: Metadata, *, symlink: bool) -> None:
    """Set metadata at a path of a tree as `set_metadata` does; do nothing where the kind of file is another now."""
    try:
        with tree.node(path) as node:
            if stat.S_ISLNK(os.fstat(node).st_mode) != symlink:
                return
            if symlink:
                folder, name = tree.parent(path)
                with contextlib.suppress(PermissionError):
                    os.chown(name, wanted["uid"], wanted["gid"], dir_fd=folder, follow_symlinks=False)
                os.utime(name, ns=(wanted["mtime_ns"],) * 2, dir_fd=folder, follow_symlinks=False)
                return
            try:
                _set_by_way(node, wanted)
            except PermissionError:
                with durable.changeable(node) as was_locked:
                    if not was_locked:
                        raise
                    _set_by_way(node, wanted)
    except (FileNotFoundError, NotADirectoryError):
        pass


def _way_to(node: int) -> bytes:
    """Return a path whose last step leads to an open file itself, which is not a symlink."""
    return b"/proc/self/fd/%d" % node


def _set_by_way(node: int, wanted: Metadata) -> None:
    way = _way_to(node)
    with contextlib.suppress(PermissionError):  # only root may change owners; the manifest has the owner
        os.chown(way, wanted["uid"], wanted["gid"])
    os.chmod(way, int(wanted["mode"], 8))
    _set_xattrs(way, wanted["xattrs"], follow=True)
    os.utime(way, ns=(wanted["mtime_ns"],) * 2)


def wanted_metadata(entry: Entry) -> Metadata:
    return {
        "mode": entry.mode,
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime_ns": entry.mtime_ns,
        "xattrs": entry.xattrs,
    }


def set_metadata(path: bytes, wanted: Metadata, *, symlink: bool = False) -> None:
    """Set owner (where permitted), mode, extended attributes and time, in an order in which none resets another."""
    try:
        os.chown(path, wanted["uid"], wanted["gid"], follow_symlinks=False)
    except PermissionError:
        pass  # only root may change owners; the manifest has the owner
    if not symlink:
        os.chmod(path, int(wanted["mode"], 8))
    _set_xattrs(path, wanted["xattrs"])
    os.utime(path, ns=(wanted["mtime_ns"], wanted["mtime_ns"]), follow_symlinks=False)


def set_metadata_of_new(descriptor: int, wanted: Entry) -> None:
    """Set the same on a new file, but only what differs: each call is a transaction of the filesystem."""
    status = os.fstat(descriptor)
    mode = int(wanted.mode, 8)
    if (status.st_uid, status.st_gid) != (wanted.uid, wanted.gid):
        try:
            os.fchown(descriptor, wanted.uid, wanted.gid)
        except PermissionError:
            pass  # only root may change owners; the manifest has the owner
    if status.st_mode & 0o7777 != mode or mode & 0o6000:  # a change of owner may have cleared the set-id bits
        os.fchmod(descriptor, mode)
    _set_xattrs(descriptor, wanted.xattrs)
    os.utime(descriptor, ns=(wanted.mtime_ns, wanted.mtime_ns))


def _set_xattrs(path: bytes | int, wanted: Mapping[str, str], *, follow: bool = False) -> None:
    present = read_xattrs(path, follow=follow)
    if present == wanted:
        return
    for name in present.keys() | wanted.keys():
        if present.get(name) != wanted.get(name):
            _set_xattr(path, name, wanted.get(name), follow=follow or isinstance(path, int))


def _set_xattr(path: bytes | int, name: str, value: str | None, *, follow: bool) -> None:
    try:
        if value is None:
            os.removexattr(path, name, follow_symlinks=follow)
        else:
            os.setxattr(path, name, base64.b64decode(value), follow_symlinks=follow)
    except OSError as error:
        # Some namespaces are only for root, and some filesystems have no attributes: the manifest has them.
        if error.errno not in (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP):
            raise


def make_file(fetch: Fetch, entry: Entry, target: bytes) -> None:
    """Make a new file with its content and metadata. Raise FileExistsError, DamagedError."""
    # Others cannot enter the stage, so a file may have its own mode from the start.
    descriptor = os.open(target, _CREATE, int(entry.mode, 8) & 0o777 | 0o200)
    try:
        fetch(entry, descriptor)
        set_metadata_of_new(descriptor, entry)
    finally:
        os.close(descriptor)


_Made = tuple[bytes, str, str, int, int, int, int, str, dict[str, str], list[tuple[int, int]]]
"""The path of a file to be made, and those fields of its entry that matter for that."""


def _order_of(batch: Sequence[tuple[Entry, bytes]]) -> list[_Made]:
    """Return the facts that another process needs to make the entries."""
    return [
        (
            target,
            entry.path,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime_ns,
            entry.size,
            entry.sha256,
            entry.xattrs,
            entry.sparse,
        )
        for entry, target in batch
    ]


class FileMaker:
    """The task of a second process, which makes files."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    def handle(self, order: list[_Made]) -> None:
        for target, path, mode, uid, gid, mtime_ns, size, sha256, xattrs, sparse in order:
            entry = Entry(path, "file", mode, uid, gid, mtime_ns, size, sha256=sha256, xattrs=xattrs, sparse=sparse)
            make_file(self._fetch, entry, target)

    def finish(self) -> None:
        pass


class Makers:
    """A maker of files in this process and, for many files and with a host, in a second one at the same time."""

    def __init__(self, fetch: Fetch, host: Host | None) -> None:
        self._fetch = fetch
        self._host = host if (os.cpu_count() or 1) > 1 else None
        self._is_shared: bool | None = None  # whether a second process can be given the contents, once it is known
        self._worker: Worker[list[_Made], None, None] | None = None
        self._batch: list[tuple[Entry, bytes]] = []
        self._given: deque[list[tuple[Entry, bytes]]] = deque()
        self._made = 0

    def __enter__(self) -> Makers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._worker is not None:
            self._worker.end()

    def make(self, entry: Entry, target: bytes) -> None:
        """Make a file now, or at the latest when `finish` is called."""
        self._batch.append((entry, target))
        if len(self._batch) >= _BATCH_FILES:
            self._send()

    def finish(self) -> None:
        """Wait until all files are made."""
        self._send()
        while self._given:
            self._take()

    def _send(self) -> None:
        batch, self._batch = self._batch, []
        while self._worker is not None and self._given and self._worker.has_answer():
            self._take()
        if self._worker is None and self._host is not None and self._made >= _WORKER_FILES and self._can_share():
            self._worker = Worker(self._host, FileMaker(self._fetch))
        if self._worker is not None and self._worker.waiting < _WORKER_BATCHES:
            self._worker.give(_order_of(batch))
            self._given.append(batch)
            return
        for entry, target in batch:
            make_file(self._fetch, entry, target)
        self._made += len(batch)

    def _can_share(self) -> bool:
        """Return whether a second process can read the contents, too: some vaults are readable only here."""
        if self._is_shared is None:
            try:
                pickle.dumps(self._fetch)
                self._is_shared = True
            except (pickle.PicklingError, TypeError, AttributeError):
                self._is_shared = False
        return self._is_shared

    def _take(self) -> None:
        assert self._worker is not None
        try:
            self._worker.take()
            self._given.popleft()
        except WorkerDiedError:  # an undo must not fail because its accelerator died; this process goes on alone
            self._worker.end()
            self._worker, self._host = None, None
            while self._given:
                for entry, target in self._given.popleft():
                    if os.path.lexists(target):
                        os.unlink(target)
                    make_file(self._fetch, entry, target)
