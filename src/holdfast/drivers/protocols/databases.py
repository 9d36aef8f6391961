"""Protocols of datasets that answer SQL, and of databases whose files are read without their server."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from holdfast.drivers.protocols.datasets import Countable, Dataset


class Queryable(Countable, Protocol):
    """A database that answers queries: the live one, a candidate or a replaced one."""

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a read-only query."""


@runtime_checkable
class Changeable(Queryable, Protocol):
    """A database in which one statement can change rows."""

    def change(self, sql: str) -> None:
        """Run one statement; it takes effect as a whole. Raise StepError, and then nothing is changed."""


@runtime_checkable
class Database(Queryable, Dataset, Protocol):
    """A dataset that answers SQL, so that migrations and references are known by queries."""

    candidate_has_views: bool
    """Whether a candidate has its views and routines; if not, they are created after the swap."""

    def schema_version(self) -> str:
        """Return what the application itself keeps of its schema outside of tables, as in `Snapshot`."""

    def candidate(self, token: str, identity: str) -> AbstractContextManager[Queryable]:
        """Return a reader as every dataset does, which also answers queries."""


class OfflineDataDirectory(Protocol):
    """A reader of a database in the data directory of a server that was shut down."""

    def known(self, scratch: Path, unpacked: Path, newest: int) -> bool:
        """Return whether the files unpacked so far tell the version.

        Raise RefusedError where that version cannot be read here.
        """

    def dump(self, scratch: Path, unpacked: Path, newest: int) -> Path:
        """Dump the wanted database from the files below `unpacked`, which it changes; nothing runs afterwards.

        Raise RefusedError for files of a server that was running, or that cannot be read here.
        """

    def end(self, scratch: Path) -> None:
        """End what runs in a scratch folder. Idempotent. Raise StepError if something still runs."""

    def end_operation(self, operation: str) -> None:
        """End the containers' processes that a dead operation's commands left. Idempotent. Raise StepError."""
