"""Rules that the entries of a listing obey, and choices of some of them by their paths.

The rules are checked when a backup is verified, and again before it is restored.
"""

from __future__ import annotations

import bisect
import fnmatch
import os
import re
from collections.abc import Iterable, Iterator

from holdfast.errors import DamagedError
from holdfast.model import Entry


def inside(wanted: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries of a listing, each proven to lie below the root in a directory that the listing itself names.

    So none can climb out, or be written through a link that comes earlier. Raise DamagedError.
    """
    parents: list[bytes] = []
    for entry in wanted:
        path = entry.raw_path()
        while parents and not path.startswith(parents[-1] + b"/"):
            parents.pop()
        above, _, name = path.rpartition(b"/")
        climbs = name in (b"", b".", b"..") or b"\0" in name or path.startswith(b"/")
        if climbs or above != (parents[-1] if parents else b""):
            raise DamagedError(f"a listing names {entry.path!r}, which is not in a directory of that listing")
        if entry.kind not in ("file", "directory", "symlink", "fifo"):
            raise DamagedError(f"a listing names {entry.path!r} of the unknown kind {entry.kind!r}")
        if entry.kind == "directory":
            parents.append(path)
        yield entry


_LITERAL = re.compile(r"[A-Za-z0-9_.-]+")  # characters that JSON never escapes


def order_of(path: bytes) -> bytes:
    """Return a key that sorts paths as listings do: a directory before its contents, siblings by name."""
    return path.replace(b"/", b"\0")


class PathFilter:
    """A choice of entries by their paths, which are asked in the order of a listing."""

    literal = ""
    """Letters that every chosen path contains; empty where none are known. They are the same in JSON."""

    def wants(self, path: bytes) -> bool:
        """Return whether an entry at a path is chosen."""
        raise NotImplementedError

    def may_choose(self, after: bytes, until: bytes) -> bool:
        """Return whether any path behind one path and not behind another one may be chosen."""
        return True

    def is_past(self, path: bytes) -> bool:
        """Return whether no path from this one on is chosen."""
        return False

    def select(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield the chosen ones of entries that come in the order of a listing."""
        for entry in entries:
            path = entry.raw_path()
            if self.wants(path):
                yield entry
            elif self.is_past(path):
                return


class Selection(PathFilter):
    """Paths with everything below them, and the directories above them. An empty path is the whole tree."""

    def __init__(self, paths: Iterable[bytes]) -> None:
        self.tops: list[bytes] = []
        """The paths, without those below another one, in the order of a listing."""
        for path in sorted(set(paths), key=order_of):
            if not (self.tops and is_at_or_below(path, self.tops[-1])):
                self.tops.append(path)
        self._above = {path[:end] for path in self.tops for end in range(len(path)) if path[end : end + 1] == b"/"}
        self._top_keys = [order_of(path) for path in self.tops]
        self._keys = sorted({*self._top_keys, *map(order_of, self._above)})

    def wants(self, path: bytes) -> bool:
        return self.covers(path) or path in self._above

    def covers(self, path: bytes) -> bool:
        """Return whether a path is one of those chosen, or below one."""
        return self._top_of(path) is not None

    def is_above(self, path: bytes) -> bool:
        """Return whether a path leads to a chosen one, but is not chosen itself."""
        return path in self._above

    def _top_of(self, path: bytes) -> bytes | None:
        number = bisect.bisect_right(self._top_keys, order_of(path)) - 1
        return self.tops[number] if number >= 0 and is_at_or_below(path, self.tops[number]) else None

    def may_choose(self, after: bytes, until: bytes) -> bool:
        first, last = (bisect.bisect_right(self._keys, order_of(path)) for path in (after, until))
        return first != last or self.covers(after)

    def is_past(self, path: bytes) -> bool:
        return not self.tops or (order_of(path) > self._top_keys[-1] and not is_at_or_below(path, self.tops[-1]))

    def lookups(self) -> Iterator[tuple[bytes, bool]]:
        """Yield each path at which a tree is looked at, and whether also below it, in the order of a listing."""
        for key in self._keys:
            path = key.replace(b"\0", b"/")
            yield path, path not in self._above


class Children(Selection):
    """The entry at a path, what is directly in it if it is a directory, and the directories above it."""

    def __init__(self, path: bytes) -> None:
        super().__init__([path])
        self._depth = path.count(b"/") + 1 if path else 0

    def wants(self, path: bytes) -> bool:
        return super().wants(path) and path.count(b"/") <= self._depth


class NamePattern(PathFilter):
    """Entries whose name matches a shell pattern, or their whole path with the dataset where it has a slash."""

    def __init__(self, pattern: str, dataset: str) -> None:
        self._dataset = dataset if "/" in pattern else None
        self._matches = re.compile(fnmatch.translate(pattern)).match
        # What stands before the first slash may be of the dataset; characters in brackets are no literal text.
        inside = pattern if self._dataset is None else pattern.partition("/")[2]
        self.literal = "" if "[" in pattern else max(_LITERAL.findall(inside), key=len, default="")

    def wants(self, path: bytes) -> bool:
        if self._dataset is None:
            return self._matches(os.fsdecode(path.rpartition(b"/")[2])) is not None
        return self._matches(f"{self._dataset}/{os.fsdecode(path)}") is not None


def is_at_or_below(path: bytes, top: bytes) -> bool:
    return not top or path == top or path.startswith(top + b"/")
