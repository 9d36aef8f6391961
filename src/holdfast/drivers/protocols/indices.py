"""Protocol of search indices: datasets that the application can build again from its databases."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from holdfast.drivers.protocols.datasets import Dataset


class SearchIndex(Dataset, Protocol):
    """A search index behind an alias.

    Its writers are never held: a server refuses them instead of letting them wait, and an application would lose what
    it indexes. The dump of an index is a record that names a snapshot in a repository of the server.
    """

    name: str
    content: str
    """`snapshot` if a backup has the index, else `rebuild`."""
    command: tuple[str, ...]
    """The command that builds the index again; empty for `tasks.reindex`."""

    def can_copy(self) -> bool:
        """Return whether the server can make a restore point of the live index."""

    def make_room(self, token: str) -> str:
        """Return the name under which the application builds a new index for an operation; remove an earlier one."""

    def adopt(self, token: str) -> str:
        """Return the identity of the index that was built under that name, once it is complete, as a candidate.

        Raise StepError where there is none, or where it is red.
        """

    def drop_snapshots(self, keep: Collection[str]) -> list[str]:
        """Delete the snapshots of this index that are not to be kept; return their names. Idempotent."""
