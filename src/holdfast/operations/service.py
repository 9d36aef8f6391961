"""The plan of `service stop | start | restart [NAME]`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from holdfast.application.application import App
from holdfast.config.schema.configuration import KINDS
from holdfast.config.similar import no_such
from holdfast.errors import NotFoundError, RefusedError, StepError
from holdfast.model import Plan
from holdfast.operations import parts
from holdfast.steps import services, stopped
from holdfast.steps.service_steps import Action, CommandServices


def plan(app: App, action: Action, names: Sequence[str]) -> Plan:
    """Return the plan of a command to services.

    Raise NotFoundError for a service that is not configured, RefusedError where nothing is installed or a restart could
    not start a service again, or where the server of a database cannot be reached.
    """
    parts.require_installed(app)
    asked = names
    running = {instance.service for instance in services.wanted(app.context)}
    names = _named(app, action, names, running)
    if action != "stop":
        app.context.require_markers()
        _require_databases(app)
    # A start also starts what a stop of the same services stopped with them; the plan fixes these names.
    again = stopped.stopped_with(app.context, names) if action != "stop" else []
    wanted = [*names, *again]
    if action == "restart":
        services.refuse_unstartable(app.context, wanted)
    along = stopped.leading_to(app.context, names) if action != "start" else []
    notes = (
        [f"{', '.join(along)} is {_PAST[action]} with {', '.join(names)}, because it sends visitors there."]
        if along
        else []
    )
    notes += _not_meant(app, asked)
    if again:
        notes.append(f"{', '.join(again)} is started with {', '.join(names)}, with which it was stopped.")
    step = CommandServices(action, tuple(wanted), along=tuple(along), again=tuple(again))
    return Plan(
        kind=f"service.{action}",
        title=f"service {action} {' '.join(names if asked else ())}".strip() + step.others,
        steps=(step,),
        notes=tuple(notes),
        barrier_paths=(str(app.loaded.state),),
    )


def _named(app: App, action: Action, asked: Sequence[str], running: Collection[str]) -> list[str]:
    """Return the services that names and kinds mean; none for all of them.

    A restart of all, or of a kind, leaves stopped ones as they are. Raise NotFoundError, RefusedError.
    """
    named = chosen(app, asked)
    by_name = {one for name in asked for one in chosen(app, [name]) if name == one}
    if action != "restart":
        return named
    found = [name for name in named or app.loaded.configuration.running_services() if name in {*running, *by_name}]
    if not found:
        raise RefusedError(
            f"none of {', '.join(named)} runs" if named else "no service runs",
            next_step=f"Run: {' '.join(['holdfast service start', *asked])}",
        )
    return found


def chosen(app: App, asked: Sequence[str]) -> list[str]:
    """Return the services that names and kinds mean. The name of a service with several instances means all of them.

    Raise NotFoundError.
    """
    configuration = app.loaded.configuration
    known = configuration.running_services()
    found: dict[str, None] = {}
    for name in asked:
        kind = KINDS.get(name, name)
        if name in known:
            meant = [name]
        elif name in configuration.services:
            meant = configuration.instance_names(name)
        elif kind in services.STOP_ORDER:
            meant = [one for one in known if configuration.service_kind(one) == kind]
            if not meant:
                raise NotFoundError(f"there is no service of kind {name}", next_step=f"Known: {', '.join(known)}.")
        else:
            raise no_such("service", name, [*known, *configuration.services])
        found |= dict.fromkeys(meant)
    return list(found)


def _not_meant(app: App, asked: Sequence[str]) -> list[str]:
    """Return notes on services of a kind whose name is also that of a service, which is what it means."""
    configuration = app.loaded.configuration
    known = configuration.running_services()
    notes = []
    for name in asked:
        kind = KINDS.get(name, name)
        others = [one for one in known if configuration.service_kind(one) == kind and one not in asked]
        if name in configuration.services and kind in services.STOP_ORDER and others:
            others = [one for one in others if one not in configuration.instance_names(name)]
            notes += (
                [f"{name} means the service of that name, not others of its kind: {', '.join(others)}"]
                if others
                else []
            )
    return notes


def _require_databases(app: App) -> None:
    """Raise RefusedError where a database cannot be reached.

    The services would fail at the end of their time for a start, and an undo needs the databases too.
    """
    for name, database in app.context.databases.items():
        try:
            database.inspect()
        except StepError as error:
            raise RefusedError(
                f"databases.{name}: {error.what}",
                next_step=error.next_step or "Start the server of the database, then run the command again.",
            ) from error


_PAST = {"stop": "stopped", "restart": "restarted"}
