"""What reads a database for a sanitized dump. The server replaces the values, so that no raw one reaches Holdfast."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from holdfast.sanitize.deciding import DatabasePlan
from holdfast.sanitize.detector import Content
from holdfast.sanitize.output import Compression
from holdfast.sanitize.schema import Schema


class SanitizedDump(msgspec.Struct, frozen=True):
    """What was written."""

    rows: Mapping[str, int]
    size_bytes: int
    """Before the compression."""
    parts: tuple[Path, ...]
    """To be joined in this order."""


class Query(msgspec.Struct, frozen=True):
    """A statement that a dump runs for one table."""

    table: str
    sql: str


class Sanitizer(Protocol):
    """One database. Everything here reads it, in transactions that cannot write."""

    @property
    def extension(self) -> str:
        """Return the end of the dump's name, such as `sql`."""

    def quote(self, name: str) -> str:
        """Return a name as the engine's SQL has it."""

    def load_command(self, file: str) -> str:
        """Return the command that loads a dump with the engine's own client."""

    def schema(self) -> Schema:
        """Return the tables. Raise StepError."""

    def contents(self, schema: Schema) -> dict[str, Content]:
        """Return counts of what values look like, by `table.column`; the server looks at a bounded sample."""

    def queries(self, plan: DatabasePlan) -> list[Query]:
        """Return what would run, without the key."""

    def problems(self, plan: DatabasePlan) -> list[str]:
        """Return what the server finds wrong with the statements, which it reads without any row."""

    def preview(self, plan: DatabasePlan, table: str, rows: int, key: str) -> list[tuple[str | None, ...]]:
        """Return some rows of a table as they would leave."""

    def write(
        self,
        plan: DatabasePlan,
        key: str,
        folder: Path,
        compression: Compression,
        passed: Callable[[int], None],
        jobs: int,
    ) -> SanitizedDump:
        """Write the parts of a dump into a folder; `passed` gets the bytes as they are written.

        Raise RefusedError where a value leaves that must not, StepError, CancelledError.
        """


def unchanged(before: Schema, now: Schema) -> Sequence[str]:
    """Return what differs between the schema of a decision and the present one."""
    if before.fingerprint() == now.fingerprint():
        return ()
    known = {table.name for table in before.tables}
    return [table.name for table in now.tables if table.name not in known or before.table(table.name) != table] or [
        "a table is gone"
    ]
