"""The row guard, which finds what no exit code shows: rows per table after the stop and before the start."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.application.context import Opened
from holdfast.engine.runner import StepContext
from holdfast.errors import StepError
from holdfast.model import Facts


def count(opened: Opened, context: StepContext) -> None:
    budget = opened.loaded.configuration.guard.budget_seconds
    context.record(
        {
            "tables": {
                name: database.tables(budget_seconds=budget)
                for name, database in opened.databases.items()
                if database.inspect()["exists"]
            }
        }
    )


def compare(opened: Opened, context: StepContext) -> None:
    """Raise StepError if rows of a table vanished; a renamed table with equal columns and rows lost nothing."""
    earlier = context.earlier.get("guard.count", {})
    allowed = set(opened.loaded.configuration.guard.may_shrink)
    problems: list[str] = []
    warnings: list[str] = []
    budget = opened.loaded.configuration.guard.budget_seconds
    for name, before in earlier.get("tables", {}).items():
        after = opened.databases[name].tables(budget_seconds=budget)
        taken: set[str] = set()  # a new table can be the new name of at most one vanished table
        for table, facts in before.items():
            verdict = _vanished(table, facts, before, after, taken)
            if verdict is None:
                warnings.append(f"{name}.{table} was not counted: the time budget was used up")
            elif verdict and table not in allowed:
                problems.append(f"{name}.{table}: {verdict}")
    if warnings:
        context.record({"warnings": warnings})
        for warning in warnings:
            context.say(warning)
    if problems:
        tables = sorted({problem.split(":")[0].split(".", 1)[1] for problem in problems})
        quoted = ", ".join(f'"{table}"' for table in sorted({*tables, *allowed}))
        raise StepError(
            "rows vanished during the upgrade: " + "; ".join(problems),
            next_step="If that is intended, put this into holdfast.toml and upgrade again:\n"
            "  [guard]\n"
            f"  may_shrink = [{quoted}]",
        )


def _vanished(
    table: str, facts: Facts, before: Mapping[str, Facts], after: Mapping[str, Facts], taken: set[str]
) -> str | None:
    """Return what one table lost, empty if nothing; None if it could not be counted."""
    rows = facts["rows"]
    if rows is None or (table in after and after[table]["rows"] is None):
        return None
    if table in after:
        left = after[table]["rows"]
        return f"{rows} rows before, {left} after" if left < rows else ""
    if not rows:
        return ""
    for name, other in after.items():
        if name not in before and name not in taken and (other["rows"], other["columns"]) == (rows, facts["columns"]):
            taken.add(name)
            return ""
    return f"{rows} rows before, the table is gone"
