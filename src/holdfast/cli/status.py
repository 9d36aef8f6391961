"""`holdfast status`."""

from __future__ import annotations

import re

import click

from holdfast.cli.command import command
from holdfast.cli.session import Session, common
from holdfast.cli.text import ago, local_time
from holdfast.errors import UsageError

_STAMP = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z\b")


def _in_words(stamp: re.Match[str]) -> str:
    return f"{local_time(stamp[0])} ({ago(stamp[0])})"


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
        session.renderer.line(f"{key:12} {_STAMP.sub(_in_words, value)}")
    session.renderer.result(report.data)
