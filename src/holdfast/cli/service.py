"""`holdfast service status | stop | start | restart [NAME]`."""

from __future__ import annotations

from typing import Literal

import click
from msgspec.structs import asdict

from holdfast.cli.session import Session, common
from holdfast.cli.text import human_seconds


@click.group()
def service() -> None:
    """Show, stop, start and restart services."""


@service.command()
@common
def status(session: Session) -> None:
    """Show running and stopped services."""
    from holdfast.reports.status import with_stopped

    app = session.app()
    found, ended = with_stopped(app, app.context.runtime.statuses())
    session.renderer.table(
        ["SERVICE", "STATE", "PID", "UP"],
        [[item.name, item.detail, str(item.pid or "-"), human_seconds(item.uptime_seconds)] for item in found],
    )
    session.renderer.result({"services": [asdict(item) for item in found], "stopped": ended})


def _run(session: Session, action: Literal["stop", "start", "restart"], names: tuple[str, ...]) -> None:
    from holdfast.operations import service as operation

    app = session.changing_app()
    session.run(app, operation.plan(app, action, names))


@service.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@common
def stop(session: Session, names: tuple[str, ...]) -> None:
    """Stop services; they stay stopped, even after a reboot."""
    _run(session, "stop", names)


@service.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@common
def start(session: Session, names: tuple[str, ...]) -> None:
    """Start services and verify them."""
    _run(session, "start", names)


@service.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@common
def restart(session: Session, names: tuple[str, ...]) -> None:
    """Stop and start services, in order."""
    _run(session, "restart", names)
