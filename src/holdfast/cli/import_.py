"""`holdfast import database | files`."""

from __future__ import annotations

from dataclasses import asdict

import click

from holdfast.cli.command import group
from holdfast.cli.render import Column
from holdfast.cli.session import Session, common
from holdfast.cli.text import human_bytes, local_minute, local_zone


@group("import")
def import_() -> None:
    """Import a dump or files that another tool made."""


@import_.command(
    examples=[
        ("import database shop.sql.gz --dry-run", "What would be done?"),
        ("import database shop.dump --database main", "Replace the database."),
    ]
)
@click.argument("source", metavar="FILE")
@click.option("--database", metavar="NAME", help="Target database, if the application has several.")
@click.option("--cold", is_flag=True, help="FILE is the data directory of a stopped PostgreSQL server.")
@click.option(
    "--scratch", default="/var/tmp", metavar="FOLDER", show_default=True, help="Folder in which --cold unpacks it."
)
@click.option("--no-safety", is_flag=True, help="Make no safety backup of the replaced data.")
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@common
def database(
    session: Session, source: str, database: str | None, cold: bool, scratch: str, no_safety: bool, dry_run: bool
) -> None:
    """Replace a database by a dump: plain SQL, pg_dump's custom, directory or tar format, or an SQLite file.

    The content shows the format and its compression (gzip, zstd, bzip2, xz). `-` reads the standard input. On any
    failure the earlier database is back. A bare name is also looked for in the folders of `import_from`.

    With --cold, FILE is an archive (tar, gzip, zstd, bzip2, xz) or a folder with a data directory that was copied after
    its server had been shut down. It is unpacked and served by a private server without network; the dump of that
    server is loaded.
    """
    from holdfast.operations import import_ as operation

    app = session.changing_app()
    plan = operation.plan_database(app, source, database=database, safety=not no_safety, cold=cold, scratch=scratch)
    if not dry_run:
        session.confirm("Replace the database?", plan.notes)
    session.run(app, plan, dry_run=dry_run, wait_seconds=app.loaded.configuration.backup.wait_seconds)


@import_.command("list", examples=[("import list --test", "Which dumps are there, and are they whole?")])
@click.option("--database", metavar="NAME", help="Only for this database.")
@click.option("--test", "tested", is_flag=True, help="Read each to its end, to verify its compression.")
@common
def list_(session: Session, database: str | None, tested: bool) -> None:
    """List dumps in the folders of `import_from`, oldest first."""
    from holdfast.operations import import_list as operation

    app = session.app()
    found = operation.found(app, database, test=tested)
    rows = [
        [
            item.name,
            item.database,
            local_minute(f"{item.at.replace(' ', 'T')}Z"),
            human_bytes(item.size_bytes),
            item.format,
            item.state,
        ]
        for item in found
    ]
    session.renderer.table(
        [
            Column("DUMP", wraps=True),
            "DATABASE",
            f"TIME ({local_zone()})",
            Column("SIZE", right=True),
            "FORMAT",
            Column("", wraps=True),
        ],
        rows,
        empty="There is no dump in the folders of `import_from`.",
    )
    session.renderer.result({"dumps": [asdict(item) for item in found]})


@import_.command(
    examples=[
        ("import files media.tar.gz --into media", "Add the files of an archive."),
        ("import files ./uploads --into media/uploads --replace", "Replace a folder."),
    ]
)
@click.argument("source", metavar="ARCHIVE-OR-FOLDER")
@click.option("--into", required=True, metavar="DATASET[/SUBPATH]", help="Dataset and folder that receive the files.")
@click.option("--replace", is_flag=True, help="Remove existing files that are not imported; default: merge.")
@click.option("--no-safety", is_flag=True, help="Make no safety backup of the present files.")
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@common
def files(session: Session, source: str, into: str, replace: bool, no_safety: bool, dry_run: bool) -> None:
    """Copy an archive (tar, compressed or not, or zip) or a folder into a dataset. `-` reads a tar from stdin."""
    from holdfast.operations import import_ as operation

    app = session.changing_app()
    plan = operation.plan_files(app, source, into, replace=replace, safety=not no_safety)
    if replace and not dry_run:
        session.confirm("Replace the files?", plan.notes)
    session.run(app, plan, dry_run=dry_run, wait_seconds=app.loaded.configuration.backup.wait_seconds)
