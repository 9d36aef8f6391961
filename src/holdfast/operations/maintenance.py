"""The plans of `maintenance on | off`: the operator's own maintenance page, which no operation removes."""

from __future__ import annotations

import getpass
import time

from holdfast.application.application import App
from holdfast.engine.journal import utc_now
from holdfast.errors import RefusedError, UsageError
from holdfast.model import Outcome, Plan, PlannedStep
from holdfast.steps import services
from holdfast.steps.gate import Announce, HoldGate
from holdfast.steps.service_steps import CommandServices

_LONGEST_SECONDS = 3660 * 86400


def plan(app: App, *, on: bool, duration_seconds: int | None = None, comment: str = "", web_only: bool = False) -> Plan:
    """Return the plan that shows visitors the page and stops what works in the background, or the opposite.

    The web keeps running, so that the operator can look at it. Raise UsageError.
    """
    word = "on" if on else "off"
    notes = _holds_nobody(app) if on else _stays_closed(app)
    busy = _busy(app)
    names: tuple[str, ...] = ()
    if not (on and web_only):
        names = _background(app, on=on)
    if names and busy:
        keep = "keep running" if on else "stay stopped; start them with `holdfast service start`"
        notes += (f"{', '.join(names)} {keep}: {busy} controls the services.",)
        names = ()
    steps: list[PlannedStep] = []
    if names:
        steps.append(CommandServices("stop" if on else "start", names))
    hold = _hold(app, duration_seconds, comment, names) if on else None
    steps.append(HoldGate(hold))
    return Plan(
        kind=f"maintenance.{word}",
        title=f"maintenance {word}",
        lock="change" if names else "gate",
        also_locks=("gate",) if names else (),
        steps=tuple(steps if not on else reversed(steps)),
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


def _hold(app: App, duration_seconds: int | None, comment: str, names: tuple[str, ...]) -> dict[str, object]:
    hold: dict[str, object] = {"since": utc_now(), "comment": comment, "by": getpass.getuser()}
    if duration_seconds is not None:
        if not 0 < duration_seconds <= _LONGEST_SECONDS:
            raise UsageError("the duration is not between one second and ten years")
        hold["until"] = int(time.time()) + duration_seconds
    if stopped := list(dict.fromkeys([*_stopped_before(app), *names])):
        hold["services"] = stopped
    return hold


def _stopped_before(app: App) -> list[str]:
    """Return the services that an earlier `maintenance on` has stopped."""
    found = (app.context.gate.state().hold or {}).get("services")
    return [str(name) for name in found] if isinstance(found, list) else []


def _background(app: App, *, on: bool) -> tuple[str, ...]:
    """Return what works in the background: all that runs, to stop it, or what was stopped and still exists."""
    wanted = services.wanted(app.context)
    if on:
        return tuple(item.service for item in wanted if item.kind in services.BEHIND)
    running = {item.service for item in wanted}
    known = app.loaded.configuration.running_services()
    return tuple(name for name in _stopped_before(app) if name in known and name not in running)


def _busy(app: App) -> str:
    """Return what controls the services now, so that this command leaves them alone; empty if nothing does."""
    for record in app.journal.unfinished():
        if record.lock == "change" or record.outcome is Outcome.STUCK or not record.owner.alive():
            return record.title
    return ""


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
