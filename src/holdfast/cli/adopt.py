"""`holdfast adopt [REF]`."""

from __future__ import annotations

import click

from holdfast.cli.command import command
from holdfast.cli.session import Session, common


@command(
    examples=[
        ("adopt --dry-run", "What would be taken over?"),
        ("adopt v25.09", "Take over what runs; it was built from v25.09."),
    ]
)
@click.argument("reference", metavar="[REF]", default="HEAD")
@click.option("--dry-run", is_flag=True, help="Print the plan with its commands; change nothing.")
@common
def adopt(session: Session, reference: str, dry_run: bool) -> None:
    """Take over a project whose containers are running: their images and the sources of REF become the first release.

    REF is the commit that the images were built from; by default the one that the repository has checked out.
    """
    from holdfast.operations import adopt as operation

    app = session.changing_app()
    plan = operation.plan(app, reference)
    session.run(app, plan, dry_run=dry_run)
