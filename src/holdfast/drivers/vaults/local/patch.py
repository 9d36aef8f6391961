"""A listing that is updated only where files changed, without a scan of the whole tree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.drivers.protocols.files import WatchedTree
from holdfast.model import Changed, Entry

_MOST_LINKED = 10_000


@dataclass
class Watched:
    """A tree under watch, the listing to which its changes refer, and the names of files that have several.

    A change is not reported for the other names of a file: each pass looks at all of them.
    """

    tree: WatchedTree
    listing: Path | None = None
    linked: dict[str, list[Entry]] = field(default_factory=dict)
    pending: Changed = field(default_factory=Changed)
    """Changes that were reported and are in no listing yet."""

    def changed(self) -> Changed | None:
        """Return the changes that the listing lacks, or None where a scan is needed."""
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
        """Set the listing to which changes refer from now on."""
        self.listing = path
        self.linked = linked
        self.pending = Changed()


class Patch:
    """An iterator of a listing's entries in their present state.

    `lost` is true once a file of the listing vanished or has another content.
    """

    def __init__(
        self, earlier: Iterator[Entry], fresh: Iterator[Entry], changed: Changed, *, keep_vanished: bool
    ) -> None:
        """Take `fresh`, the entries at changed paths; others there are dropped unless vanished ones are kept."""
        self._earlier = earlier
        self._fresh = fresh
        self._changed = changed
        self._keep_vanished = keep_vanished
        self.lost = False
        self._tree = b"\0"  # the changed tree that is being skipped, with a slash at its end
        self._no_folder = b"\0"  # a path that was a directory and is not one any more, likewise

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
