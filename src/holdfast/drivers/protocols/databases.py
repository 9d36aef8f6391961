"""Protocols of databases: reading, replacing, sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from holdfast.drivers.interchange.dump_source import Foreign
from holdfast.model import (
    Facts,
    Problem,
    Snapshot,
)

Fix = Callable[[Path, Sequence[str], float], Callable[[], Snapshot]]
"""Fix the instant of a dump into a new file, and return the function that finishes the dump.

The arguments are the file, the queries whose answers the snapshot holds, and the seconds that counting rows may take.
"""


FixAll = Callable[[Sequence[tuple[Path, Sequence[str]]], float], list[Callable[[], Snapshot]]]
"""Do the same for several databases at one instant, each with its own file and queries."""


class Queryable(Protocol):
    """A database that answers queries: the live one, a candidate or a replaced one."""

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a read-only query."""

    def tables(self, *, budget_seconds: float = 10) -> dict[str, Facts]:
        """Return its tables in the form of `DatabaseReading.tables`."""


class DatabaseReading(Protocol):
    """The reading side of one database of the application: facts, queries and dumps."""

    kind: str
    extension: str
    copied_by: str
    """The way a restore point is made, in words for operators."""

    def inspect(self) -> Facts:
        """Return `exists`, `identity` (survives renames, changes with a swap), `size_bytes` and `tool`.

        Add `data_folder`, the folder in which a server on this machine keeps its databases, if it can be determined.
        """

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a read-only query on the live database."""

    def tables(self, *, budget_seconds: float = 10) -> dict[str, Facts]:
        """Return per table its `columns` and exact `rows`; rows not counted within the budget are None.

        Small tables are counted first where the engine knows which those are.
        """

    def hold(self, limit_seconds: float | None) -> AbstractContextManager[Fix]:
        """Hold writers until the instant is fixed; with None, do not hold them.

        Afterwards they go on as soon as the engine allows it. Raise StepError if writers cannot be held in time.
        """

    def hold_with(self, others: Sequence[Database]) -> AbstractContextManager[FixAll] | None:
        """Fix the instant of this database and then others in one transaction, without holding writers.

        Return None where their engine has no transaction that sees all of them.
        """

    def check(self) -> list[Problem]:
        """Return what prevents an operation on it, as `error`, and what an operator should know."""


class DatabaseSwapping(Protocol):
    """Databases next to the live one: candidates and replaced databases. `token` names those of one operation."""

    candidate_has_views: bool
    """Whether a candidate has its views and routines; if not, they are created after the swap."""

    @property
    def private_folder(self) -> Path | None:
        """Return the folder of Holdfast's own data next to the live database, if it is a folder of this machine."""

    def prepare(self, token: str, source: Path | None, facts: Facts) -> str:
        """Make a verified candidate database from the live one (`source` is None) or from a dump; return its identity.

        A copy of the live database requires that it has no open sessions. `facts` are those of the dump's snapshot, its
        `tables` among them. `elsewhere` in them says that the dump comes from another environment, whose roles, grants
        and settings do not apply here. Idempotent: an earlier candidate of the token is replaced.
        """

    def load(self, token: str, source: Foreign) -> str:
        """Make a candidate, as `prepare` does, from a dump that another tool made; it gets the live database's owner.

        Raise RefusedError for a format that the engine does not read, DamagedError for an incomplete dump.
        """

    def candidate(self, token: str, identity: str) -> AbstractContextManager[Queryable]:
        """Return a reader of the operation's candidate with that identity. Idempotent.

        The candidate stays where it is. Raise StepError where it is gone.
        """

    def dump(self, token: str, identity: str, target: Path, budget_seconds: float) -> Snapshot:
        """Dump the operation's candidate or replaced database with this identity into a new file.

        It was copied from the live database, or was the live one before a swap: the dump is the same as one made then.
        The database stays. Idempotent. Raise StepError where it is gone, StepError or DamagedError where it cannot be
        read.
        """

    def swap(self, token: str, identity: str | None, aside: str) -> None:
        """Put the operation's database with that identity in place, and keep the present one under `aside`.

        With None, only the present one is moved. Decided by identity: if it is in place already, nothing happens.
        Idempotent.
        """

    def hand_over(self, token: str, name: str, *, rehearsal: bool = False) -> None:
        """Hand the candidate over as a database of its own under a name that is free. Idempotent.

        Raise RefusedError where the name is taken or not allowed. A rehearsal checks only that.
        """

    def discard(self, token: str) -> None:
        """Remove an operation's candidate and replaced databases. Idempotent."""

    def tokens(self) -> list[str]:
        """Return the tokens of databases that operations left next to the live one."""


class DatabaseSessions(Protocol):
    """Ownership of a database, and the sessions that use it."""

    def owner(self) -> str | None:
        """Return the owner of the live database, where the engine itself keeps a marker."""

    def claim(self, owner: str) -> None:
        """Mark the live database as the owner's, where the engine itself keeps a marker. Idempotent."""

    def session_environment(self, operation: str) -> dict[str, str]:
        """Return the variables that mark sessions of the application's own commands as the operation's."""

    def end_sessions(self, operation: str) -> None:
        """End the sessions that a dead operation's commands left in the engine.

        Raise StepError if something still runs.
        """


class Database(DatabaseReading, DatabaseSwapping, DatabaseSessions, Protocol):
    """One database of the application."""


class Cold(Protocol):
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
