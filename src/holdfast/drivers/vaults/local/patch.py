"""A listing brought up to date by what changed alone, without a scan of the whole tree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.drivers.protocols.files import WatchedTree
from holdfast.model import Changed, Entry

_MOST_LINKED = 10_000


@dataclass
class Watched:
    """A tree under watch, the listing that its changes refer to, and the names that share a file with others.

    Which other names a file has is not reported where it changes: each pass looks at all of them.
    """

    tree: WatchedTree
    listing: Path | None = None
    linked: dict[str, list[Entry]] = field(default_factory=dict)
    pending: Changed = field(default_factory=Changed)
    """Changes that were asked for, and are in no listing yet."""

    def changed(self) -> Changed | None:
        """Return what the listing does not have, or None where a scan is needed."""
        found = self.tree.changed()
        linked = self.known()
        if found is None or self.listing is None or len(linked) > _MOST_LINKED:
            return None
        self.pending |= found | Changed(entries=frozenset(entry.raw_path() for entry in linked))
        return self.pending

    def known(self) -> list[Entry]:
        """Return the names of files that have several, in the order of a listing."""
        return sorted((entry for names in self.linked.values() for entry in names), key=Entry.order)

    def listed(self, path: Path, linked: dict[str, list[Entry]]) -> None:
        """Take a listing for what changes refer to from now on."""
        self.listing = path
        self.linked = linked
        self.pending = Changed()


class Patch:
    """Each entry of a listing as it is now; `lost` is true once a file of it vanished or has another content."""

    def __init__(
        self, earlier: Iterator[Entry], fresh: Iterator[Entry], changed: Changed, *, keep_vanished: bool
    ) -> None:
        """`fresh` is what was found at the paths that changed. What was not found there stays only if it is to be kept."""
        self._earlier = earlier
        self._fresh = fresh
        self._changed = changed
        self._keep_vanished = keep_vanished
        self.lost = False
        self._tree = b"\0"  # the changed tree at hand, with a slash behind it
        self._no_folder = b"\0"  # what was a directory and is none any more, likewise

    def __iter__(self) -> Iterator[Entry]:
        new = next(self._fresh, None)
        for before in self._earlier:
            path, order = before.raw_path(), before.order()
            while new is not None and new.order() < order:
                yield new
                new = next(self._fresh, None)
            if path in self._changed.trees and not path.startswith(self._tree):
                self._tree = path + b"/"
            if new is not None and new.raw_path() == path:
                if before.kind == "directory" and new.kind != "directory":
                    self._no_folder = path + b"/"
                self.lost = self.lost or (before.kind == "file" and before.sha256 != new.sha256)
                yield new
                new = next(self._fresh, None)
            elif path.startswith(self._no_folder) or (self._is_changed(path) and not self._keep_vanished):
                self.lost = True
            else:
                yield before
        while new is not None:
            yield new
            new = next(self._fresh, None)

    def _is_changed(self, path: bytes) -> bool:
        return path in self._changed.entries or path in self._changed.trees or path.startswith(self._tree)
