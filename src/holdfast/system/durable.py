"""The only module that makes files durable: write, sync, rename, barrier.

A name is durable once its file was fsynced and renamed and the directory fsynced (ext4 and xfs promise nothing else).
syncfs(2) covers everything on one filesystem and reports write-back errors since Linux 5.8.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from holdfast.errors import DamagedError
from holdfast.system import fault_points

_FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602  # ioctl_iflags(2)
_UNCHANGEABLE = 0x10 | 0x20  # immutable, append only
_RecordT = TypeVar("_RecordT")
_LIBC = ctypes.CDLL(None, use_errno=True)

# statfs(2) magic numbers of filesystems whose locks or fsync another host decides.
_NETWORK_FILESYSTEMS = {
    0x6969: "nfs",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x517B: "smb",
    0x00C36400: "ceph",
    0x5346414F: "afs",
    0x01021997: "9p",
    0x0BD00BD0: "lustre",
    0x47504653: "gpfs",
}


def sync_file(path: str | os.PathLike[str]) -> None:
    """Make a file's content durable. Raise OSError, even for an earlier failed write-back."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: str | os.PathLike[str], content: bytes | str, mode: int = 0o600) -> None:
    """Replace a file atomically and durably. Idempotent."""
    target = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = target.with_name(f".{target.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.fchmod(descriptor, mode)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    except BaseException:
        os.close(descriptor)
        os.unlink(temporary)
        raise
    os.close(descriptor)
    rename(temporary, target)


def replace_at(folder: int, name: str, content: bytes, mode: int, owner: tuple[int, int]) -> None:
    """Replace a file of an open folder atomically and durably, whatever another account puts there meanwhile."""
    temporary = f".{name}.{secrets.token_hex(8)}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
        move(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise
    finally:
        os.close(descriptor)


def read_json(path: Path, kind: type[_RecordT]) -> _RecordT:
    """Read a record of a type that Holdfast wrote. Raise FileNotFoundError, and DamagedError for any other content."""
    try:
        return msgspec.convert(json.loads(path.read_text()), kind)
    except (ValueError, msgspec.ValidationError) as error:
        raise DamagedError(
            f"{path} is damaged: {error}",
            state="Nothing was changed.",
            next_step="Check that disk. Restore the file from a copy of the state directory, or move it elsewhere:"
            " `holdfast status` then shows what is still known.",
        ) from error


def move(
    source: str | bytes | os.PathLike[str],
    target: str | bytes | os.PathLike[str],
    *,
    src_dir_fd: int | None = None,
    dst_dir_fd: int | None = None,
) -> None:
    """Rename a file on one mount, below open directories if any; the caller makes the directories durable."""
    os.rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
    fault_points.reach(f"rename to {os.path.basename(os.fsdecode(target))}")


def rename(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Rename a file on one mount and make both directories durable."""
    move(source, target)
    target_parent = os.path.dirname(os.fspath(target)) or "."
    source_parent = os.path.dirname(os.fspath(source)) or "."
    sync_directory(target_parent)
    if source_parent != target_parent:
        sync_directory(source_parent)


def make_directory(path: str | os.PathLike[str], mode: int = 0o700) -> None:
    """Create a directory and its missing parents durably; leave an existing one unchanged."""
    target = Path(path)
    missing = []
    while not target.is_dir():
        missing.append(target)
        target = target.parent
    for directory in reversed(missing):
        try:
            os.mkdir(directory, mode)
            os.chmod(
                directory, mode
            )  # regardless of the caller's umask, because services of other accounts pass through some of them
        except FileExistsError:
            continue
        sync_directory(directory.parent)


def unlink(path: str | os.PathLike[str]) -> None:
    """Remove a name durably; a missing one is fine."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    sync_directory(os.path.dirname(os.fspath(path)) or ".")


_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str | os.PathLike[str]) -> None:
    """Remove a directory and its contents, even those that its owner may not list or write; a missing one is fine.

    No link is followed, whatever other processes put there meanwhile. Depth is no limit: each directory below is moved
    to the top before it is emptied, so that two of them are open at a time and no path is longer than a name.
    """
    place, name = os.path.split(os.path.abspath(os.fsdecode(path)))
    try:
        parent = os.open(place, _FOLDER & ~os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        try:
            top = _open_folder(name, parent)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            _remove_name(os.unlink, name, parent)
        else:
            try:
                _empty(top)
            finally:
                os.close(top)
            _remove_name(os.rmdir, name, parent)
        os.fsync(parent)
    except OSError as error:
        error.filename = os.path.join(place, name, os.fsdecode(error.filename or ""))
        raise
    finally:
        os.close(parent)


def _empty(top: int) -> None:
    """Remove everything in an open directory."""
    lifted = f".removed-{secrets.token_hex(4)}-"
    number = 0
    while entries := _entries(top):
        for name, is_folder in entries:
            if not is_folder:
                _remove_name(os.unlink, name, top)
                continue
            inner = _open_folder(name, top)
            try:
                for child, is_inner_folder in _entries(inner):
                    if is_inner_folder:
                        number += 1
                        _lift(child, inner, f"{lifted}{number}", top)
                    else:
                        _remove_name(os.unlink, child, inner)
            finally:
                os.close(inner)
            _remove_name(os.rmdir, name, top)


def _entries(folder: int) -> list[tuple[str, bool]]:
    """Return the names in an open directory, and whether each is a directory itself."""
    with os.scandir(folder) as found:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]


def _open_folder(name: str, parent: int) -> int:
    """Open a directory in an open one, after giving its owner the right to list it if that is missing."""
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except PermissionError:
        _grant_owner(parent)
        descriptor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            _grant_owner(descriptor)
        finally:
            os.close(descriptor)
        return os.open(name, _FOLDER, dir_fd=parent)


def _lift(name: str, folder: int, target: str, top: int) -> None:
    """Rename a directory to another name at the top; its owner needs the right to write in it for that."""
    try:
        os.rename(name, target, src_dir_fd=folder, dst_dir_fd=top)
    except PermissionError:
        os.close(_open_folder(name, folder))
        descriptor = os.open(name, _FOLDER, dir_fd=folder)
        try:
            for each in (descriptor, folder, top):
                _grant_owner(each)
        finally:
            os.close(descriptor)
        os.rename(name, target, src_dir_fd=folder, dst_dir_fd=top)


def _remove_name(remove: Callable[..., None], name: str, folder: int) -> None:
    """Unlink or rmdir a name in an open directory, after giving its owner the right to write there if necessary."""
    try:
        remove(name, dir_fd=folder)
    except FileNotFoundError:  # another process removed it first
        return
    except PermissionError:
        if _grant_owner(folder):
            with contextlib.suppress(PermissionError):
                remove(name, dir_fd=folder)
                return
        _remove_marked(remove, name, folder)


def _remove_marked(remove: Callable[..., None], name: str, folder: int) -> None:
    """Remove an immutable file, or one in an immutable directory. Raise PermissionError."""
    with contextlib.ExitStack() as held:
        node = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        held.callback(os.close, node)
        for each in (folder, node):
            held.enter_context(changeable(each, back=each == folder))
        remove(name, dir_fd=folder)


def _grant_owner(folder: int) -> bool:
    """Give the owner of an open directory every right there, not changing others'; return whether one was missing."""
    status = os.fstat(folder)
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_IRWXU == stat.S_IRWXU or status.st_uid != os.geteuid():
        return False
    os.chmod(f"/proc/self/fd/{folder}", mode | stat.S_IRWXU)  # this call also accepts a descriptor opened with O_PATH
    return True


def point_link(link: str | os.PathLike[str], target: str) -> None:
    """Make `link` a symlink to `target`, atomically and durably, replacing an earlier link."""
    path = Path(link)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.link")
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.symlink(target, temporary)
    rename(temporary, path)


def sync_filesystem(path: str | os.PathLike[str]) -> None:
    """Sync the filesystem that holds `path` with syncfs(2). Raise OSError on a write-back error."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if _LIBC.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), os.fspath(path))
    finally:
        os.close(descriptor)


def barrier(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Make everything durable that was written so far on the filesystems of `paths`.

    A path that does not exist counts as its nearest existing parent. Raise OSError.
    """
    seen: set[int] = set()
    for path in paths:
        existing = Path(path)
        while not existing.exists():
            existing = existing.parent
        device = existing.stat().st_dev
        if device not in seen:
            seen.add(device)
            sync_filesystem(existing)


def clone(source: int, target: int) -> bool:
    """Make one open file share the blocks of another; return False if the filesystem cannot.

    Raise OSError without space.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return True
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        return False


def clone_or_copy(source: str | os.PathLike[str], target: str | os.PathLike[str], mode: int = 0o600) -> bool:
    """Copy one file's content, as a reflink where possible, without a sync; return True if it was cloned."""
    with open(source, "rb") as reader:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as writer:
            if clone(reader.fileno(), writer.fileno()):
                return True
            shutil.copyfileobj(reader, writer, 1 << 20)
    return False


def preallocate(path: str | os.PathLike[str], size_bytes: int) -> None:
    """Reserve disk blocks in a file, so that removing it frees that space."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        if os.fstat(descriptor).st_size < size_bytes:
            os.posix_fallocate(descriptor, 0, size_bytes)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(path: str | os.PathLike[str]) -> int:
    """Return the bytes free for this user on the filesystem of `path` or of its nearest existing parent."""
    existing = Path(path)
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


class _StatFs(ctypes.Structure):
    _fields_ = [("f_type", ctypes.c_long), ("rest", ctypes.c_byte * 256)]


def network_filesystem(path: str | os.PathLike[str]) -> str | None:
    """Return the name of the network filesystem that holds `path`, or None for a local one."""
    return _NETWORK_FILESYSTEMS.get(filesystem_type(path))


def filesystem_type(path: str | os.PathLike[str]) -> int:
    """Return the type number of the filesystem of a path or its nearest existing parent (statfs(2) f_type)."""
    existing = Path(path)
    while not existing.exists():
        existing = existing.parent
    answer = _StatFs()
    if _LIBC.statfs(os.fsencode(existing), ctypes.byref(answer)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fspath(path))
    return int(answer.f_type) & 0xFFFFFFFF


@contextlib.contextmanager
def changeable(descriptor: int, *, back: bool = True) -> Iterator[bool]:
    """Remove the attributes that forbid changes (chattr +i, +a) from an open file for a moment.

    Yield whether it had any. A file that is removed meanwhile does not get them back.
    """
    flags = array.array("L", [0])
    try:
        reopened = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.ioctl(reopened, _GET_FLAGS, flags)
        except OSError:  # this filesystem has no such attributes
            yield False
            return
        marks = flags[0] & _UNCHANGEABLE
        if not marks:
            yield False
            return
        fcntl.ioctl(reopened, _SET_FLAGS, array.array("L", [flags[0] & ~_UNCHANGEABLE]))
        try:
            yield True
        finally:
            if back:
                fcntl.ioctl(reopened, _SET_FLAGS, flags)
    finally:
        os.close(reopened)
