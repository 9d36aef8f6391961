"""`service stop | start | restart [NAME]`."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.app import App
from holdfast.errors import UsageError
from holdfast.model import Plan, Step
from holdfast.operations import parts
from holdfast.steps import services


def plan(app: App, action: str, names: Sequence[str]) -> Plan:
    """Raises UsageError for a service that is not configured, RefusedError where nothing is installed, or a restart could not start again."""
    parts.refuse_second_install(app)
    for name in names:
        if name not in app.loaded.configuration.services:
            raise UsageError(
                f"there is no service {name!r}", next_step=f"Known are {', '.join(app.loaded.configuration.services)}."
            )
    if action != "stop":
        app.opened.require_markers()
    if action == "restart":
        services.refuse_unstartable(app.opened, names)
    return Plan(
        kind=f"service.{action}", title=f"service {action} {' '.join(names)}".strip(),
        steps=(Step("services.command", f"{action} {', '.join(names) or 'all services'}", {"action": action, "names": list(names)}),),
        barrier_paths=(str(app.loaded.state),),
    )  # fmt: skip
