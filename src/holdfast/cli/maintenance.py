"""`holdfast maintenance on | off | status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdfast.cli.command import group
from holdfast.cli.session import Session, common
from holdfast.cli.text import local_times
from holdfast.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from holdfast.application.application import App


@group()
def maintenance() -> None:
    """Show visitors the maintenance page, or let them in."""


@maintenance.command(
    examples=[
        ("maintenance on --for 1d2h30m --comment 'New disks'", "Say for how long, and why."),
        ("maintenance on --web-only", "Hold visitors; workers go on."),
    ]
)
@click.option(
    "--for",
    "--duration",
    "duration",
    metavar="TIME",
    help="Expected duration, such as 30m or 1d2h30m: shown to visitors, reported when it is over, not enforced.",
)
@click.option("--comment", default="", help="Text to show on the page.")
@click.option("--web-only", is_flag=True, help="Leave workers, schedulers and websocket servers running.")
@common
def on(session: Session, duration: str | None, comment: str, web_only: bool) -> None:
    """Show visitors the maintenance page until `maintenance off`; no operation opens the gate.

    Workers, schedulers and websocket servers are stopped meanwhile. The web runs on, for whom you give the link to.
    """
    from holdfast.config.schema.section import seconds_of
    from holdfast.operations import maintenance as operation

    seconds = seconds_of(duration) if duration is not None else None
    if duration is not None and seconds is None:
        raise UsageError(f"{duration!r} is not a valid duration", next_step="Write it as 90s, 30m, 2h or 1d2h30m.")
    app = session.app()
    session.run(app, operation.plan(app, on=True, duration_seconds=seconds, comment=comment, web_only=web_only))
    _bypass(session, app)


@maintenance.command(examples=[("maintenance off", "Let visitors in.")])
@common
def off(session: Session) -> None:
    """Let visitors in again, unless an operation closed the gate."""
    from holdfast.operations import maintenance as operation

    app = session.app()
    session.run(app, operation.plan(app, on=False))


@maintenance.command(
    examples=[
        ("maintenance announce 'New disks tonight at 22:00'", "Warn users; nobody is held."),
        ("maintenance announce --clear", "Remove the announcement."),
    ]
)
@click.argument("text", metavar="[TEXT]", required=False)
@click.option("--clear", is_flag=True, help="Remove the announcement.")
@common
def announce(session: Session, text: str | None, clear: bool) -> None:
    """Show users a text in the application, by the keys `announce` of the gate's switches."""
    from holdfast.operations import maintenance as operation

    if bool(text) == clear:
        raise UsageError("give a text, or --clear")
    app = session.app()
    session.run(app, operation.plan_announcement(app, text or ""))


@maintenance.command(examples=[("maintenance status", "Who closed the gate?")])
@common
def status(session: Session) -> None:
    """Print whether the gate is closed, by whom and since when.

    Exit code 4: it is closed for longer than was said.
    """
    from holdfast.reports.maintenance import status_of

    app = session.app()
    state = app.context.gate.state()
    if state.open:
        session.renderer.line("open: visitors reach the application")
    hold = status_of(state.hold) if state.hold is not None else None
    if hold is not None:
        session.renderer.line(local_times(hold.text))
        _bypass(session, app)
    if state.operation is not None:
        session.renderer.line(
            f"closed by operation {state.operation.get('operation')}: {state.operation.get('comment')}"
        )
    code = RefusedError.exit_code if hold is not None and hold.overdue_seconds else 0
    session.renderer.result(
        {
            "open": state.open,
            "hold": state.hold,
            "operation": state.operation,
            "release": state.release,
            "overdue_seconds": hold.overdue_seconds if hold is not None else 0,
        },
        exit_code=code,
    )
    if code:
        raise SystemExit(code)


def _bypass(session: Session, app: App) -> None:
    """Say how the operator reaches the application while visitors are held."""
    token = app.context.gate.state().preview_token
    if token is None or not session.renderer.to_person:
        return
    if app.loaded.configuration.gate.kind == "front":
        session.renderer.aside(f"To look at the application meanwhile, open /.holdfast/bypass/{token} there.")
    else:
        session.renderer.aside(f"To look at the application meanwhile, send the cookie holdfast_preview={token}.")
