"""The start after a boot, which is repeated until services stay up: what they need may be available later."""

from __future__ import annotations

from holdfast.application import health
from holdfast.application.context import ApplicationContext
from holdfast.application.instances import configured
from holdfast.errors import StepError
from holdfast.steps import gate, services

_ENDED = ("fatal", "exited", "unknown", "stopped", "stopping")  # and not started again by the runtime


def start(application: ApplicationContext) -> list[str]:
    """Start what should run, even services that gave up, and the gate while an operation is open. Idempotent.

    Return what was started. The caller makes sure that no operation runs. Raise StepError.
    """
    server = application.gate.instance()
    began = [server.name] if server is not None and not application.gate.answers() else []
    if application.journal.unfinished():
        gate.ensure_running(application)
    started = services.start_wanted(application, ended_alone=_ENDED)
    return [*(began if began and application.gate.answers() else []), *started]


def unhealthy(application: ApplicationContext) -> dict[str, str]:
    """Return the unhealthy services that should run, and why."""
    found = {}
    try:
        statuses = application.runtime.statuses()
    except StepError as error:  # an engine that is coming back
        return {instance.service: error.what for instance in services.wanted(application)}
    for instance in services.wanted(application):
        status = statuses.get(instance.name)
        service = configured(application, instance)
        well, said = True, ""
        if status is None or not status.running:
            well, said = False, status.detail if status is not None else "gone"
        elif service is not None and (service.health or service.health_command):
            well, said, _ = health.is_healthy(application, instance, service)
        elif status.detail != "running":  # a service that is starting may still end
            well, said = False, status.detail
        if not well:
            found[instance.service] = said
    return found


def unhealthy_error(found: dict[str, str]) -> StepError:
    return StepError(
        "not healthy after this boot: " + "; ".join(f"{name} ({why})" for name, why in found.items()),
        state="Every service that should run was started.",
        next_step="Run `holdfast service status` to see the cause. After you fixed it, run: holdfast service restart"
        " NAME",
    )
