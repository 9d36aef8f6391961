"""Archives and folders from elsewhere, unpacked in a way that nothing can leave the target."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from holdfast.drivers.interchange.compressed import ERRORS, peeled
from holdfast.errors import DamagedError, NoSpaceError, NotFoundError, RefusedError

_BLOCK_BYTES = 1 << 20
_ZIP = b"PK\x03\x04"


def _refuse(title: str, name: str, why: str) -> RefusedError:
    return RefusedError(
        f"{title} holds {name!r}, which {why}",
        next_step="Make an archive without it, or find out who made this one.",
    )


def _target(folder: Path, name: str, title: str) -> Path:
    """Return a member's path. Raise RefusedError unless it is below the folder and not behind a link."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise _refuse(title, name, "leaves its target")
    path = folder
    for part in parts[:-1]:
        path /= part
        if path.is_symlink():
            raise _refuse(title, name, "is behind a link")
        path.mkdir(mode=0o755, exist_ok=True)
    return path / parts[-1] if parts else folder


def _folder(target: Path, name: str, title: str) -> None:
    if target.is_symlink():
        raise _refuse(title, name, "is a folder where a link is already")
    target.mkdir(mode=0o755, exist_ok=True)


def _link(folder: Path, path: Path, target: str, title: str) -> None:
    """Make a symlink whose target stays below the folder. Raise RefusedError."""
    meant = os.path.normpath(path.parent / target)
    parts = [part for part in target.split("/") if part not in ("", ".")]
    climbs = parts.count("..")
    # A name before a `..` may be a link itself, and then the text does not show where it leads.
    if (
        target.startswith("/")
        or parts[:climbs] != [".."] * climbs
        or not (Path(meant) == folder or folder in Path(meant).parents)
    ):
        raise _refuse(title, str(path.relative_to(folder)), f"is a link to {target}, which is outside its target")
    path.unlink(missing_ok=True)
    os.symlink(target, path)


def unpack(source: str, folder: Path, check: Callable[[], None]) -> None:
    """Unpack a compressed or plain tar or a zip, or copy a folder; `-` is a tar on the standard input.

    Raise NotFoundError, RefusedError for a member that would leave the folder, DamagedError for a truncated archive.
    """
    if source != "-" and Path(source).is_dir():
        _copy_folder(Path(source), folder, check)
        return
    title = "the standard input" if source == "-" else source
    try:
        with peeled(source) as (stream, _):
            if stream.peek(4)[:4] == _ZIP:
                _unzip(source, folder, title, check)
            else:
                _untar(stream, folder, title, check)
    except FileNotFoundError as error:
        raise NotFoundError(f"{source} cannot be opened: {error.strerror}") from error
    except (tarfile.TarError, zipfile.BadZipFile, *ERRORS) as error:
        raise DamagedError(f"{title} is not a valid archive of a known format, or is truncated: {error}") from error


def _untar(stream: IO[bytes], folder: Path, title: str, check: Callable[[], None]) -> None:
    made: list[tuple[Path, tarfile.TarInfo]] = []
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            check()
            target = _target(folder, member.name, title)
            if member.isdir():
                _folder(target, member.name, title)
                made.append((target, member))
            elif member.isreg():
                source = archive.extractfile(member)
                assert source is not None
                _require_space(folder, member, title)
                _write(source, target, member.mode, member.mtime, check, getattr(member, "sparse", None))
            elif member.issym():
                _link(folder, target, member.linkname, title)
            elif member.islnk():
                first = _target(folder, member.linkname, title)
                if first.is_symlink() or not first.is_file():
                    raise _refuse(title, member.name, "is a link to an entry that is not a file of the archive")
                target.unlink(missing_ok=True)
                os.link(first, target)
            else:
                raise _refuse(title, member.name, "is a device or pipe")
    for path, member in reversed(made):
        os.chmod(path, member.mode & 0o777 | 0o700)
        os.utime(path, (member.mtime, member.mtime))


def _unzip(source: str, folder: Path, title: str, check: Callable[[], None]) -> None:
    if source == "-":
        raise RefusedError("a zip cannot be read from the standard input", next_step="Give the path of the file.")
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            check()
            target = _target(folder, member.filename, title)
            mode = member.external_attr >> 16
            if member.is_dir():
                _folder(target, member.filename, title)
                continue
            if stat.S_ISLNK(mode):
                _link(folder, target, os.fsdecode(archive.read(member)), title)
                continue
            with archive.open(member) as content:
                _write(content, target, mode & 0o777 or 0o644, None, check)


def _require_space(folder: Path, member: tarfile.TarInfo, title: str) -> None:
    """Raise NoSpaceError for a member whose data does not fit; the holes of a sparse one need no space."""
    sparse: list[tuple[int, int]] | None = getattr(member, "sparse", None)
    needed = sum(size for _, size in sparse) if sparse is not None else member.size
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if needed > free:
        raise NoSpaceError(
            f"{member.name!r} of {title} has {needed} bytes, but {folder} has room for {free}",
            next_step="Free space there, then run the command again.",
        )


def _write(
    content: IO[bytes],
    target: Path,
    mode: int,
    mtime: float | None,
    check: Callable[[], None],
    segments: Sequence[tuple[int, int]] | None = None,
) -> None:
    """Write one file; of a sparse one only its `segments`, offset and length each, so that its holes stay holes."""
    target.unlink(missing_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        if segments is None:
            while block := content.read(_BLOCK_BYTES):
                file.write(block)
                if len(block) == _BLOCK_BYTES:  # small files stay complete for `check`, which may read them
                    check()
        else:
            _write_segments(content, file, segments, check)
        file.flush()
        os.fchmod(file.fileno(), mode & 0o777)
    if mtime is not None:
        os.utime(target, (mtime, mtime))


def _write_segments(
    content: IO[bytes], file: IO[bytes], segments: Sequence[tuple[int, int]], check: Callable[[], None]
) -> None:
    raw = (
        content.raw if isinstance(content, io.BufferedReader) else content
    )  # the buffer would need a stream that can go back
    for offset, length in segments:
        raw.seek(offset)
        file.seek(offset)
        while length:
            block = raw.read(min(_BLOCK_BYTES, length))
            if not block:
                raise tarfile.ReadError("a sparse member is truncated")
            file.write(block)
            length -= len(block)
            if length:
                check()
    file.truncate(max((offset + length for offset, length in segments), default=0))


def _copy_folder(source: Path, folder: Path, check: Callable[[], None]) -> None:
    """Copy a folder of this machine as it is; refuse links that lead out of it."""
    base = os.fsencode(source)
    for here, directories, names in os.walk(base):
        check()
        below = os.fsdecode(here[len(base) :].lstrip(b"/"))
        for name in [os.fsdecode(one) for one in (*directories, *names)]:
            path = source / below / name
            target = _target(folder, f"{below}/{name}" if below else name, str(source))
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                _link(folder, target, os.readlink(path), str(source))
            elif stat.S_ISDIR(status.st_mode):
                _folder(target, name, str(source))
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as content:
                    _write(content, target, status.st_mode, status.st_mtime, check)
            else:
                raise _refuse(str(source), name, "is a device, pipe or socket")
