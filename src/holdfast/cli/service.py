"""`holdfast service status | stop | start | restart [NAME]`."""

from __future__ import annotations

from typing import Literal

import click
from msgspec.structs import asdict

from holdfast.cli.command import group
from holdfast.cli.render import Column
from holdfast.cli.session import Session, common
from holdfast.cli.text import human_seconds


@group()
def service() -> None:
    """Show, stop, start and restart services."""


@service.command(examples=[("service status", "What runs, and since when?")])
@common
def status(session: Session) -> None:
    """Show running and stopped services."""
    from holdfast.reports.status import with_stopped

    app = session.app()
    found, ended = with_stopped(app, app.context.runtime.statuses())
    session.renderer.table(
        ["SERVICE", Column("STATE", wraps=True), "HEALTH", Column("PID", right=True), Column("UP", right=True)],
        [
            [
                item.name,
                item.detail,
                {True: "healthy", False: "unhealthy", None: ""}[item.healthy],
                str(item.pid or "-"),
                human_seconds(item.uptime_seconds) if item.running else "-",
            ]
            for item in found
        ],
        empty="No service is running.",
    )
    session.renderer.result({"services": [asdict(item) for item in found], "stopped": ended})


def _run(session: Session, action: Literal["stop", "start", "restart"], names: tuple[str, ...]) -> None:
    from holdfast.operations import service as operation

    app = session.changing_app()
    session.run(app, operation.plan(app, action, names))


@service.command(examples=[("service stop", "All of them."), ("service stop mail", "One, with what depends on it.")])
@click.argument("names", metavar="[NAME]...", nargs=-1)
@common
def stop(session: Session, names: tuple[str, ...]) -> None:
    """Stop services; they stay stopped, even after a reboot."""
    _run(session, "stop", names)


@service.command(examples=[("service start", "What was stopped.")])
@click.argument("names", metavar="[NAME]...", nargs=-1)
@common
def start(session: Session, names: tuple[str, ...]) -> None:
    """Start services and verify them."""
    _run(session, "start", names)


@service.command(examples=[("service restart web", "One of them.")])
@click.argument("names", metavar="[NAME]...", nargs=-1)
@common
def restart(session: Session, names: tuple[str, ...]) -> None:
    """Stop and start services, in order."""
    _run(session, "restart", names)
