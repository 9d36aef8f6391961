"""`holdfast status`."""

from __future__ import annotations

import click

from holdfast.cli.command import command
from holdfast.cli.session import Session, common
from holdfast.cli.text import local_times
from holdfast.errors import UsageError


@command(examples=[("status", "Is everything well?"), ("status --updates --fetch", "Which newer releases are there?")])
@click.option(
    "--updates", is_flag=True, help="Also list what is newer than the current release: tags, commits, images."
)
@click.option("--fetch", is_flag=True, help="With --updates: run `git fetch --tags` in the source repository first.")
@common
def status(session: Session, updates: bool, fetch: bool) -> None:
    """Show services, the current release, the last backup and open operations."""
    from holdfast.reports import status as operation

    if fetch and not updates:
        raise UsageError("--fetch needs --updates", next_step="Run: holdfast status --updates --fetch")
    app = session.app()
    report = operation.report(app)
    if updates:
        operation.updates(app, report, fetch=fetch)
    for key, value in report.lines:
        session.renderer.line(f"{key:12} {local_times(value)}")
    session.renderer.result(report.data)
