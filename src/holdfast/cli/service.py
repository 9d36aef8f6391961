"""`holdfast service status | logs NAME | stop | start | restart [KIND|NAME]...`."""

from __future__ import annotations

from typing import Literal

import click
from msgspec.structs import asdict

from holdfast.cli.command import group
from holdfast.cli.render import Column
from holdfast.cli.session import Session, common
from holdfast.cli.text import human_seconds, local_times, whole_lines
from holdfast.errors import RefusedError, UsageError


@group()
def service() -> None:
    """Show services and their output; stop, start and restart them."""


@service.command(
    examples=[("service status", "What runs, and since when?"), ("service status consumer", "Only services of a kind.")]
)
@click.argument("names", metavar="[KIND|NAME]...", nargs=-1)
@common
def status(session: Session, names: tuple[str, ...]) -> None:
    """Show running and stopped services.

    Exit code 4: one that should run does not, or is not healthy.
    """
    from holdfast.operations.service import chosen
    from holdfast.reports.health import with_health
    from holdfast.reports.status import down, with_stopped
    from holdfast.steps.stopped import service_of

    app = session.app()
    wanted = chosen(app, names)
    statuses = with_health(app, app.context.runtime.statuses())
    found, ended = with_stopped(app, statuses)
    if wanted:
        found = [item for item in found if service_of(app.context, item.name) in wanted]
        ended = [item for item in ended if item["service"] in wanted]
    session.renderer.table(
        ["SERVICE", Column("STATE", wraps=True), "HEALTH", Column("PID", right=True), Column("UP", right=True)],
        [
            [
                item.name,
                local_times(item.detail),
                {True: "healthy", False: "not healthy", None: ""}[item.healthy],
                str(item.pid or "-"),
                human_seconds(item.uptime_seconds) if item.running else "-",
            ]
            for item in found
        ],
        empty="No service is running.",
    )
    code = RefusedError.exit_code if set(down(app, statuses)) & set(wanted or down(app, statuses)) else 0
    session.renderer.result({"services": [asdict(item) for item in found], "stopped": ended}, exit_code=code)
    if code:
        raise SystemExit(code)


@service.command(
    examples=[
        ("service logs web", "The last lines."),
        ("service logs web -f", "And what comes, until Ctrl-C."),
        ("service logs web --since 10m", "Of the last ten minutes (containers)."),
    ]
)
@click.argument("name", metavar="NAME")
@click.option("-f", "--follow", is_flag=True, help="Go on with what the service prints, until Ctrl-C.")
@click.option("--since", metavar="TIME", help="Only what is newer than this, such as 10m; for services in containers.")
@click.option(
    "-n", "--lines", metavar="LINES", type=click.IntRange(min=0), default=100, show_default=True, help="How many lines."
)
@common
def logs(session: Session, name: str, follow: bool, since: str | None, lines: int) -> None:
    """Show what a service printed.

    NAME is a service, the front, or one instance, such as that of a release that was undone.
    """
    from holdfast.application import known_secrets
    from holdfast.config.schema.section import seconds_of
    from holdfast.reports.service_output import chosen

    seconds = seconds_of(since) if since is not None else None
    if since is not None and seconds is None:
        raise UsageError(f"{since!r} is not a valid duration", next_step="Write it as 90s, 30m, 2h or 1d.")
    if follow and session.renderer.as_json:
        raise UsageError("--follow and --json contradict each other")
    app = session.app()
    for reference in known_secrets.mask(app.context):
        session.renderer.aside(f"warning: {reference} cannot be read now, so it is not masked here")
    runtime, instance, others = chosen(app, name)
    if others and session.renderer.to_person:
        session.renderer.aside(f"{instance}; also kept: {', '.join(others)}")
    said: list[str] = []
    printed = False
    for line in whole_lines(runtime.output(instance, lines=lines, since_seconds=seconds, follow=follow)):
        printed = True
        session.renderer.line(app.context.host.redactor.text(line), whole=True)
        said += [app.context.host.redactor.text(line)] if session.renderer.as_json else []
    if not printed and session.renderer.to_person:
        session.renderer.aside(f"{instance} has printed nothing.")
    session.renderer.result({"service": name, "instance": instance, "others": others, "lines": said})


def _run(session: Session, action: Literal["stop", "start", "restart"], names: tuple[str, ...]) -> None:
    from holdfast.operations import service as operation

    app = session.changing_app()
    session.run(app, operation.plan(app, action, names))


@service.command(examples=[("service stop", "All of them."), ("service stop mail", "One, with what depends on it.")])
@click.argument("names", metavar="[KIND|NAME]...", nargs=-1)
@common
def stop(session: Session, names: tuple[str, ...]) -> None:
    """Stop services; they stay stopped, even after a reboot."""
    _run(session, "stop", names)


@service.command(examples=[("service start", "What was stopped.")])
@click.argument("names", metavar="[KIND|NAME]...", nargs=-1)
@common
def start(session: Session, names: tuple[str, ...]) -> None:
    """Start services and verify them."""
    _run(session, "start", names)


@service.command(examples=[("service restart web", "One of them.")])
@click.argument("names", metavar="[KIND|NAME]...", nargs=-1)
@common
def restart(session: Session, names: tuple[str, ...]) -> None:
    """Stop and start services, in order."""
    _run(session, "restart", names)
