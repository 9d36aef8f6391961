"""Which instance is meant by the name of a service whose output is to be read."""

from __future__ import annotations

from holdfast.application.application import App
from holdfast.config.similar import no_such
from holdfast.drivers.protocols.runtimes import RunsServices
from holdfast.errors import NotFoundError
from holdfast.steps import services


def chosen(app: App, name: str) -> tuple[RunsServices, str, list[str]]:
    """Return the runtime and the instance that a name means, and other instances of the same service with output.

    The name is that of a service, and means the instance that should run, or else the newest one; or that of an
    instance, such as one of a release that was undone. Raise NotFoundError.
    """
    gate = app.context.gate.instance()
    if gate is not None and name == gate.name:
        return app.context.gate_runtime, gate.name, []
    runtime = app.context.runtime
    kept = runtime.outputs()
    configured = list(app.loaded.configuration.running_services())
    if name in kept and name not in configured:
        return runtime, name, []
    if name not in configured:
        raise no_such("service", name, [*configured, *([gate.name] if gate is not None else [])])
    fits = [one for one in kept if _service_of(one, configured) == name]
    wanted = [one.name for one in services.wanted(app.context) if one.service == name and one.name in fits]
    if not fits:
        raise NotFoundError(f"no output of service {name} is kept", next_step="Run: holdfast service status")
    found = (wanted or fits)[0]
    return runtime, found, [one for one in fits if one != found]


def _service_of(instance: str, configured: list[str]) -> str:
    """Return the service of an instance, whose name begins with it."""
    return max((one for one in configured if f"{instance}-".startswith(f"{one}-")), key=len, default="")
