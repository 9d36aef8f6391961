"""Folders in memory, where the machine has such a place: trees, sites and servers of tests are made by the hundred.

What is tested on a disk (lost power, a full one, reflinks) makes filesystems of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

_PLACE = "/dev/shm"
_NEEDED_BYTES = 4 << 30


def _usable() -> bool:
    """Programs must be allowed to run from it: some machines mount it without, and small."""
    if not os.access(_PLACE, os.W_OK):
        return False
    status = os.statvfs(_PLACE)
    return status.f_flag & os.ST_NOEXEC == 0 and status.f_bavail * status.f_frsize >= _NEEDED_BYTES


MEMORY = _PLACE if _usable() else None


def remove_folder(path: Path) -> None:
    """Remove a folder as far as possible, even folders that their owner may not list or write in (as root may)."""
    for place, folders, _ in os.walk(path):
        for name in folders:
            inner = os.path.join(place, name)
            if not os.path.islink(inner):
                with contextlib.suppress(OSError):
                    os.chmod(inner, 0o700)
    shutil.rmtree(path, ignore_errors=True)


def make_folder(prefix: str = "hf") -> Path:
    """A new folder with a short path: a socket's is limited."""
    return Path(tempfile.mkdtemp(prefix=prefix, dir=MEMORY))


def memory_of(pid: int) -> bytes:
    """Return what a process has in its memory, as far as it can write there."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            area, rights, *rest = line.split()
            if rights.startswith("rw") and rest[-1] not in ("[vvar]", "[vsyscall]"):
                start, end = (int(number, 16) for number in area.split("-"))
                memory.seek(start)
                found.append(memory.read(end - start))
    return b"".join(found)
