"""`holdfast backup export`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from holdfast.cli.command import command
from holdfast.cli.leaving import REASON, UNSANITIZED, consent
from holdfast.cli.session import Session, common
from holdfast.errors import UsageError

if TYPE_CHECKING:
    from holdfast.application.application import App


@command(
    examples=[
        ("backup export /mnt/disk", "The latest whole backup, as plain files."),
        ("backup export --all /mnt/disk --unsanitized --reason 'copy for the safe'", "Every backup, in a cron job."),
        ("backup export --databases /mnt/disk", "A dump of each database as it is now."),
    ]
)
@click.argument("arguments", metavar="[ID] FOLDER", nargs=-1, required=True)
@click.option("--all", "all_", is_flag=True, help="All backups, instead of one.")
@click.option("--only", multiple=True, metavar="NAME", help="Only this dataset, `code` or `config` (may be repeated).")
@click.option("--databases", is_flag=True, help="Make a backup of the databases now, and write a plain dump of each.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["tar.gz", "folder"]),
    default="tar.gz",
    show_default=True,
    help="How to write a dataset of files.",
)
@UNSANITIZED
@REASON
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@common
def export(
    session: Session,
    arguments: tuple[str, ...],
    all_: bool,
    only: tuple[str, ...],
    databases: bool,
    format_: Literal["tar.gz", "folder"],
    unsanitized: bool,
    reason: str,
    dry_run: bool,
) -> None:
    """Write a backup as plain files into FOLDER/ID, to take it elsewhere; without an ID, the latest.

    Databases are in their engine's own format, files are tar archives or folders; SHA256SUMS lists their digests.
    With --databases, a new backup of the databases is made and written, without its compression where it has one.
    Production data leaves only after a question, or with --unsanitized and a --reason.
    """
    from holdfast.operations import export as operation

    if len(arguments) > 2 or (all_ and len(arguments) != 1):
        raise UsageError("export takes one ID or --all, and one FOLDER")
    if databases and (all_ or only or len(arguments) != 1):
        raise UsageError("--databases makes a backup of its own: it takes a FOLDER, and no ID, --all or --only")
    app = session.changing_app()
    if databases:
        _export_databases(session, app, arguments[0], unsanitized=unsanitized, reason=reason, dry_run=dry_run)
        return
    if len(arguments) == 1 and not all_ and operation.is_reference(app, arguments[0]):
        raise UsageError(
            f"{arguments[0]} is a backup; the folder is missing",
            next_step="Name both: holdfast backup export ID FOLDER",
        )
    reference = None if all_ else arguments[0] if len(arguments) == 2 else "latest"
    if not dry_run and operation.takes_data(app, only):
        reason = consent(session, app, "the data", unsanitized=unsanitized, reason=reason)
    plan = operation.plan(app, reference, arguments[-1], only=only, format=format_, reason=reason)
    session.run(app, plan, dry_run=dry_run)


def _export_databases(
    session: Session, app: App, folder: str, *, unsanitized: bool, reason: str, dry_run: bool
) -> None:
    """Make a backup of all databases, and export it."""
    from holdfast.operations import export as operation

    first = operation.plan_backup(app, folder)
    if dry_run:
        session.run(app, first, dry_run=True)
        return
    reason = consent(session, app, "the data", unsanitized=unsanitized, reason=reason)
    made = app.run(first, wait_seconds=app.loaded.configuration.backup.wait_seconds)
    id = made.facts["set_id"]
    session.renderer.line(f"backup {id}")
    plan = operation.plan(
        app, id, folder, only=tuple(app.loaded.configuration.databases), decompresses=True, reason=reason
    )
    session.run(app, plan)
