"""The plan of `service stop | start | restart [NAME]`."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.application.application import App
from holdfast.config.similar import no_such
from holdfast.errors import RefusedError, StepError
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
    for name in names:
        if name not in app.loaded.configuration.services:
            raise no_such("service", name, app.loaded.configuration.services)
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
    if again:
        notes.append(f"{', '.join(again)} is started with {', '.join(names)}, with which it was stopped.")
    step = CommandServices(action, tuple(wanted), along=tuple(along), again=tuple(again))
    return Plan(
        kind=f"service.{action}",
        title=f"service {action} {' '.join(names)}".strip() + step.others,
        steps=(step,),
        notes=tuple(notes),
        barrier_paths=(str(app.loaded.state),),
    )


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
