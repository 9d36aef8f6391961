"""What MariaDB and MySQL each have of their own, as values and functions that the mechanism they share is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from holdfast.drivers.databases.sql.session import Session

Finding = tuple[str, str, str]
"""Severity, message, advice."""
Version = tuple[int, int]


class OwnerMark(Protocol):
    """Where the server keeps whose a database is, and what else it says of a database beside its character set."""

    def read(self, session: Session, database: str, own_place: str) -> str | None:
        """None where nobody claimed it, or there is no such database."""

    def write(self, session: Session, database: str, own_place: str, owner: str) -> None:
        """Leaves an earlier mark as it is. Does nothing where there is no such database."""

    def properties(self, session: Session, database: str) -> str:
        """Return words of CREATE and ALTER DATABASE that follow its character set; the mark is none of them."""

    def kept(self, session: Session, database: str, properties: str) -> str:
        """Return the same words, by which a database that is altered keeps its mark."""


@dataclass(frozen=True)
class Dialect:
    product: str
    client: str
    dumper: str
    dumper_words: tuple[str, ...]
    """What every call of the dump program is given."""
    rows_on_lines: bool
    """Whether the dump program begins a line with every row, rather than with every statement."""
    opening: str
    """Settings of a session, beside those that both know."""
    loading: str
    """Settings for what loads a dump of Holdfast's, the same way."""
    counting: str
    """A SELECT COUNT(*) of `{table}` that gives up after `{seconds}`, which are `{milliseconds}`."""
    position: Callable[[Session, bool], str | None]
    """Where the instant is in the binary log; the session's transaction began there, and writers are held or not."""
    owner_mark: OwnerMark
    oldest: Version
    too_old: str
    partitions_at_risk: bool
    """Whether a server that dies within a RENAME can lose a partitioned table."""
    definer_rights: frozenset[str]
    """Rights needed beside one to define for others, to make and drop programs of any account."""
    definer_advice: str
    definer_grant: str
    """Rights by which an account makes programs for others, as GRANT takes them."""
    session_rights: str
    """Rights to see and end the sessions of other accounts, as GRANT takes them."""
    own_findings: Callable[[Session, str, Version], list[Finding]]
    """What of this product alone would stop or spoil an operation on a database."""
