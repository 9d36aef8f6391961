"""`holdfast status`."""

from __future__ import annotations

import click

from holdfast.cli.session import Session, common
from holdfast.errors import UsageError


@click.command()
@click.option("--updates", is_flag=True, help="And what is newer than the current release: tags, commits, images.")
@click.option("--fetch", is_flag=True, help="With --updates: `git fetch --tags` in the source repository first.")
@common
def status(session: Session, updates: bool, fetch: bool) -> None:
    """What runs, which release is current, the last backup, and what is open."""
    from holdfast.reports import status as operation

    if fetch and not updates:
        raise UsageError("--fetch is for --updates", next_step="holdfast status --updates --fetch")
    app = session.app()
    report = operation.report(app)
    if updates:
        operation.updates(app, report, fetch=fetch)
    for key, value in report.lines:
        session.renderer.line(f"{key:12} {value}")
    session.renderer.result(report.data)
