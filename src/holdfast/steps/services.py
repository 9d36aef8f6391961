"""The services of an application: which should run, in which order they stop and start, which depend on others.

One durable file lists the services that should run, others what an operation has stopped and started.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import asdict

from holdfast.application.context import ApplicationContext
from holdfast.application.instances import on_a_free_port, target_of
from holdfast.errors import RefusedError, StepError
from holdfast.model import ServiceInstance, ServiceStatus
from holdfast.system import durable

WEB = ("backend", "web")
BEHIND = ("websocket", "worker", "scheduler")
STOP_ORDER = ("scheduler", "worker", "websocket", "web", "backend")
_STOP_TOGETHER = (("scheduler", "worker", "websocket", "web"), ("backend",))
_POLL_SECONDS = 0.05
_GATE_SECONDS = 15.0


# --- what should run ----------------------------------------------------------------------------------


def load_instances(path: Path) -> list[ServiceInstance]:
    """Return the instances in a file; none if it does not exist."""
    try:
        return durable.read_json(path, list[ServiceInstance])
    except FileNotFoundError:
        return []


def save_instances(path: Path, instances: Iterable[ServiceInstance]) -> None:
    durable.write_file(path, json.dumps([asdict(instance) for instance in instances], indent=1))


def wanted(application: ApplicationContext) -> list[ServiceInstance]:
    """Return the instances that should run now; empty while an operation has them stopped."""
    return load_instances(application.loaded.state / "services.json")


def set_wanted(application: ApplicationContext, instances: Iterable[ServiceInstance]) -> None:
    save_instances(application.loaded.state / "services.json", instances)


def ordered(instances: Iterable[ServiceInstance], *, stopping: bool) -> list[ServiceInstance]:
    """Return instances in the order of a stop: schedulers, workers, web, backend; the reverse for a start."""
    order = STOP_ORDER if stopping else tuple(reversed(STOP_ORDER))
    return sorted(instances, key=lambda instance: order.index(instance.kind))


def stop_groups(instances: Iterable[ServiceInstance]) -> list[list[ServiceInstance]]:
    """Return instances in groups that stop side by side; what the others may need for their last work comes last."""
    known = list(instances)
    groups = [[instance for instance in known if instance.kind in kinds] for kinds in _STOP_TOGETHER]
    return [group for group in groups if group]


def start_gate(application: ApplicationContext) -> None:
    """Start the gate's own server, if it has one, and wait until it answers. Idempotent."""
    instance = application.gate.instance()
    if instance is None:
        return
    application.gate_runtime.start(instance)
    deadline = time.monotonic() + _GATE_SECONDS
    while not application.gate.answers():
        if time.monotonic() > deadline:
            raise StepError("the gate does not answer", state=application.gate_runtime.output_tail(instance.name))
        time.sleep(_POLL_SECONDS)


def remembered(application: ApplicationContext, operation: str, name: str) -> Path:
    """Return the file in which an operation keeps instances for its undo."""
    return application.operation_folder(operation) / f"{name}.json"


def stopped_by(application: ApplicationContext, operation: str) -> list[ServiceInstance]:
    """Return what an operation has stopped; write nothing."""
    return load_instances(application.loaded.state / "operations" / operation / "stopped.json")


def started(application: ApplicationContext, operation: str) -> list[ServiceInstance]:
    """Return what an operation has started."""
    return load_instances(remembered(application, operation, "started"))


# --- starting ------------------------------------------------------------------------------------------


def on_usable_port(application: ApplicationContext, instance: ServiceInstance) -> ServiceInstance:
    """Return an instance, with another port if it is down and another process uses its port."""
    moved = on_a_free_port(application, instance)
    status = application.runtime.statuses().get(instance.name) if moved != instance else None
    return instance if status is not None and status.running else moved


def route_visitors(application: ApplicationContext, instance: ServiceInstance) -> None:
    """Send visitors to a web of the release that they use, if it has another port than before."""
    state = application.gate.state()
    if instance.kind == "web" and state.release == instance.release:
        target = target_of(application, instance)
        if state.target != target:
            application.gate.route(instance.release, target)


def start_wanted(
    application: ApplicationContext, names: Sequence[str] = (), *, ended_alone: Sequence[str] = ()
) -> list[str]:
    """Start what should run and does not, at boot and for `service start`. Idempotent.

    With statuses `ended_alone`, leave a service to its runtime if that is about to start it again.
    """
    begun = []
    if not names and wanted(application):
        start_gate(application)
    statuses: Mapping[str, ServiceStatus] = application.runtime.statuses()
    for instance in ordered(wanted(application), stopping=False):
        if names and instance.service not in names:
            continue
        status = statuses.get(instance.name)
        if status is None or (not status.running and (not ended_alone or status.detail in ended_alone)):
            if (moved := on_a_free_port(application, instance)) != instance:
                set_wanted(application, [moved if item == instance else item for item in wanted(application)])
                instance = moved
            application.runtime.start(instance)
            begun.append(instance.service)
        route_visitors(application, instance)
    return begun


def chosen(before: Sequence[ServiceInstance], action: str, names: Sequence[str]) -> list[ServiceInstance]:
    """Return the instances that a command is about, with the webs that depend on a backend among them."""
    named = [instance for instance in before if not names or instance.service in names]
    if action != "start" and any(instance.kind == "backend" for instance in named):
        # The web may have looked up the backend's address only once; and the web's health is that of both.
        return [instance for instance in before if instance in named or instance.kind == "web"]
    return named


def refuse_blocked(application: ApplicationContext, names: Sequence[str], *, in_order: bool = False) -> None:
    """Raise RefusedError for containers that could not be created again, before anything is stopped.

    `in_order`: all of them are removed, each in its turn.
    """
    kind = application.loaded.configuration.service_kind
    order = sorted(names, key=lambda name: STOP_ORDER.index(kind(name))) if in_order else []
    for name, other in application.runtime.blocked_by_dependents(names, order).items():
        raise RefusedError(
            f"container {name} cannot be replaced: {other} depends on it, and would have to be removed first",
            next_step=f"Remove that `depends_on` from the Compose files and start {other} again.",
        )


def refuse_unstartable(application: ApplicationContext, names: Sequence[str]) -> None:
    """Refuse a restart of services that could not be started again, before it begins. Raise HoldfastError."""
    for instance in chosen(wanted(application), "restart", names):
        application.host.resolved(instance.environment)
        if gone := application.runtime.missing_images(instance.directory, [instance.service]):
            raise RefusedError(
                f"the image of service {instance.service} is gone: {', '.join(gone)}",
                state="Nothing was changed.",
                next_step="To build it again, run `holdfast package build REF` with the release that `holdfast status`"
                " shows.",
            )
