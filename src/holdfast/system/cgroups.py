"""Control groups of one keeper's processes (cgroups(7)), if this user may create them: mostly only root may.

A process leaves its group only if somebody with the right to do so writes it into another one. So a group shows what a
keeper started, even after the keeper and every parent of the remaining processes were killed.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_HIERARCHIES = ("pids", "freezer", "name=systemd")
"""Usable controllers of version 1, without version 2: a group in them has no effect until it gets limits."""
_MEMBERS = "cgroup.procs"


def _own() -> Path | None:
    """Return the group of this process, as a folder."""
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        own.update(dict.fromkeys(names.split(","), path))
    mounts = [line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for wanted in ("", *_HIERARCHIES):
        for left, right in mounts:
            kind, _, options = right.split(" ", 2)
            fits = kind == "cgroup2" if not wanted else kind == "cgroup" and wanted in options.split(",")
            if fits and wanted in own:
                _, _, _, root, place, *_ = left.split(" ")
                inside = own[wanted].removeprefix(root if root != "/" else "")
                folder = Path(place) / inside.lstrip("/")
                if folder.is_dir():
                    return folder
    return None


def make(name: str, pid: int) -> Path | None:
    """Make a group below this process's own and put a process into it; return None where that is impossible."""
    folder = None
    try:
        own = _own()
        if own is None or not os.access(own / _MEMBERS, os.W_OK):
            return None
        folder = own / name
        folder.mkdir()
        (folder / _MEMBERS).write_text(str(pid))
    except (OSError, ValueError):
        if folder is not None:
            remove(folder)
        return None
    return folder


def members(folder: Path) -> list[int]:
    """Return the processes of a group and of those below it."""
    found = []
    for path in _with_those_below(folder):
        with contextlib.suppress(OSError):
            found += [int(line) for line in (path / _MEMBERS).read_text().split()]
    return [pid for pid in found if pid]


def _with_those_below(folder: Path) -> list[Path]:
    """Yield a group and those below it, parents first. One may be removed meanwhile."""
    found = [folder]
    for path in found:
        with contextlib.suppress(OSError), os.scandir(path) as inside:
            found += [path / entry.name for entry in inside if entry.is_dir(follow_symlinks=False)]
    return found


def remove(folder: Path) -> None:
    """Remove an empty group."""
    for path in reversed(_with_those_below(folder)):
        with contextlib.suppress(OSError):
            path.rmdir()
