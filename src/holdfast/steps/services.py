"""The steps that stop, start and verify services; one durable file lists the services that should run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from holdfast.application.context import Opened
from holdfast.application.health import configured, is_well, verify
from holdfast.application.instances import instance_of, on_a_free_port, target_of
from holdfast.engine.runner import StepContext
from holdfast.errors import PortTakenError, RefusedError, StepError
from holdfast.model import Release, ServiceInstance
from holdfast.system import durable
from holdfast.system.ports import free_loopback_port

STOP_ORDER = ("scheduler", "worker", "web", "backend")
_SERVING = ("web", "backend")
_POLL_SECONDS = 0.05
_GATE_SECONDS = 15.0
_UNWELL_SECONDS = 10.0  # visitors wait meanwhile
_PORT_ATTEMPTS = 3


# --- what should run ----------------------------------------------------------------------------------


def _load(path: Path) -> list[ServiceInstance]:
    try:
        found = durable.read_json(path)
    except FileNotFoundError:
        return []
    return [ServiceInstance(**{**item, "command": tuple(item["command"])}) for item in found]


def _save(path: Path, instances: Iterable[ServiceInstance]) -> None:
    durable.write_file(path, json.dumps([asdict(instance) for instance in instances], indent=1))


def wanted(opened: Opened) -> list[ServiceInstance]:
    """Return the instances that should run now; empty while an operation has them stopped."""
    return _load(opened.loaded.state / "services.json")


def set_wanted(opened: Opened, instances: Iterable[ServiceInstance]) -> None:
    _save(opened.loaded.state / "services.json", instances)


def ordered(instances: Iterable[ServiceInstance], *, stopping: bool) -> list[ServiceInstance]:
    """Return instances in the order of a stop: schedulers, workers, web, backend; the reverse for a start."""
    order = STOP_ORDER if stopping else tuple(reversed(STOP_ORDER))
    return sorted(instances, key=lambda instance: order.index(instance.kind))


def start_gate(opened: Opened) -> None:
    """Start the gate's own server, if it has one, and wait until it answers. Idempotent."""
    instance = opened.gate.instance()
    if instance is None:
        return
    opened.gate_runtime.start(instance)
    deadline = time.monotonic() + _GATE_SECONDS
    while not opened.gate.answers():
        if time.monotonic() > deadline:
            raise StepError("the gate does not answer", state=opened.gate_runtime.output_tail(instance.name))
        time.sleep(_POLL_SECONDS)


def stopped_by(opened: Opened, operation: str) -> list[ServiceInstance]:
    """Return what an operation has stopped; write nothing."""
    return _load(opened.loaded.state / "operations" / operation / "stopped.json")


# --- steps --------------------------------------------------------------------------------------------


def _remembered(opened: Opened, operation: str, name: str) -> Path:
    return opened.operation_folder(operation) / f"{name}.json"


def refuse_tied(opened: Opened, names: Sequence[str], *, in_order: bool = False) -> None:
    """Raise RefusedError for containers that could not be created again, before anything is stopped.

    `in_order`: all of them are removed, each in its turn.
    """
    if opened.containers is None:
        return
    kind = opened.loaded.configuration.service_kind
    order = sorted(names, key=lambda name: STOP_ORDER.index(kind(name))) if in_order else []
    for name, other in opened.containers.tied(names, order).items():
        raise RefusedError(
            f"container {name} cannot be replaced: {other} depends on it, and would have to be removed first",
            next_step=f"Remove that `depends_on` from the Compose files and start {other} again.",
        )


def stop_all(opened: Opened, context: StepContext) -> None:
    """Stop what runs, in order, and remember it; from here nothing starts by itself."""
    memory = _remembered(opened, context.operation, "stopped")
    if not memory.exists():
        running = wanted(opened)
        superseded = context.plan_parameters.supersedes
        if not running and superseded:  # that operation stopped them and never started them again
            running = _load(_remembered(opened, superseded, "stopped"))
        _save(memory, running)
        context.record({"ran": [instance.name for instance in running], "verified": _well(opened, running)})
    set_wanted(opened, [])
    remembered = _load(memory)
    for instance in ordered(remembered, stopping=True):
        _stop(opened, context, instance)
    _stop_others(opened, remembered)


