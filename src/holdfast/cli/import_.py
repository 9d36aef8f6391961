"""`holdfast import database | files`."""

from __future__ import annotations

import click

from holdfast.cli.session import Session, common


@click.group("import")
def import_() -> None:
    """Bring in a dump or files that another tool made."""


@import_.command()
@click.argument("source", metavar="FILE")
@click.option("--database", metavar="NAME", help="Which database, where the application has several.")
@click.option("--no-safety", is_flag=True, help="Without a backup of what is replaced.")
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@common
def database(session: Session, source: str, database: str | None, no_safety: bool, dry_run: bool) -> None:
    """Replace a database by a dump: plain SQL, pg_dump's custom, directory or tar format, or an SQLite file.

    The format and its compression (gzip, zstd, bzip2, xz) are told by the content. `-` reads the standard input. On any
    failure the earlier database is back.
    """
    from holdfast.operations import import_data as operation

    app = session.changing_app()
    plan = operation.plan_database(app, source, database=database, safety=not no_safety)
    if not dry_run:
        session.confirm("Replace the database?", plan.notes)
    session.run(app, plan, dry_run=dry_run, wait_seconds=app.loaded.configuration.backup.wait_seconds)


@import_.command()
@click.argument("source", metavar="ARCHIVE-OR-FOLDER")
@click.option("--into", required=True, metavar="DATASET[/SUBPATH]", help="Where the files go.")
@click.option("--replace", is_flag=True, help="Remove what is there and does not come in; default: merge.")
@click.option("--no-safety", is_flag=True, help="Without a backup of the present files first.")
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@common
def files(session: Session, source: str, into: str, replace: bool, no_safety: bool, dry_run: bool) -> None:
    """Bring a tar in its compressions, a zip or a folder into a dataset of files. `-` reads a tar from standard input."""
    from holdfast.operations import import_data as operation

    app = session.changing_app()
    plan = operation.plan_files(app, source, into, replace=replace, safety=not no_safety)
    if replace and not dry_run:
        session.confirm("Replace the files?", plan.notes)
    session.run(app, plan, dry_run=dry_run, wait_seconds=app.loaded.configuration.backup.wait_seconds)
