"""`holdfast upgrade REF`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from holdfast.cli.command import command
from holdfast.cli.session import Session, common

if TYPE_CHECKING:
    from holdfast.operations.patches import Patches
    from holdfast.operations.provision import Provision


@command(
    examples=[
        ("upgrade v2 --dry-run", "Which steps, and how long would visitors wait?"),
        ("upgrade v2", "Upgrade; whatever fails is undone."),
        ("upgrade v2 --rolling", "Without the maintenance page."),
    ]
)
@click.argument("reference", metavar="REF")
@click.option(
    "--rolling",
    "mode",
    flag_value="rolling",
    help="Start the new version next to the old one, without maintenance; compatible migrations only.",
)
@click.option("--source", "mode", flag_value="source", help="Change only the code: no migration, no maintenance.")
@click.option(
    "--allow-incompatible",
    is_flag=True,
    help="With --rolling: even if the old code may not tolerate the migrations. The log shows what was allowed.",
)
@click.option("--no-backup", is_flag=True, help="Make no backup; --dry-run prints what an undo then loses.")
@click.option("--backup-except", multiple=True, metavar="DATASET", help="Leave a dataset out of the backup.")
@click.option("--may-shrink", multiple=True, metavar="TABLE", help="Allow that rows of a table vanish this time.")
@click.option("--end-backup", is_flag=True, help="End a running backup instead of waiting for it.")
@click.option("--again", is_flag=True, help="Upgrade even to the running release: build, migrate and start it again.")
@click.option("--skip-check-patches", is_flag=True, help="Leave the patches of the running release behind.")
@click.option("--reapply-patches", is_flag=True, help="Apply patches again that the new release does not contain.")
@click.option("--push/--no-push", default=None, help="Push the package to the registry, or do not.")
@click.option("--dry-run", is_flag=True, help="Print the plan with its commands; change nothing.")
@common
def upgrade(
    session: Session,
    reference: str,
    mode: Literal["rolling", "source"] | None,
    allow_incompatible: bool,
    no_backup: bool,
    backup_except: tuple[str, ...],
    may_shrink: tuple[str, ...],
    end_backup: bool,
    again: bool,
    skip_check_patches: bool,
    reapply_patches: bool,
    push: bool | None,
    dry_run: bool,
) -> None:
    """Upgrade to a tag, branch or commit.

    In maintenance mode (the default) visitors see the maintenance page while the data is migrated. A new version that
    fails or does not answer is undone: code, databases and files are as before.
    """
    from holdfast.cli.patch import what_becomes_of_patches
    from holdfast.errors import AlreadyThereError
    from holdfast.operations import patches, provision
    from holdfast.operations import upgrade as operation

    app = session.changing_app()
    provided: Provision | None = None
    becomes: Patches = "refuse"
    if patches.applied(app):
        provided = provision.building(app, reference, push=push)
        becomes = what_becomes_of_patches(session, app, provided, skip=skip_check_patches, reapply=reapply_patches)
    try:
        plan = operation.plan(
            app,
            reference,
            mode=mode or "maintenance",
            backup=not no_backup,
            backup_except=backup_except,
            again=again,
            may_shrink=may_shrink,
            allow_incompatible=allow_incompatible,
            provided=provided,
            patches=becomes,
            push=push,
        )
    except AlreadyThereError as error:
        session.renderer.line(str(error))
        session.renderer.result({"changed": False, "reason": error.what})
        return
    if end_backup and not dry_run and app.end_backup():
        session.renderer.aside("a running backup was asked to end")
    session.run(app, plan, dry_run=dry_run, wait_seconds=app.loaded.configuration.backup.wait_seconds)