def _stop(opened: Opened, context: StepContext, instance: ServiceInstance) -> None:
    """Stop an instance; note it if it had to be killed, because its work was cut off."""
    killed = opened.runtime.stop(instance.name)
    if killed is not None:
        note = (
            f"service {instance.service} had to be killed after {killed:g} s: it did not end by itself within its"
            " stop_timeout_seconds"
        )
        context.say(note)
        context.record({"warnings": [*context.facts.get("warnings", []), note]})


def _well(opened: Opened, running: Sequence[ServiceInstance]) -> list[str]:
    """Return the healthy instances, which an undo can verify. An unhealthy web says nothing about its backends."""
    statuses = opened.runtime.statuses()
    well = []
    for item in running:
        status = statuses.get(item.name)
        stands = status is not None and status.running and status.healthy is not False
        if stands and is_well(opened, item, configured(opened, item))[0]:
            well.append(item.name)
    if any(item.kind == "web" and item.name not in well for item in running):
        well = [item.name for item in running if item.name in well and item.kind != "backend"]
    return well


def _stop_others(opened: Opened, known: Sequence[ServiceInstance]) -> None:
    """End what runs and should not, left by a killed command or by an abandoned operation."""
    gate = opened.gate.instance()
    names = {instance.name for instance in known} | ({gate.name} if gate is not None else set())
    for name in opened.runtime.statuses():
        if name not in names:
            opened.runtime.stop(name)
    if opened.containers is not None:
        opened.containers.end_unmanaged()


def start_stopped(opened: Opened, context: StepContext) -> None:
    """Undo `stop_all`: start only what ran before."""
    memory = _remembered(opened, context.operation, "stopped")
    if not memory.exists():
        return
    ran = _load(memory)
    instances = [_with_its_port(opened, instance) for instance in ran]
    if instances != ran:
        _save(memory, instances)
    for instance in ordered(instances, stopping=False):
        opened.runtime.start(instance)
        _lead(opened, instance)
    stopped = context.facts if "verified" in context.facts else context.earlier.get("services.stop", {})
    for instance in ordered(instances, stopping=False):
        if instance.name in stopped.get("verified", []):
            verify(opened, instance, context, patient=True)
        else:
            _wait_for_unwell(opened, instance, context)
    set_wanted(opened, instances)


def _with_its_port(opened: Opened, instance: ServiceInstance) -> ServiceInstance:
    """Return an instance, with another port if it is down and another process uses its port."""
    moved = on_a_free_port(opened, instance)
    status = opened.runtime.statuses().get(instance.name) if moved != instance else None
    return instance if status is not None and status.running else moved


def _lead(opened: Opened, instance: ServiceInstance) -> None:
    """Send visitors to a web of the release that they use, if it has another port than before."""
    state = opened.gate.state()
    if instance.kind == "web" and state.release == instance.release:
        target = target_of(opened, instance)
        if state.target != target:
            opened.gate.route(instance.release, target)


def _wait_for_unwell(opened: Opened, instance: ServiceInstance, context: StepContext) -> None:
    """Wait for a service that was unhealthy when it was stopped; it may have become healthy, or not."""
    try:
        verify(opened, instance, context, at_most_seconds=_UNWELL_SECONDS, patient=True)
    except StepError as error:
        context.say(f"unhealthy as before the operation: {error.what}")


def ran_before(opened: Opened, context: StepContext) -> set[str] | None:
    """Return the services that ran before the operation; None if nothing was installed."""
    memory = _remembered(opened, context.operation, "stopped")
    instances = _load(memory) if memory.exists() else wanted(opened)
    if not instances and (opened.current_release() is None or not memory.exists()):
        return None
    ran = {instance.service for instance in instances}
    served = [instance.service for instance in instances if instance.kind in _SERVING]
    kind = opened.loaded.configuration.service_kind
    # Web and backend serve together: if one ran, a release that has both needs both.
    return ran | {name for name in opened.loaded.configuration.services if served and kind(name) in _SERVING}


def start_release(opened: Opened, context: StepContext) -> None:
    """Start and verify the services of a release: those of the given kinds that ran before.

    If another process took a port between its choice and its use, another port is chosen.
    """
    for attempt in range(1, _PORT_ATTEMPTS + 1):
        try:
            _start_release(opened, context)
            return
        except PortTakenError:
            if attempt == _PORT_ATTEMPTS:
                raise
            stop_release(opened, context)
            context.record({"ports": {}})  # chosen again


