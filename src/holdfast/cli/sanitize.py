"""`holdfast sanitize init | check | lock | rules | queries | preview`."""

from __future__ import annotations

import click

from holdfast.cli.command import group
from holdfast.cli.render import Column
from holdfast.cli.session import Session, common
from holdfast.cli.text import counted
from holdfast.errors import ConfigurationError, NotFoundError, RefusedError

_RULES = [
    Column("COLUMN", wraps=True),
    Column("TYPE", optional=True),
    Column("BECOMES", wraps=True),
    Column("WHY", wraps=True),
]


@group()
def sanitize() -> None:
    """Decide what sanitized backups contain: rules for each column, and a file that holds the decisions."""


@sanitize.command(examples=[("sanitize init", "Write a first draft of the rules, to be read and changed.")])
@common
def init(session: Session) -> None:
    """Write a first draft of the rules; an existing file is never replaced."""
    from holdfast.application import sanitizing
    from holdfast.reports import sanitizing as report

    app = session.app()
    path = sanitizing.rules_path(app.context)
    if path.exists():
        raise RefusedError(f"{path} exists", next_step="Change it; `holdfast sanitize check` says what is missing.")
    text = report.draft(app.context)
    path.write_text(text)
    session.renderer.line(f"{path}: {counted(text.count('[tables.'), 'table')} and columns to decide about")
    session.renderer.aside("Read every line of it, then run: holdfast sanitize check")
    session.renderer.result({"rules": str(path)})


@sanitize.command(
    examples=[
        ("sanitize check", "Does every column have a rule, and was every decision looked at?"),
        ("sanitize check -e production --json", "In a test of each change: a new column ends it with exit code 3."),
    ]
)
@common
def check(session: Session) -> None:
    """Compare rules, decisions and the live schema; read no row but counts. Exit code 3 names what is undecided."""
    from holdfast.application import sanitizing

    app = session.app()
    _, plans = sanitizing.ready(app.context)
    columns = sum(len(one.columns) for plan in plans.values() for one in plan.tables)
    tables = sum(len(plan.tables) for plan in plans.values())
    session.renderer.line(f"every column is decided: {counted(columns, 'column')} of {counted(tables, 'table')}")
    session.renderer.result({"columns": columns, "tables": tables})


@sanitize.command(examples=[("sanitize lock", "Keep the decisions that `sanitize rules` shows.")])
@common
def lock(session: Session) -> None:
    """Write the decisions into the file beside the rules, after you have looked at them."""
    from holdfast.application import sanitizing

    app = session.app()
    found = sanitizing.read_rules(app.context)
    made = sanitizing.decisions(app.context, found)
    if wrong := sanitizing.problems(app.context, made, locked=False):
        raise ConfigurationError(
            "the rules of sanitized backups do not cover everything",
            wrong,
            next_step=f"Add rules to {sanitizing.rules_path(app.context).name}, then run the command again.",
        )
    sanitizing.write_lock(app.context, made)
    path = sanitizing.lock_path(app.context)
    session.renderer.line(f"{path}: the decisions are kept; put it under version control with the rules")
    session.renderer.result({"lock": str(path)})


@sanitize.command(examples=[("sanitize rules", "What happens to each column, and why?")])
@click.argument("table", required=False)
@common
def rules(session: Session, table: str | None) -> None:
    """Show what each column becomes, and why."""
    from holdfast.reports import sanitizing as report

    app = session.app()
    found = report.rows(app.context, table)
    session.renderer.table(_RULES, [[one.place, one.type, one.becomes, one.why] for one in found], empty="No table.")
    session.renderer.result(
        {"columns": [{"column": one.place, "type": one.type, "becomes": one.becomes, "why": one.why} for one in found]}
    )


@sanitize.command(examples=[("sanitize queries", "The statements that a sanitized backup runs.")])
@common
def queries(session: Session) -> None:
    """Show the statements that the server would run. The key is in none of them."""
    from holdfast.reports import sanitizing as report

    app = session.app()
    found = report.queries(app.context)
    for name, one in found:
        session.renderer.line(f"-- {name}: {one.table}\n{one.sql};\n")
    session.renderer.result(
        {"queries": [{"database": name, "table": one.table, "sql": one.sql} for name, one in found]}
    )


@sanitize.command(examples=[("sanitize preview auth_user", "Five rows as they would leave.")])
@click.argument("table")
@click.option("--rows", type=click.IntRange(1, 100), default=5, show_default=True, help="How many.")
@common
def preview(session: Session, table: str, rows: int) -> None:
    """Show some rows of a table as they would leave; never the original values of columns with a rule."""
    from holdfast.reports import sanitizing as report

    app = session.app()
    names, found = report.preview(app.context, table, rows)
    if not names:
        raise NotFoundError(f"{table} has no rows in a sanitized backup")
    for number, row in enumerate(found, 1):
        session.renderer.line(f"-- row {number}")
        width = max(map(len, names))
        for name, value in zip(names, row, strict=True):
            session.renderer.line(f"{name:{width}}  {value if value is not None else 'NULL'}")
    session.renderer.result({"columns": names, "rows": [list(row) for row in found]})
