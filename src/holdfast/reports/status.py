"""The report of `status`: a summary of the application."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Required, TypedDict, cast

import msgspec
from msgspec.structs import asdict

from holdfast.application import stale_indices, whole_backups
from holdfast.application.application import App
from holdfast.drivers.protocols.containers import ImageKeeping
from holdfast.engine.records import OperationRecord
from holdfast.errors import NotFoundError, StepError
from holdfast.model import GateState, JsonObject, Outcome, Release, ServiceStatus, StepState
from holdfast.reports.health import with_health
from holdfast.reports.maintenance import status_of
from holdfast.steps import services, stopped


class Report(msgspec.Struct):
    lines: list[tuple[str, str]] = msgspec.field(default_factory=list)
    data: JsonObject = msgspec.field(default_factory=dict)


def report(app: App) -> Report:
    found = Report()
    application = app.loaded.configuration.application
    found.lines.append(
        ("application", f"{application.name}, {application.environment} ({app.loaded.environment_type})")
    )
    found.data["application"] = {"name": application.name, "environment": application.environment}
    release = app.context.current_release()
    found.lines.append(
        ("release", f"{release.label} ({release.commit[:12]}), deployed {release.deployed_at}" if release else "none")
    )
    found.data["release"] = asdict(release) if release else None
    _operations(app, found)
    gate = app.context.gate.state()
    runs = not gate_is_down(app)
    found.lines.append(("gate", _gate_text(gate) if runs else "not running; visitors get no answer"))
    found.data["gate"] = {"open": gate.open, "hold": gate.hold, "operation": gate.operation, "runs": runs}
    try:
        statuses: dict[str, ServiceStatus] | None = with_health(app, app.context.runtime.statuses())
        nothing = "no service is running"
    except StepError as error:
        statuses, nothing = None, error.what
    listed, ended = with_stopped(app, statuses)
    if statuses is None or not listed:
        found.lines.append(("service", nothing))
    found.data["services"], found.data["stopped"] = [asdict(item) for item in listed], ended
    for item in listed:
        health = {True: ", healthy", False: ", not healthy", None: ""}[item.healthy]
        found.lines.append(("service", f"{item.name}: {item.detail}{health}"))
    if release is None and not app.journal.unfinished():
        found.lines.append(
            ("run", f"holdfast {'adopt, or holdfast ' if app.context.runtime.takes_over else ''}install REF")
        )
    if not app.journal.unfinished() and statuses is not None and not_running(app):
        found.lines.append(("run", "holdfast recover --auto"))
    _backups(app, found)
    outdated = stale_indices.stale(app.loaded)
    for name in outdated:
        found.lines.append(("index", f"{name} is out of date; run: holdfast index rebuild {name}"))
    found.data["stale_indices"] = outdated
    return found


def _gate_text(gate: GateState) -> str:
    if gate.open:
        return "open"
    return status_of(gate.hold).text if gate.hold is not None else "closed (by an operation)"


def gate_is_down(app: App) -> bool:
    """Return whether the gate has a server of its own that does not run; a proxy of the operator's is not asked."""
    return app.context.gate.instance() is not None and not app.context.gate.answers()


def not_running(app: App) -> list[str]:
    """Return what should run now and does not: the gate's own server, and services. Raise StepError."""
    if app.context.current_release() is None:
        return []
    server = app.context.gate.instance()
    gate = [server.name] if server is not None and gate_is_down(app) else []
    ended = stopped.stopped(app.context, app.context.runtime.statuses())
    return [*gate, *(item.service for item in ended if item.should_run)]


def down(app: App, statuses: Mapping[str, ServiceStatus]) -> list[str]:
    """Return the services that should run now and do not, or are not healthy."""
    found = []
    for instance in services.wanted(app.context):
        status = statuses.get(instance.name)
        if status is None or not status.running or status.healthy is False:
            found.append(instance.service)
    return found


def with_stopped(
    app: App, statuses: Mapping[str, ServiceStatus] | None
) -> tuple[list[ServiceStatus], list[JsonObject]]:
    """Return running services and then stopped ones, and who stopped the latter as data for programs."""
    ended = stopped.stopped(app.context, statuses)
    running = sorted((statuses or {}).values(), key=lambda item: item.name)
    return [*running, *(item.status for item in ended)], [asdict(item) for item in ended]


def _operations(app: App, found: Report) -> None:
    open_ones = []
    for record in app.journal.unfinished():
        if record.outcome is Outcome.STUCK:
            state = "stuck"
        else:
            state = "running" if record.owner.alive() else "interrupted"
        step = _present_step(app, record)
        open_ones.append({"id": record.id, "title": record.title, "state": state, "error": record.error, "step": step})
        process = f" (process {record.owner.pid})" if state == "running" else ""
        found.lines.append(("operation", f"{record.title}: {state}{process}"))
        found.lines.append(("begun", record.started_at))
        if step is not None and state == "running":
            undo = "undo of " if step["undo"] else ""
            found.lines.append(("step", f"{step['position']} of {step['total']}: {undo}{step['title']}"))
            found.lines.append(("progress", f"{step['percent']} %"))
        if record.error:
            found.lines.append(("", record.error.splitlines()[0]))
        if state != "running":
            found.lines.append(("run", "holdfast recover"))
    found.data["operations"] = open_ones


