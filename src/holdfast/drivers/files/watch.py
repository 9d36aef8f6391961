"""Changes in a tree while it is copied, so that a later pass reads only these, however large the tree is.

The kernel reports each change of a name, a content or an attribute below a directory that is watched. A directory is
watched before its names are read; whatever happens after that is reported. A reported entry may have another path by
then: the number of a watch is turned into a path only when changes are asked for, and a directory that came, went or
was renamed counts as changed with everything below it. The kernel does not report changes by another machine, changes
in what is mounted over a directory, and, until the file is closed, writes through a memory map or by libaio.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from holdfast.drivers.files import inotify, tree
from holdfast.drivers.files.inotify import Inotify
from holdfast.model import Changed, Entry
from holdfast.system import durable
from holdfast.system.confined import Beneath

_MOST_CHANGES = 200_000  # names that are kept in memory; with more of them the whole tree is read again
_GATHER_MILLISECONDS = 50
_ENTRY, _TREE = False, True
# Filesystems whose changes are all made by this kernel, by the magic numbers of statfs(2).
_LOCAL = frozenset(
    (
        0xEF53,
        0x58465342,
        0x9123683E,
        0x01021994,
        0x2FC12FC1,
        0x794C7630,
        0xF2F52010,
        0xCA451A4E,
        0x3153464A,
        0x858458F6,
    )
)


class _Listener:
    """The kernel's reports, read by a thread of its own, because the kernel's queue is limited."""

    def __init__(self) -> None:
        """Raise OSError where no inotify instance is available."""
        self.inotify = Inotify()
        self.known = True
        self._reported: set[tuple[int, bytes, bool]] = set()
        self._lock = threading.Lock()
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        self._closed = False
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            os.eventfd_write(self._end, 1)
            # The thread itself may be the last to release this object, and it does not run again once Python ends.
            if self._thread is not threading.current_thread() and not sys.is_finalizing():
                self._thread.join()

    def _listen(self) -> None:
        end = select.poll()
        end.register(self._end, select.POLLIN)
        both = select.poll()
        both.register(self._end, select.POLLIN)
        both.register(self.inotify.descriptor, select.POLLIN)
        while both.poll() and not end.poll(_GATHER_MILLISECONDS):
            with self._lock:
                self._gather()
        self.inotify.close()
        os.close(self._end)

    def take(self) -> set[tuple[int, bytes, bool]]:
        """Return the reports since the last call: number of a watch, name, whether everything below it changed."""
        with self._lock:
            self._gather()
            taken, self._reported = self._reported, set()
            return taken

    def _gather(self) -> None:
        for event in self.inotify.events():
            if event.mask & (inotify.OVERFLOW | inotify.UNMOUNT) or len(self._reported) >= _MOST_CHANGES:
                self.known = False
                self._reported.clear()
            if not self.known:
                continue
            if event.name:
                whole = bool(event.mask & inotify.IS_DIRECTORY and event.mask & inotify.NAMES)
                self._reported.add((event.watch, event.name, whole))
            if event.mask & (inotify.NAMES | inotify.ATTRIB):
                self._reported.add((event.watch, b"", _ENTRY))


class TreeWatch:
    """A watched tree."""

    def __init__(self, root: Path, excludes: tree.Excludes, mounts: Callable[[], list[Path]]) -> None:
        """Raise OSError where the kernel cannot report the changes of this tree."""
        self._root = root
        self._excludes = excludes
        self._mounts = mounts
        self._mounted = mounts()
        if any(durable.filesystem_type(place) not in _LOCAL for place in (root, *self._mounted)):
            raise OSError(0, f"{root} may be changed by another machine")
        self._paths: dict[int, bytes] = {}
        with Beneath(root) as own:
            self._identity = os.fstat(own.top).st_dev, os.fstat(own.top).st_ino
        self._listener = _Listener()

    def close(self) -> None:
        self._listener.close()

    def __del__(self) -> None:
        if hasattr(self, "_listener"):
            self.close()

    def scan(self, by_name: Callable[[], bool]) -> Iterator[Entry]:
        """Yield every entry below the root, and watch each directory before it is read."""
        return tree.scan(os.fsencode(self._root), self._excludes, by_name, self._watch)

    def _watch(self, path: bytes, folder: int) -> None:
        if not self._listener.known:
            return
        try:
            self._paths[self._listener.inotify.watch(folder)] = path
        except OSError:  # no more watches are available
            self._listener.known = False

    def changed(self) -> Changed | None:
        """Return the changes since each directory was read, or since the last call; None where the kernel lost some."""
        reported = self._listener.take()
        if not self._listener.known or not self._is_in_place():
            self._listener.known = False
            return None
        entries: set[bytes] = set()
        trees: set[bytes] = set()
        for number, name, whole in reported:
            folder = self._paths.get(number)
            if folder is None:
                continue  # the directory was read under no path, so it is part of one that changed as a whole
            path = folder + b"/" + name if folder and name else folder or name
            if path and not self._is_left_out(path):
                (trees if whole else entries).add(path)
        return Changed(frozenset(entries), frozenset(trees))

    def _is_in_place(self) -> bool:
        with contextlib.suppress(OSError), Beneath(self._root) as own:
            status = os.fstat(own.top)
            return (status.st_dev, status.st_ino) == self._identity and self._mounts() == self._mounted
        return False

    def _is_left_out(self, path: bytes) -> bool:
        parts = path.split(b"/")
        above = (b"/".join(parts[: number + 1]) for number in range(len(parts)))
        return any(tree.left_out(name, one, self._excludes) for name, one in zip(parts, above, strict=True))

    def look(self, changed: Changed) -> Iterator[Entry]:
        """Yield the present entries at the changed paths, in the order of a scan."""
        wanted = [(path.replace(b"/", b"\0"), path, _ENTRY) for path in changed.entries]
        wanted += [(path.replace(b"/", b"\0"), path, _TREE) for path in changed.trees]
        inside: bytes | None = None
        with Beneath(self._root) as own:
            for _, path, whole in sorted(wanted, key=lambda item: (item[0], not item[2])):
                if inside is not None and (path == inside or path.startswith(inside + b"/")):
                    continue
                if whole:
                    inside = path
                yield from tree.look(own, path, self._excludes, self._watch, below=whole)
