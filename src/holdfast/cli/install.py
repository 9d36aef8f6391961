"""`holdfast install REF`."""

from __future__ import annotations

import click

from holdfast.cli.command import command
from holdfast.cli.session import Session, common


@command(examples=[("install v1 --dry-run", "What would be done?"), ("install v1", "Build and start the tag v1.")])
@click.argument("reference", metavar="REF")
@click.option("--wipe", is_flag=True, help="Wipe existing data first (never in production; a backup is made).")
@click.option(
    "--again",
    is_flag=True,
    help="Like --wipe where the application is installed; else like neither (not in production).",
)
@click.option("--push/--no-push", default=None, help="Push the package to the registry, or do not.")
@click.option("--dry-run", is_flag=True, help="Print the plan with its commands; change nothing.")
@common
def install(session: Session, reference: str, wipe: bool, again: bool, push: bool | None, dry_run: bool) -> None:
    """Install for the first time: build the package, unpack the release, run the install task, start the services.

    An installed application is refused. With --wipe, all data is replaced by that of a new installation; if it fails,
    the earlier release and its data are back.
    """
    from holdfast.operations import install as operation

    app = session.changing_app()
    wipe = wipe or (again and app.context.current_release() is not None)
    plan = operation.plan(app, reference, wipe=wipe, push=push)
    if wipe and not dry_run:
        session.confirm("Replace all data of this environment?", plan.notes)
    session.run(app, plan, dry_run=dry_run, wait_seconds=app.loaded.configuration.backup.wait_seconds)