class PresentStep(TypedDict):
    """The step at which an open operation is; `percent` is how much of the steps' usual time is over."""

    position: int
    total: int
    title: str
    undo: bool
    percent: int


def _present_step(app: App, record: OperationRecord) -> PresentStep | None:
    steps = app.journal.steps(record.id)
    undone = [step for step in steps if step.state in (StepState.UNDOING, StepState.UNDONE)]
    begun = [step for step in steps if step.state is not StepState.PENDING]
    if not begun:
        return None
    undoing = [step for step in undone if step.state is StepState.UNDOING]
    present = undoing[0] if undoing else undone[0] if undone else begun[-1]
    typical = [app.journal.typical_seconds(step.name, step.title) for step in steps]
    weights = [seconds if seconds is not None else 0.0 for seconds in typical]
    if None in typical or not sum(weights):
        weights = [1.0] * len(steps)
    is_over = present.state in (StepState.DONE, StepState.UNDONE)
    over = sum(weights[: present.position + (1 if is_over and not undone else 0)])
    return {
        "position": present.position + 1,
        "total": len(steps),
        "title": present.title,
        "undo": bool(undone),
        "percent": round(100 * over / sum(weights)),
    }


def _backups(app: App, found: Report) -> None:
    vault = app.context.vault
    if vault is None:
        found.lines.append(("backup", "no vault is configured"))
        found.data["last_backup"] = None
        return
    sets = vault.backups()
    damaged = vault.damaged()
    whole = whole_backups.whole(app.loaded, [backup for backup in sets if not backup.safety])
    count = f"{len(sets)} backup{'s' if len(sets) != 1 else ''}"
    if whole:
        last = whole[-1]
        found.lines.append(("backup", f"{count}, the last whole one {last.id} ({last.consistency})"))
    elif sets:
        found.lines.append(("backup", f"{count}, none of them whole; run: holdfast backup create"))
    else:
        found.lines.append(("backup", "none yet; run: holdfast backup create"))
    for name in damaged:
        found.lines.append(("", f"{name} is damaged; run: holdfast backup verify"))
    found.data["last_backup"] = whole[-1].id if whole else None
    found.data["damaged"] = damaged


class Updates(TypedDict, total=False):
    """What is newer than the current release, as programs get it."""

    fetched: Required[bool]
    problems: Required[list[str]]
    tags: Required[list[JsonObject]]
    follows: Required[bool]
    ahead: Required[dict[str, int]]
    images_moved: list[str]
    images_gone: list[str]


def updates(app: App, found: Report, *, fetch: bool) -> None:
    """Add to a report what is newer than the current release; with `fetch`, ask the repository's remote first."""
    data: Updates = {"fetched": False, "problems": [], "tags": [], "follows": False, "ahead": {}}
    found.data["updates"] = data
    if fetch:
        try:
            app.context.packages.fetch()
            data["fetched"] = True
        except StepError as error:
            # The remote's own message is not printed, because an address may contain a password.
            _problem(found, data, f"{error.what}; showing what was fetched before")
    release = app.context.current_release()
    if release is None:
        found.lines.append(("updates", "no release is deployed"))
        return
    before = len(found.lines)
    _sources(app, found, data, release)
    if app.context.containers is not None:
        _images(app, found, data, release)
    if len(found.lines) == before:
        found.lines.append(("updates", "nothing newer is known"))


def _problem(found: Report, data: Updates, what: str) -> None:
    data["problems"].append(what)
    found.lines.append(("updates", what))


def _sources(app: App, found: Report, data: Updates, release: Release) -> None:
    try:
        newer = app.context.packages.newer(release.commit)
    except (NotFoundError, StepError) as error:
        _problem(found, data, error.what)
        return
    data.update({"tags": [asdict(tag) for tag in newer.tags], "follows": newer.follows, "ahead": newer.ahead})
    for tag in newer.tags:
        later = "" if newer.follows else "; it does not contain this release"
        found.lines.append(("newer", f"{tag.name} ({tag.commit[:12]}), {tag.created_at}{later}"))
    for branch, count in newer.ahead.items():
        found.lines.append(("ahead", f"{branch}: {count} commit{'s' if count > 1 else ''}"))


def _images(app: App, found: Report, data: Updates, release: Release) -> None:
    try:
        data["images_moved"] = cast(ImageKeeping, app.context.packages).moved(Path(release.path))
        data["images_gone"] = app.context.runtime.missing_images(release.path)
    except (StepError, OSError) as error:
        _problem(
            found,
            data,
            error.what if isinstance(error, StepError) else f"the release's images could not be listed: {error}",
        )
        return
    found.lines += [("image", f"{name}: built or pulled since then") for name in data["images_moved"]]
    found.lines += [("image", f"{tag}: gone") for tag in data["images_gone"]]
