"""What a run knows of a tree under watch: the listing, and the changes that it lacks."""

from __future__ import annotations

from pathlib import Path

import msgspec

from holdfast.drivers.protocols.files import WatchedTree
from holdfast.model import Changed, Entry

_MOST_LINKED = 10_000


class Watched(msgspec.Struct):
    """A tree under watch, the listing to which its changes refer, and the names of files that have several.

    A change is not reported for the other names of a file: each pass looks at all of them.
    """

    tree: WatchedTree
    listing: Path | None = None
    linked: dict[str, list[Entry]] = msgspec.field(default_factory=dict)
    pending: Changed = msgspec.field(default_factory=Changed)
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
