"""The differences between MariaDB and MySQL, as values and functions for the code that they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from holdfast.drivers.databases.sql.session import Session

Finding = tuple[str, str, str]
"""Severity, message, advice."""
Version = tuple[int, int]


class OwnerMarker(Protocol):
    """The place where the server keeps a database's owner, and its properties besides the character set."""

    def read(self, session: Session, database: str, own_place: str) -> str | None:
        """Return the owner; None where the database is unclaimed or does not exist."""

    def write(self, session: Session, database: str, own_place: str, owner: str) -> None:
        """Write the owner; leave an earlier marker as it is. Do nothing where there is no such database."""

    def properties(self, session: Session, database: str) -> str:
        """Return clauses of CREATE and ALTER DATABASE that follow its character set, without the marker."""

    def kept(self, session: Session, database: str, properties: str) -> str:
        """Return the same clauses in a form that keeps the marker of a database that is altered."""


@dataclass(frozen=True)
class Dialect:
    product: str
    client: str
    dumper: str
    dumper_options: tuple[str, ...]
    """Arguments of every call of the dump program."""
    rows_on_lines: bool
    """Whether the dump program begins a line with every row, rather than with every statement."""
    opening: str
    """Settings of a session, in addition to those that both products know."""
    loading: str
    """The same settings for a session that loads a dump of Holdfast's."""
    counting: str
    """A SELECT COUNT(*) of `{table}` that gives up after `{seconds}`, which are `{milliseconds}`."""
    position: Callable[[Session, bool], str | None]
    """Return the instant's position in the binary log; the session's transaction began there, with writers held or not.
    """
    owner_marker: OwnerMarker
    oldest: Version
    too_old: str
    partitions_at_risk: bool
    """Whether a server that crashes within a RENAME can lose a partitioned table."""
    definer_rights: frozenset[str]
    """Rights needed, besides one to define for others, to create and drop stored objects of any account."""
    definer_advice: str
    definer_grant: str
    """Rights by which an account creates stored objects for others, in the syntax of GRANT."""
    session_rights: str
    """Rights to see and end the sessions of other accounts, in the syntax of GRANT."""
    own_findings: Callable[[Session, str, Version], list[Finding]]
    """Return conditions of only this product that would stop or spoil an operation on a database."""
    inner_tables: str
    """The view of InnoDB's own catalogue of tables."""
