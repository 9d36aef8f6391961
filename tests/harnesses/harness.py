"""A dataset as its application sees it: the suite writes, reads and dumps by this and knows nothing of the engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.drivers.protocols.databases import Database
from holdfast.drivers.protocols.datasets import Dataset
from holdfast.drivers.protocols.packages import Packages
from holdfast.drivers.protocols.runtimes import Runtime
from holdfast.drivers.protocols.vaults import Vault
from holdfast.model import Snapshot
from tests.contract.dumps import snapshot


class WriterHeldError(Exception):
    """A visitor's write did not come through in the moment that it was given."""


class Harness(ABC):
    """One dataset whose entries are texts, in the order in which they were added."""

    holders_go_together = False
    """Whether two may hold writers at once; otherwise the second one is refused."""
    holds_writers = True
    """Whether writers can wait; otherwise the dataset is one that its application makes again, and nobody holds it."""
    fixed_within_seconds = 1e-9
    """How long writers may be held for an instant that is fixed while they go on."""
    volatile_facts: frozenset[str] = frozenset()
    """Facts of a snapshot that change without a change of the content."""

    def __init__(self, dataset: Dataset, folder: Path) -> None:
        self.dataset = dataset
        self.folder = folder
        self.taken: dict[Path, Snapshot] = {}

    # --- the application's own way -----------------------------------------------------------------

    @abstractmethod
    def create(self) -> None:
        """Make the dataset as the application's installation does, without entries of the suite."""

    @abstractmethod
    def add(self, text: str) -> None:
        """Write one entry. Raise WriterHeldError where it is not accepted at once."""

    @abstractmethod
    def clear(self) -> None:
        """Remove every entry; the dataset stays."""

    @abstractmethod
    def texts(self) -> list[str]:
        """Return the entries of the live dataset."""

    @abstractmethod
    def free_name(self) -> str:
        """Return a name under which a candidate can be handed over."""

    @abstractmethod
    def texts_under(self, name: str) -> list[str]:
        """Return the entries of the dataset that was handed over under a name."""

    # --- what the suite does with it ----------------------------------------------------------------

    def identity(self) -> str | None:
        found = self.dataset.inspect()["identity"]
        assert found is None or isinstance(found, str)
        return found

    def dump(self, target: Path) -> Snapshot:
        self.taken[target] = snapshot(self.dataset, target)
        return self.taken[target]

    def prepare(self, token: str, dump: Path | None) -> str:
        """Make a candidate of a dump that was taken before, or of the live dataset."""
        if dump is None:
            return self.dataset.prepare(token, None, {})
        taken = self.taken[dump]
        rows = {table: facts["rows"] for table, facts in taken.tables.items()}
        return self.dataset.prepare(token, dump, {**taken.facts, "rows": rows})

    def dump_of(self, *texts: str) -> Path:
        """Return a dump that has just these entries; the live dataset is as before."""
        target = self.folder / f"dump-{'-'.join(texts)}"
        before = self.texts()
        self._replace(texts)
        self.dump(target)
        self._replace(before)
        return target

    def _replace(self, texts: Sequence[str]) -> None:
        self.clear()
        for text in texts:
            self.add(text)

    def texts_of(self, dump: Path) -> list[str]:
        """Return the entries of a dump: it is put in place for a moment."""
        live = self.identity()
        self.dataset.swap("look", self.prepare("look", dump), "look")
        found = self.texts()
        self.dataset.swap("look", live, "look.again")
        self.dataset.discard("look")
        return found

    def lasting(self, taken: Snapshot) -> dict[str, Any]:
        """Return the facts of a snapshot that the same content has again."""
        return {key: value for key, value in taken.facts.items() if key not in self.volatile_facts}


class SqlHarness(Harness):
    """A database with one table; a statement is run as the application runs it."""

    create_table = "CREATE TABLE entry (id INTEGER PRIMARY KEY, text TEXT)"
    rows = "SELECT text FROM entry ORDER BY id"

    def __init__(
        self,
        database: Database,
        folder: Path,
        execute: Callable[[str], object],
        *,
        other: Callable[[str], AbstractContextManager[Database]],
    ) -> None:
        """Create a harness; `other` opens another database by its name."""
        super().__init__(database, folder)
        self.database = database
        self.execute = execute
        self._other = other

    def create(self) -> None:
        self.execute(self.create_table)

    def add(self, text: str) -> None:
        self.execute(f"INSERT INTO entry (text) VALUES ('{text}')")

    def clear(self) -> None:
        self.execute("DELETE FROM entry")

    def texts(self) -> list[str]:
        return [row[0] for row in self.database.query(self.rows)]

    def texts_under(self, name: str) -> list[str]:
        with self._other(name) as database:
            return [row[0] for row in database.query(self.rows)]


@dataclass(frozen=True)
class VaultHarness:
    """A vault, and the damage that a disk does to it."""

    vault: Vault
    damage: Callable[[str, str], None]
    """Changes a byte of a backup's own file, given with the backup's id, or changes it back."""


OpenHarness = Callable[[Path], AbstractContextManager[Harness]]
"""Opens a harness; it takes an empty folder for the files of one test."""


@dataclass(frozen=True)
class History:
    """A git repository with two commits: the tag v1, then the branches main and feature/x."""

    repository: Path
    first: str
    second: str
    files: Mapping[str, Mapping[str, str]]
    """The content of each commit."""


OpenVault = Callable[[Path], VaultHarness]
"""Opens a vault; it takes a folder for itself that does not exist."""
OpenRuntime = Callable[[Path], AbstractContextManager[Runtime]]
OpenPackages = Callable[[Path, History], AbstractContextManager[Packages]]
