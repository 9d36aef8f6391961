"""`holdfast rollback`."""

from __future__ import annotations

import click

from holdfast.cli.command import command
from holdfast.cli.session import Session, common


@command(
    examples=[
        ("rollback --dry-run", "Can the old code run on the present data?"),
        ("rollback --to v1", "Go back further."),
        ("rollback --discard-writes-since 2026-11-20T08:25:12Z", "With the data of then."),
    ]
)
@click.option("--to", metavar="RELEASE", help="A kept release by id, label or commit; default: the previous one.")
@click.option(
    "--discard-writes-since", metavar="TIME", help="Go back with the data of that time, which the refusal prints."
)
@click.option(
    "--keep-data",
    is_flag=True,
    help="Change only the code, even if the schema changed and no migrations are configured.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan with its commands; change nothing.")
@common
def rollback(
    session: Session, to: str | None, discard_writes_since: str | None, keep_data: bool, dry_run: bool
) -> None:
    """Go back to the previous release.

    If its code knows all applied migrations, only the code changes. Otherwise the rollback is refused with a list of
    later writes; the data of that time comes back only with --discard-writes-since, after a safety backup of the
    present data.
    """
    from holdfast.operations import rollback as operation

    app = session.changing_app()
    plan = operation.plan(app, to=to, discard_writes_since=discard_writes_since, keep_data=keep_data)
    if discard_writes_since and not dry_run:
        session.confirm("Go back with the earlier data?", plan.notes)
    session.run(app, plan, dry_run=dry_run, wait_seconds=app.loaded.configuration.backup.wait_seconds)
