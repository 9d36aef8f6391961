"""The row guard, which finds what no exit code shows: rows per table after the stop and before the start."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import partial

import msgspec

from holdfast.application.context import ApplicationContext
from holdfast.drivers.protocols.databases import Database
from holdfast.drivers.protocols.datasets import Dataset
from holdfast.errors import HoldfastError, StepError
from holdfast.steps.typed import Context, StepFacts, TypedStep, WarningFacts

_AT_ONCE = 4  # databases whose rows are counted


class TableCount(msgspec.Struct, forbid_unknown_fields=True):
    """Rows and columns of a table; rows are None if it was not counted."""

    rows: int | None
    columns: list[str]


Counts = dict[str, TableCount]
"""The tables of a database by their names."""


class RowFacts(StepFacts):
    tables: dict[str, Counts] | None = None
    """The tables of each database."""


def _counted(application: ApplicationContext, database: Dataset) -> Counts:
    guard = application.loaded.configuration.guard
    found = msgspec.convert(database.tables(budget_seconds=guard.budget_seconds), Counts)
    for table in found.keys() & guard.count.keys():
        found[table].rows = _rows_of(database, table, guard.count[table])
    return found


def _rows_of(database: Dataset, table: str, query: str) -> int:
    """Return what a configured query counts. Raise StepError."""
    try:
        rows = database.query(query) if isinstance(database, Database) else []
        return int(rows[0][0])
    except (HoldfastError, IndexError, TypeError, ValueError) as error:
        raise StepError(
            f"the query of guard.count for {table} counts nothing: {error}",
            next_step="Correct it in [guard.count]; it must return one number.",
        ) from error


def _all_counted(application: ApplicationContext, names: Sequence[str]) -> dict[str, Counts]:
    """Return the rows of several databases, which are counted at the same time."""
    databases = [application.databases[name] for name in names]
    if len(names) < 2:
        return {name: _counted(application, one) for name, one in zip(names, databases, strict=True)}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(names, pool.map(partial(_counted, application), databases), strict=True))


class CountRows(TypedStep[RowFacts], frozen=True):
    """Count the rows of all tables while services are stopped."""

    name = "guard.count"

    @property
    def title(self) -> str:
        return "count rows"

    def do(self, application: ApplicationContext, context: Context[RowFacts]) -> None:
        present = [name for name, database in application.databases.items() if database.inspect()["exists"]]
        context.facts.tables = _all_counted(application, present)
        context.record()


class CompareRows(TypedStep[WarningFacts], frozen=True):
    """Compare the rows with those that were counted before the migration."""

    name = "guard.compare"

    may_shrink: tuple[str, ...] = ()
    """The tables that may shrink in this upgrade alone."""

    @property
    def title(self) -> str:
        return "compare rows"

    def do(self, application: ApplicationContext, context: Context[WarningFacts]) -> None:
        """Raise StepError if rows of a table vanished; a renamed table with equal columns and rows lost nothing."""
        earlier = context.facts_of(CountRows)
        problems: list[tuple[str, str, str]] = []
        warnings: list[str] = []
        counted_before = (earlier.tables if earlier is not None else None) or {}
        counted_after = _all_counted(application, list(counted_before))
        for name, before in counted_before.items():
            after = counted_after[name]
            taken: set[str] = set()  # a new table can be the new name of at most one vanished table
            for table, counted in before.items():
                verdict = _vanished(table, counted, before, after, taken)
                if verdict is None:
                    warnings.append(f"{name}.{table} was not counted{_why(counted)}")
                elif verdict and not self._allows(application, table, counted, after):
                    problems.append((name, table, verdict))
        if warnings:
            context.facts.warnings = warnings
            context.record()
            for warning in warnings:
                context.say(warning)
        if problems:
            raise _rows_vanished(problems, application.loaded.configuration.guard.may_shrink)

    def _allows(self, application: ApplicationContext, table: str, counted: TableCount, after: Counts) -> bool:
        """Return whether a table may lose what it lost."""
        configured = application.loaded.configuration.guard
        if any(fnmatchcase(table, pattern) for pattern in (*configured.may_shrink, *self.may_shrink)):
            return True
        left = after[table].rows if table in after else None
        return left is not None and left >= (counted.rows or 0) * (1 - configured.share(table))


def _why(counted: TableCount) -> str:
    """Return why a table was not counted; one whose columns nobody but the application knows is never counted."""
    return ": the time budget was used up" if counted.columns else ": only the application can read it"


def _rows_vanished(problems: Sequence[tuple[str, str, str]], allowed: Sequence[str]) -> StepError:
    """Return the error for tables that lost rows, each with its database and what it lost."""
    tables = {table for _, table, _ in problems}
    quoted = ", ".join(f'"{table}"' for table in sorted({*tables, *allowed}))
    return StepError(
        "rows vanished during the upgrade: "
        + "; ".join(f"{database}.{table}: {verdict}" for database, table, verdict in problems),
        next_step="If that is intended, upgrade again with"
        f" {' '.join(f'--may-shrink {shlex.quote(table)}' for table in sorted(tables))}.\n"
        "For every upgrade, put this into holdfast.toml:\n"
        "  [guard]\n"
        f"  may_shrink = [{quoted}]",
    )


def _vanished(table: str, counted: TableCount, before: Counts, after: Counts, taken: set[str]) -> str | None:
    """Return what one table lost, empty if nothing; None if it could not be counted."""
    rows = counted.rows
    if rows is None:
        return None
    if table in after:
        left = after[table].rows
        if left is None:
            return None
        return f"{rows} rows before, {left} after" if left < rows else ""
    if not rows:
        return ""
    for name, other in after.items():
        if name not in before and name not in taken and (other.rows, other.columns) == (rows, counted.columns):
            taken.add(name)
            return ""
    return f"{rows} rows before, the table is gone"
