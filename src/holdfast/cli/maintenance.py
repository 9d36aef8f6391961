"""`holdfast maintenance on | off | status`."""

from __future__ import annotations

import click

from holdfast.cli.command import group
from holdfast.cli.session import Session, common
from holdfast.errors import UsageError


@group()
def maintenance() -> None:
    """Show visitors the maintenance page, or let them in."""


@maintenance.command(examples=[("maintenance on --duration 30m --comment 'New disks'", "Say for how long, and why.")])
@click.option("--duration", metavar="TIME", help="Expected duration, such as 30m: shown to visitors, not enforced.")
@click.option("--comment", default="", help="Text to show on the page.")
@common
def on(session: Session, duration: str | None, comment: str) -> None:
    """Show visitors the maintenance page until `maintenance off`; no operation opens the gate."""
    from holdfast.config.schema.section import seconds_of
    from holdfast.operations import maintenance as operation

    seconds = seconds_of(duration) if duration is not None else None
    if duration is not None and seconds is None:
        raise UsageError(f"{duration!r} is not a valid duration", next_step="Write it as 90s, 30m, 2h or 1d.")
    app = session.app()
    session.run(app, operation.plan(app, on=True, duration_seconds=seconds, comment=comment))


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
    """Print whether the gate is closed, by whom and since when."""
    app = session.app()
    state = app.context.gate.state()
    if state.open:
        session.renderer.line("open: visitors reach the application")
    if state.hold is not None:
        session.renderer.line(
            f"closed by {state.hold.get('by')} since {state.hold.get('since')}:"
            f" {state.hold.get('comment') or 'no comment'}"
        )
    if state.operation is not None:
        session.renderer.line(
            f"closed by operation {state.operation.get('operation')}: {state.operation.get('comment')}"
        )
    session.renderer.result(
        {"open": state.open, "hold": state.hold, "operation": state.operation, "release": state.release}
    )
