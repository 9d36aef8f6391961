"""The plans of `maintenance on | off`: the operator's own maintenance page, which no operation removes."""

from __future__ import annotations

import getpass
import time

from holdfast.application.application import App
from holdfast.engine.journal import utc_now
from holdfast.errors import RefusedError
from holdfast.model import Outcome, Plan
from holdfast.steps.gate import Announce, HoldGate


def plan(app: App, *, on: bool, duration_seconds: int | None = None, comment: str = "") -> Plan:
    hold: dict[str, object] | None = None
    if on:
        hold = {"since": utc_now(), "comment": comment, "by": getpass.getuser()}
        if duration_seconds is not None:
            hold["until"] = int(time.time()) + duration_seconds
    word = "on" if on else "off"
    notes = _holds_nobody(app) if on else _stays_closed(app)
    return Plan(
        kind=f"maintenance.{word}",
        title=f"maintenance {word}",
        lock="gate",
        steps=(HoldGate(hold),),
        barrier_paths=(str(app.loaded.state),),
        notes=notes,
    )


def plan_announcement(app: App, text: str) -> Plan:
    """Return the plan that shows users a text without holding them; without a text, the one that removes it.

    Raise RefusedError where no switch of the gate shows announcements.
    """
    if not any(item.announce for item in app.loaded.configuration.gate.switches.values()):
        raise RefusedError(
            "nothing shows announcements", next_step="Add `announce` to a [gate.switches.NAME] of kind yaml."
        )
    return Plan(
        kind="maintenance.announce",
        title="announce maintenance" if text else "remove the announcement",
        lock="gate",
        steps=(Announce(text),),
        barrier_paths=(str(app.loaded.state),),
    )


def _stays_closed(app: App) -> tuple[str, ...]:
    """Return a note for an operator after whose command an open operation still holds the gate."""
    holder = (app.context.gate.state().operation or {}).get("operation")
    for record in app.journal.unfinished():
        if record.id == holder:
            alive = record.outcome is not Outcome.STUCK and record.owner.alive()
            state = "runs and will open the gate at its end." if alive else "is open. Run: holdfast recover"
            return (f"Visitors still see the maintenance page: {record.title} {state}",)
    return ()


def _holds_nobody(app: App) -> tuple[str, ...]:
    """Return a note for an operator whose gate cannot hold visitors."""
    if app.loaded.configuration.gate.kind == "none":
        return ('Visitors are not held: gate.kind is "none", so they reach the application without a gate.',)
    if not app.context.gate.answers():
        return ("Visitors are not held yet: the gate is not running. It will hold them once it runs.",)
    return ()
