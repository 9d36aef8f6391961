"""`status`: one look at the application."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from holdfast.app import App
from holdfast.errors import StepError
from holdfast.model import Outcome


@dataclass
class Report:
    lines: list[tuple[str, str]] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)


def report(app: App) -> Report:
    found = Report()
    application = app.loaded.configuration.application
    found.lines.append(
        ("application", f"{application.name}, {application.environment} ({app.loaded.environment_type})")
    )
    found.data["application"] = {"name": application.name, "environment": application.environment}
    release = app.opened.current_release()
    found.lines.append(
        ("release", f"{release.label} ({release.commit[:12]}), deployed {release.deployed_at}" if release else "none")
    )
    found.data["release"] = asdict(release) if release else None
    _operations(app, found)
    gate = app.opened.gate.state()
    words = (
        "open"
        if gate.open
        else f"closed ({'maintenance by the operator' if gate.hold is not None else 'by an operation'})"
    )
    found.lines.append(("gate", words))
    found.data["gate"] = {"open": gate.open, "hold": gate.hold, "operation": gate.operation}
    try:
        services = sorted(app.opened.runtime.statuses().values(), key=lambda item: item.name)
        nothing = "nothing runs"
    except StepError as error:
        services, nothing = [], error.what
    found.data["services"] = [asdict(item) for item in services]
    for item in services:
        found.lines.append(("service", f"{item.name}: {item.detail}"))
    if not services:
        found.lines.append(("service", nothing))
    _backups(app, found)
    return found


def _operations(app: App, found: Report) -> None:
    open_ones = []
    for record in app.journal.unfinished():
        if record.outcome is Outcome.STUCK:
            state = "stuck"
        else:
            state = "running" if record.owner.alive() else "interrupted"
        open_ones.append({"id": record.id, "title": record.title, "state": state, "error": record.error})
        advice = "" if state == "running" else "; type: holdfast recover"
        found.lines.append(("operation", f"{record.title}: {state} ({record.owner}){advice}"))
        if record.error:
            found.lines.append(("", record.error.splitlines()[0]))
    found.data["operations"] = open_ones


def _backups(app: App, found: Report) -> None:
    vault = app.opened.vault
    if vault is None:
        found.lines.append(("backup", "no vault is configured"))
        found.data["last_backup"] = None
        return
    sets = vault.backups()
    damaged = vault.damaged()
    if sets:
        last = sets[-1]
        found.lines.append(("backup", f"{len(sets)} sets, the last {last.id} ({last.consistency})"))
    else:
        found.lines.append(("backup", "none yet; type: holdfast backup create"))
    for name in damaged:
        found.lines.append(("", f"{name} is damaged; type: holdfast backup verify"))
    found.data["last_backup"] = sets[-1].id if sets else None
    found.data["damaged"] = damaged