def _start_release(opened: Opened, context: StepContext) -> None:
    start_wanted(opened)  # the serving services may have ended together with a runtime that died
    release = Release(**context.parameters["release"])
    kinds: Sequence[str] = context.parameters["kinds"]
    services = opened.loaded.configuration.services
    ran = ran_before(opened, context)
    present = services if opened.containers is None else opened.containers.services_of(release.path)
    names = [
        name
        for name in services
        if name in present
        and opened.loaded.configuration.service_kind(name) in kinds
        and (ran is None or name in ran or _is_new(opened, context, name))
    ]
    instances = []
    ports: dict[str, int] = dict(context.facts.get("ports", {}))
    for name in names:
        is_web = opened.loaded.configuration.service_kind(name) == "web"
        if is_web and name not in ports:
            ports[name] = free_loopback_port()
        instances.append(instance_of(opened, name, services[name], release, ports.get(name)))
    context.record({"ports": ports, "instances": [instance.name for instance in instances]})
    memory = _remembered(opened, context.operation, "started")
    earlier = [item for item in _load(memory) if item.name not in {instance.name for instance in instances}]
    _save(memory, [*earlier, *instances])
    begun = [item for item in ordered(instances, stopping=False) if _tried(context, item, partial(_begin, opened))]
    backends = [item for item in begun if item.kind == "backend"]
    for instance in begun:  # the others start meanwhile
        _tried(context, instance, partial(_prove, opened, context, backends))


def _begin(opened: Opened, instance: ServiceInstance) -> None:
    opened.runtime.start(replace(instance, comes_back=False))  # until the commit
    held = opened.gate.state().operation
    # The gate is closed: before the commit only a client with the cookie sees the new web.
    if instance.kind == "web" and held is not None:
        opened.gate.close(held, target_of(opened, instance))


def _prove(
    opened: Opened, context: StepContext, backends: Sequence[ServiceInstance], instance: ServiceInstance
) -> None:
    verify(opened, instance, context, backends=backends if instance.kind == "web" else ())
    if instance.kind == "web" and opened.proxy is not None:
        opened.proxy.try_out(target_of(opened, instance))


def _tried(context: StepContext, instance: ServiceInstance, action: Callable[[ServiceInstance], None]) -> bool:
    """Return whether an action succeeded; say what failed if the step is tolerant. Raise StepError if it is not."""
    try:
        action(instance)
    except StepError as error:
        if not context.parameters.get("tolerant") or isinstance(error, PortTakenError):
            raise
        # After the commit nothing is undone, and endless tries would only keep the operation open.
        context.say(
            f"{error}\nIt should run nevertheless. Fix the cause, then run: holdfast service restart {instance.service}"
        )
        return False
    return True


def _is_new(opened: Opened, context: StepContext, name: str) -> bool:
    """Return whether a service is new in this release; then it starts with the release."""
    known = context.plan_parameters.known_services
    return known is not None and name not in known


def stop_release(opened: Opened, context: StepContext) -> None:
    """Undo `start_release`."""
    release = Release(**context.parameters["release"])
    kinds = context.parameters["kinds"]
    memory = _remembered(opened, context.operation, "started")
    for instance in ordered(_load(memory), stopping=True):
        if instance.release == release.id and instance.kind in kinds:
            _stop(opened, context, instance)


def started(opened: Opened, operation: str) -> list[ServiceInstance]:
    return _load(_remembered(opened, operation, "started"))


def adopt_started(opened: Opened, context: StepContext) -> None:
    """Record the started services as those that should run, and stop old instances in order. A closing step."""
    new = started(opened, context.operation)
    names = {instance.name for instance in new}
    memory = _remembered(opened, context.operation, "stopped")
    if context.parameters.get("retire") and not memory.exists():
        _save(memory, wanted(opened))  # a scheduler of the new release starts later, where the old one ran
    old = [instance for instance in wanted(opened) if instance.name not in names]
    set_wanted(opened, [*new, *(instance for instance in old if context.parameters.get("retire"))])
    for instance in ordered(old, stopping=True):
        _stop(opened, context, instance)
    set_wanted(opened, new)
    for instance in ordered(new, stopping=False):
        opened.runtime.start(instance)


