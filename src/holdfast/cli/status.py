"""`holdfast status`."""

from __future__ import annotations

import click

from holdfast.cli.session import Session, common


@click.command()
@common
def status(session: Session) -> None:
    """What runs, which release is current, the last backup, and what is open."""
    from holdfast.operations import status as operation

    app = session.app()
    report = operation.report(app)
    for key, value in report.lines:
        session.renderer.line(f"{key:12} {value}")
    session.renderer.result(report.data)
