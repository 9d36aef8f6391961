"""Databases: reading, replacing, sessions."""

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
"""Fixes the instant of a dump into a new file, with queries to be answered and the seconds that counting rows may take.
What it returns finishes the dump."""


FixAll = Callable[[Sequence[tuple[Path, Sequence[str]]], float], list[Callable[[], Snapshot]]]
"""The same of several databases at one instant, each with its own file and queries."""


class Queryable(Protocol):
    """A database that answers questions: the live one, or one beside it."""

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a read-only query."""

    def tables(self, *, budget_seconds: float = 10) -> dict[str, Facts]:
        """Return its tables, as `DatabaseReading.tables` does."""


class DatabaseReading(Protocol):
    """Looking at one database of the application, and copying it."""

    kind: str
    extension: str
    copied_by: str
    """How a restore point is made, for people."""

    def inspect(self) -> Facts:
        """`exists`, `identity` (survives renames, changes with a swap), `size_bytes`, `tool`.

        `data_folder` where a server on this machine keeps its databases, if that can be known.
        """

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a read-only query on the live database."""

    def tables(self, *, budget_seconds: float = 10) -> dict[str, Facts]:
        """Per table `columns` and exact `rows`; rows not counted within the budget are None.

        Small tables are counted first where the engine knows which those are.
        """

    def hold(self, limit_seconds: float | None) -> AbstractContextManager[Fix]:
        """Holds writers until the instant is fixed, after which they go on as soon as the engine can; None: not at all.

        Raises StepError if writers cannot be held in time.
        """

    def hold_with(self, others: Sequence[Database]) -> AbstractContextManager[FixAll] | None:
        """Fixes the instant of this database and then others by one transaction, holding no writers.

        None where their engine has no transaction that sees all of them.
        """

    def check(self) -> list[Problem]:
        """What stands against an operation on it, as `error`, and what an operator should know."""


class DatabaseSwapping(Protocol):
    """Databases beside the live one. `token` names one operation's."""

    candidate_has_views: bool
    """Whether a candidate has its views and routines; where it has not, they are made once it is in place."""

    @property
    def private_folder(self) -> Path | None:
        """Where what is Holdfast's own lies beside the live database, if that is a folder of this machine."""

    def prepare(self, token: str, source: Path | None, facts: Facts) -> str:
        """A candidate beside the live database, from it (None, no open sessions allowed) or from a dump; verified.

        `facts` are those of the dump's snapshot, its `tables` among them. With `elsewhere` in them it is another
        environment's, whose roles, grants and settings mean nothing here. Returns its identity. May be repeated: an
        earlier candidate of the token is replaced.
        """

    def load(self, token: str, source: Foreign) -> str:
        """A candidate as by `prepare`, from a dump that another tool made, owned as the live database is.

        Raises RefusedError for a format that the engine does not read, DamagedError for a dump that is not whole.
        """

    def candidate(self, token: str, identity: str) -> AbstractContextManager[Queryable]:
        """Return what asks the operation's candidate with that identity, which stays where it is. May be repeated.

        Raises StepError where it is gone.
        """

    def dump(self, token: str, identity: str, target: Path, budget_seconds: float) -> Snapshot:
        """Dumps into a new file, of an operation's databases beside the live one, that with this identity.

        It was copied from the live database, or was the live one before a swap: the dump is as if made then. The
        database stays. May be repeated. Raises StepError where it is gone, StepError or DamagedError where it cannot
        be read.
        """

    def swap(self, token: str, identity: str | None, aside: str) -> None:
        """Puts the operation's database with that identity in place (None: nothing), the present one under `aside`.

        Decided by identity: if it is in place already nothing happens. May be repeated.
        """

    def hand_over(self, token: str, name: str, *, rehearsal: bool = False) -> None:
        """Gives the candidate away as a database of its own under a name that is free. May be repeated.

        Raises RefusedError where the name is taken or may not be given. A rehearsal finds that out and does no more.
        """

    def discard(self, token: str) -> None:
        """Removes what an operation left beside the live database. May be repeated."""

    def tokens(self) -> list[str]:
        """Of what operations left beside the live database."""


class DatabaseSessions(Protocol):
    """Whose a database is, and who uses it."""

    def owner(self) -> str | None:
        """Who claimed the live database, where the engine itself keeps that."""

    def claim(self, owner: str) -> None:
        """Marks the live database as the owner's, where the engine itself keeps that. May be repeated."""

    def session_environment(self, operation: str) -> dict[str, str]:
        """What makes the sessions of the application's own commands known as the operation's."""

    def end_sessions(self, operation: str) -> None:
        """Ends what a dead operation's commands still do in the engine. Raises StepError if something goes on."""


class Database(DatabaseReading, DatabaseSwapping, DatabaseSessions, Protocol):
    """One database of the application."""


class Cold(Protocol):
    """Reading a database out of the files of a server that was shut down."""

    def known(self, scratch: Path, unpacked: Path, newest: int) -> bool:
        """Whether what is unpacked so far tells its version. Raises RefusedError where that cannot be read here."""

    def dump(self, scratch: Path, unpacked: Path, newest: int) -> Path:
        """Dumps the wanted database of files below `unpacked`, which are changed; nothing of it runs afterwards.

        Raises RefusedError for files of a server that was running, or that cannot be read here.
        """

    def end(self, scratch: Path) -> None:
        """Ends what runs in a scratch folder. May be repeated. Raises StepError if something goes on."""

    def end_operation(self, operation: str) -> None:
        """Ends what a dead operation's commands still do in containers. May be repeated. Raises StepError."""