def start_wanted(opened: Opened, names: Sequence[str] = (), *, ended_alone: Sequence[str] = ()) -> list[str]:
    """Start what should run and does not, at boot and for `service start`. Idempotent.

    With statuses `ended_alone`, leave a service to its runtime if that is about to start it again.
    """
    begun = []
    if not names and wanted(opened):
        start_gate(opened)
    statuses: Mapping[str, Any] = opened.runtime.statuses()
    for instance in ordered(wanted(opened), stopping=False):
        if names and instance.service not in names:
            continue
        status = statuses.get(instance.name)
        if status is None or (not status.running and (not ended_alone or status.detail in ended_alone)):
            if (moved := on_a_free_port(opened, instance)) != instance:
                set_wanted(opened, [moved if item == instance else item for item in wanted(opened)])
                instance = moved
            opened.runtime.start(instance)
            begun.append(instance.service)
        _lead(opened, instance)
    return begun


def command(opened: Opened, context: StepContext) -> None:
    """Do `service stop | start | restart`, and record durably what should run afterwards."""
    action, names = context.parameters["action"], context.parameters["names"]
    memory = _remembered(opened, context.operation, "before")
    if not memory.exists():
        _save(memory, wanted(opened))
    before = _load(memory)
    affected = chosen(before, action, names)
    if action != "start":
        refuse_tied(opened, [instance.service for instance in affected])
    if action in ("stop", "restart"):
        for instance in ordered(affected, stopping=True):
            _stop(opened, context, instance)
    if action == "stop":
        context.record({"stopped": [instance.service for instance in affected]})
        set_wanted(opened, [instance for instance in before if instance not in affected])
        return
    release = opened.current_release()
    for name in names or opened.loaded.configuration.services:
        if release is not None and name not in {instance.service for instance in before}:
            is_web = opened.loaded.configuration.service_kind(name) == "web"
            service = opened.loaded.configuration.services[name]
            affected.append(instance_of(opened, name, service, release, free_loopback_port() if is_web else None))
    now = {instance.name: _with_its_port(opened, instance) for instance in affected}
    affected = list(now.values())
    before = [now.get(instance.name, instance) for instance in before]
    _save(memory, before)  # an undo sends visitors to the port on which a web was started meanwhile
    for instance in ordered(affected, stopping=False):
        opened.runtime.start(instance)
        verify(opened, instance, context)
        if instance.kind == "web" and release is not None:
            opened.gate.route(release.id, target_of(opened, instance))
    set_wanted(opened, [*(item for item in before if item not in affected), *affected])
    if affected:
        start_wanted(opened)  # start all, because a runtime that died has ended the others, too


def chosen(before: Sequence[ServiceInstance], action: str, names: Sequence[str]) -> list[ServiceInstance]:
    """Return the instances that a command is about, with the webs that depend on a backend among them."""
    named = [instance for instance in before if not names or instance.service in names]
    if action != "start" and any(instance.kind == "backend" for instance in named):
        # The web may have looked up the backend's address only once; and the web's health is that of both.
        return [instance for instance in before if instance in named or instance.kind == "web"]
    return named


def refuse_unstartable(opened: Opened, names: Sequence[str]) -> None:
    """Refuse a restart of services that could not be started again, before it begins. Raise HoldfastError."""
    for instance in chosen(wanted(opened), "restart", names):
        opened.host.resolved(instance.environment)
        if opened.containers is None:
            continue
        if gone := opened.containers.missing_images(instance.directory, [instance.service]):
            raise RefusedError(
                f"the image of service {instance.service} is gone: {', '.join(gone)}",
                state="Nothing was changed.",
                next_step="To build it again, run `holdfast package build REF` with the release that `holdfast status`"
                " shows.",
            )


def uncommand(opened: Opened, context: StepContext) -> None:
    """Undo `command`: start what should have run before."""
    memory = _remembered(opened, context.operation, "before")
    if memory.exists():
        before = _load(memory)
        set_wanted(opened, before)
        _stop_others(opened, before)
        start_wanted(opened)
