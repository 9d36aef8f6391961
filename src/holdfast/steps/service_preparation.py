"""What is made of a release's services before visitors wait, and what is removed of the old ones when they are back."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from holdfast.application.commands import filled
from holdfast.application.context import ApplicationContext
from holdfast.application.instances import instance_of
from holdfast.config.schema import Service
from holdfast.model import Release, ServiceInstance
from holdfast.steps import tasks
from holdfast.steps.services import BEHIND, WEB, load_instances, remembered, started, stopped_by, wanted
from holdfast.steps.typed import Context, NoFacts, OperationContext, StepFacts, TypedStep
from holdfast.system.ports import free_loopback_port


class PreparedFacts(StepFacts):
    ports: dict[str, int] | None = None
    """The port that each web is to have."""
    instances: list[str] | None = None


class PrepareServices(TypedStep[PreparedFacts], frozen=True):
    """Prepare the services and tasks of a release while the old version serves."""

    name = "services.prepare"
    is_undone = True

    release: Release
    tasks: tuple[tasks.TaskName, ...] = ()

    @property
    def title(self) -> str:
        return "prepare the new services"

    def do(self, application: ApplicationContext, context: Context[PreparedFacts]) -> None:
        current = application.current_release()
        if current is not None and (current.id == self.release.id or not wanted(application)):
            return  # the same instances serve meanwhile, or nothing runs and nothing is started
        kinds = (*WEB, *BEHIND)
        instances, context.facts.ports = planned(application, context, self.release, kinds, context.facts.ports or {})
        context.facts.instances = [instance.name for instance in instances]
        context.record()
        application.runtime.create(*instances)
        for task in self.tasks:
            tasks.prepare(application, self.release, task, context.operation)

    def undo(self, application: ApplicationContext, context: Context[PreparedFacts]) -> None:
        application.runtime.stop(*(context.facts.instances or []))


class RemoveStopped(TypedStep[NoFacts], frozen=True):
    """Remove what the runtime keeps of services and tasks that this operation has stopped or prepared.

    This is a closing step.
    """

    name = "services.remove"

    @property
    def title(self) -> str:
        return "remove the old services"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        new = {instance.name for instance in started(application, context.operation)}
        prepared = context.facts_of(PrepareServices)
        old = {instance.name for instance in stopped_by(application, context.operation)}
        old |= set((prepared.instances if prepared is not None else None) or [])
        application.runtime.stop(*(name for name in application.runtime.statuses() if name in old - new))
        application.runtime.end_tasks(context.operation)  # what was made for one whose environment changed meanwhile


def planned(
    application: ApplicationContext,
    context: OperationContext,
    release: Release,
    kinds: Collection[str],
    ports: Mapping[str, int],
    beside: bool | None = None,
) -> tuple[list[ServiceInstance], dict[str, int]]:
    """Return the instances of a release to start, those that ran before, and the ports of webs.

    `ports` are those that were chosen already. What the runtime keeps of an instance is used with its port. `beside`:
    only those that can run next to the old ones, or only the others.
    """
    services = application.loaded.configuration.running_services()
    kind = application.loaded.configuration.service_kind
    ran = _ran_before(application, context)
    present = application.runtime.services_of(release.path, services)
    stopped = stopped_by(application, context.operation) if application.runtime.keeps_stopped else []
    kept = {item.service: item.port for item in stopped if item.release == release.id and item.port is not None}
    chosen = {**kept, **ports}
    instances = []
    for name in services:
        ran_or_new = ran is None or name in ran or _is_new(context, name)
        if name not in present or kind(name) not in kinds or not ran_or_new:
            continue
        if beside is not None and runs_beside(application, name) is not beside:
            continue
        if kind(name) == "web" and name not in chosen:
            chosen[name] = free_loopback_port()
        instances.append(instance_of(application, name, services[name], release, chosen.get(name)))
    return instances, chosen


def runs_beside(application: ApplicationContext, name: str) -> bool:
    """Return whether two versions of a service can run next to each other."""
    configuration = application.loaded.configuration
    alone = configuration.service_kind(name) in ("websocket", "scheduler")
    return configuration.running_services()[name].beside and not alone


def _ran_before(application: ApplicationContext, context: OperationContext) -> set[str] | None:
    """Return the services that ran before the operation; None if nothing was installed."""
    memory = remembered(application, context.operation, "stopped")
    instances = load_instances(memory) if memory.exists() else wanted(application)
    if not instances and (application.current_release() is None or not memory.exists()):
        return None
    ran = _by_present_names(application, {instance.service for instance in instances})
    served = [instance.service for instance in instances if instance.kind in WEB]
    kind = application.loaded.configuration.service_kind
    # Web and backend serve together: if one ran, a release that has both needs both.
    return ran | {name for name in application.loaded.configuration.running_services() if served and kind(name) in WEB}


def _by_present_names(application: ApplicationContext, ran: set[str]) -> set[str]:
    """Return the services that ran by the names that they have now, if another number of instances is configured."""
    configuration = application.loaded.configuration
    for name in configuration.services:
        names = configuration.instance_names(name)
        if names == [name] and any(one.rpartition("-")[0] == name and one.rpartition("-")[2].isdigit() for one in ran):
            ran = ran | {name}
        elif name in ran:
            ran = ran | set(names)
    return ran


def _is_new(context: OperationContext, name: str) -> bool:
    """Return whether a service is new in this release; then it starts with the release."""
    known = context.plan_parameters.known_services
    return known is not None and name not in known


def shown(application: ApplicationContext, service: Service, release: Release) -> str:
    """Return the command of a service as it will run; its port is chosen at the start unless it is configured."""
    named = [one if service.port else one.replace("{port}", "PORT") for one in service.command]
    text = " ".join(filled(application, named, release.path, service.port or None))
    return text if named == service.command else f"{text}  (PORT: a free one, chosen at the start)"
