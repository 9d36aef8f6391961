"""The steps that stop, start and verify services."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from holdfast.application import development
from holdfast.application.context import ApplicationContext
from holdfast.application.health import is_healthy, verify
from holdfast.application.instances import configured, instance_of, target_of
from holdfast.errors import PortTakenError, StepError
from holdfast.model import Release, ServiceInstance
from holdfast.steps import stopping
from holdfast.steps.service_preparation import PrepareServices, planned, runs_beside, shown
from holdfast.steps.services import (
    BEHIND,
    WEB,
    chosen,
    load_instances,
    on_usable_port,
    ordered,
    refuse_blocked,
    remembered,
    route_visitors,
    save_instances,
    set_wanted,
    start_wanted,
    started,
    wanted,
)
from holdfast.steps.typed import Context, NoFacts, OperationContext, TypedStep, WarningFacts
from holdfast.system.ports import free_loopback_port

_UNWELL_SECONDS = 10.0  # visitors wait meanwhile
_UNDO_STOP_SECONDS = 2.0  # visitors wait meanwhile, and what the service has written is put back
_PORT_ATTEMPTS = 3


# --- stopping -----------------------------------------------------------------------------------------


class StopFacts(WarningFacts):
    ran: list[str] | None = None
    """The instances that ran."""
    verified: list[str] | None = None
    """Those among them that were healthy."""


class StopServices(TypedStep[StopFacts], frozen=True):
    """Stop what runs, in order, and remember it; from here nothing starts by itself."""

    name = "services.stop"
    is_undone = True

    keeps: bool = False
    """Whether a later step starts the same instances again or removes what the runtime keeps of them."""

    @property
    def title(self) -> str:
        return "stop services in order"

    def do(self, application: ApplicationContext, context: Context[StopFacts]) -> None:
        memory = remembered(application, context.operation, "stopped")
        if not memory.exists():
            running = wanted(application)
            superseded = context.plan_parameters.supersedes
            if not running and superseded:  # that operation stopped them and never started them again
                running = load_instances(remembered(application, superseded, "stopped"))
            save_instances(memory, running)
            context.facts.ran = [instance.name for instance in running]
            context.facts.verified = _well(application, running)
            context.record()
        set_wanted(application, [])
        instances = load_instances(memory)
        if stopping.drained(application, instances):
            stopping.stop(application, context, [one for one in instances if one.kind == "scheduler"], keep=self.keeps)
            stopping.drain(application, context, instances)
        stopping.stop(application, context, instances, keep=self.keeps)
        prepared = context.facts_of(PrepareServices)
        _stop_others(application, {item.name for item in instances} | set((prepared and prepared.instances) or []))

    def undo(self, application: ApplicationContext, context: Context[StopFacts]) -> None:
        """Start only what ran before."""
        _start_stopped(application, context, context.facts.verified or [])


class ResumeServices(TypedStep[NoFacts], frozen=True):
    """Start what this operation has stopped. This is a closing step."""

    name = "services.resume"

    @property
    def title(self) -> str:
        return "start services again"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        stopped = context.facts_of(StopServices)
        _start_stopped(application, context, (stopped.verified if stopped is not None else None) or [])


def _well(application: ApplicationContext, running: Sequence[ServiceInstance]) -> list[str]:
    """Return the healthy instances, which an undo can verify. An unhealthy web says nothing about its backends."""
    statuses = application.runtime.statuses()
    well = []
    for item in running:
        status = statuses.get(item.name)
        runs = status is not None and status.running and status.healthy is not False
        if runs and is_healthy(application, item, configured(application, item))[0]:
            well.append(item.name)
    if any(item.kind == "web" and item.name not in well for item in running):
        well = [item.name for item in running if item.name in well and item.kind != "backend"]
    return well


def _stop_others(application: ApplicationContext, known: set[str]) -> None:
    """End what runs and should not, left by a killed command or by an abandoned operation."""
    gate = application.gate.instance()
    names = known | ({gate.name} if gate is not None else set())
    application.runtime.stop(*(name for name in application.runtime.statuses() if name not in names))
    application.runtime.end_unmanaged()


def _start_stopped(application: ApplicationContext, context: OperationContext, verified: Sequence[str]) -> None:
    """Start what this operation has stopped, and verify what was healthy before."""
    memory = remembered(application, context.operation, "stopped")
    if not memory.exists():
        return
    ran = load_instances(memory)
    instances = [on_usable_port(application, instance) for instance in ran]
    if instances != ran:
        save_instances(memory, instances)
    application.runtime.start(*ordered(instances, stopping=False))
    for instance in ordered(instances, stopping=False):
        route_visitors(application, instance)
    for instance in ordered(instances, stopping=False):
        if instance.name in verified:
            _verify_again(application, instance, context)
        else:
            _wait_for_unwell(application, instance, context)
    set_wanted(application, instances)


def _verify_again(application: ApplicationContext, instance: ServiceInstance, context: OperationContext) -> None:
    """Verify a service that ran before. If it does not come up as it was kept, create it again."""
    try:
        verify(application, instance, context, patient=True)
    except StepError as error:
        if not application.runtime.keeps_stopped:
            raise
        context.say(f"{error.what}; it is created again")
        application.runtime.stop(instance.name)
        application.runtime.start(instance)
        verify(application, instance, context, patient=True)


def _wait_for_unwell(application: ApplicationContext, instance: ServiceInstance, context: OperationContext) -> None:
    """Wait for a service that was unhealthy when it was stopped; it may have become healthy, or not."""
    try:
        verify(application, instance, context, at_most_seconds=_UNWELL_SECONDS, patient=True)
    except StepError as error:
        context.say(f"unhealthy as before the operation: {error.what}")


# --- starting -----------------------------------------------------------------------------------------


class StartFacts(WarningFacts):
    ports: dict[str, int] | None = None
    """The port of each web."""
    instances: list[str] | None = None


_TITLES = {
    WEB: "start and verify the web",
    BEHIND: "start and verify workers and schedulers",
    ("scheduler",): "start schedulers",
}
_TITLES_DURING = {
    "adopt": "start and verify the services, the web behind the gate",
    "upgrade": "start the new version next to the old one and verify it",
    "rollback": "start the earlier version next to the present one and verify it",
}


class StartServices(TypedStep[StartFacts], frozen=True):
    """Start and verify the services of a release: those of the given kinds that ran before."""

    name = "services.start"
    is_undone = True
    may_change_data = True

    release: Release
    kinds: tuple[str, ...]
    tolerant: bool = False
    """Whether a service that does not stay up is reported and is not a failure, for steps after the commit."""
    during: Literal["", "adopt", "upgrade", "rollback"] = ""
    """The operation that starts services in another way than most, for the title."""
    beside: bool | None = None
    """Whether only services are meant that can run next to the old version, or only the others."""

    @property
    def title(self) -> str:
        if self.beside is False:
            return "start what could not run next to the old version"
        if self.during:
            return _TITLES_DURING[self.during]
        return _TITLES.get(self.kinds, "start and verify the services")

    def do(self, application: ApplicationContext, context: Context[StartFacts]) -> None:
        """Start. If another process took a port between its choice and its use, choose another port."""
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            try:
                self._start(application, context)
                return
            except PortTakenError:
                if attempt == _PORT_ATTEMPTS:
                    raise
                self.undo(application, context)
                context.facts.ports = {}  # chosen again
                context.record()

    def _start(self, application: ApplicationContext, context: Context[StartFacts]) -> None:
        start_wanted(application)  # the serving services may have ended together with a runtime that died
        prepared = context.facts_of(PrepareServices)
        ports = context.facts.ports if context.facts.ports is not None else (prepared.ports if prepared else None)
        instances, context.facts.ports = planned(
            application, context, self.release, self.kinds, ports or {}, self.beside
        )
        context.facts.instances = [instance.name for instance in instances]
        context.record()
        memory = remembered(application, context.operation, "started")
        names = {instance.name for instance in instances}
        earlier = [item for item in load_instances(memory) if item.name not in names]
        save_instances(memory, [*earlier, *instances])
        begun = ordered(instances, stopping=False)
        if self.tolerant:  # one that does not start must not keep the others from it
            begun = [item for item in begun if self._tried(context, item, lambda item: _begin(application, [item]))]
        else:
            _begin(application, begun)
        backends = [item for item in begun if item.kind == "backend"]
        for instance in begun:  # the others start meanwhile
            self._tried(context, instance, partial(_prove, application, context, backends))

    def _tried(
        self, context: OperationContext, instance: ServiceInstance, action: Callable[[ServiceInstance], None]
    ) -> bool:
        """Return whether an action succeeded; say what failed if the step is tolerant. Raise StepError if not."""
        try:
            action(instance)
        except StepError as error:
            if not self.tolerant or isinstance(error, PortTakenError):
                raise
            # After the commit nothing is undone, and endless tries would only keep the operation open.
            context.say(
                f"{error}\nIt should run nevertheless. Fix the cause, then run: holdfast service restart"
                f" {instance.service}"
            )
            return False
        return True

    def undo(self, application: ApplicationContext, context: Context[StartFacts]) -> None:
        """Stop what this step has started."""
        begun = started(application, context.operation)
        mine = [item for item in begun if item.release == self.release.id and item.kind in self.kinds]
        hurried = context.plan_parameters.mode == "maintenance"  # in the other modes no data is put back
        stopping.stop(application, context, mine, at_most_seconds=_UNDO_STOP_SECONDS if hurried else None)

    def describe(self, application: ApplicationContext) -> list[str]:
        configuration = application.loaded.configuration
        return [
            shown(application, item, self.release)
            for key, item in configuration.running_services().items()
            if configuration.service_kind(key) in self.kinds
            and item.command  # a container's is in its image
            and (self.beside is None or runs_beside(application, key) is self.beside)
        ]


def _begin(application: ApplicationContext, instances: Sequence[ServiceInstance]) -> None:
    """Start instances side by side; none of them comes back by itself until the commit."""
    application.runtime.start(*(replace(instance, comes_back=False) for instance in instances))
    held = application.gate.state().operation
    for instance in instances:
        # The gate is closed: before the commit only a client with the cookie sees the new web.
        if instance.kind == "web" and held is not None:
            application.gate.close(held, target_of(application, instance))


def _prove(
    application: ApplicationContext,
    context: OperationContext,
    backends: Sequence[ServiceInstance],
    instance: ServiceInstance,
) -> None:
    verify(application, instance, context, backends=backends if instance.kind == "web" else ())
    if instance.kind == "web":
        development.require_unreachable(application, instance)
    if instance.kind == "web" and application.proxy is not None:
        application.proxy.probe_upstream(target_of(application, instance))


class AdoptServices(TypedStep[WarningFacts], frozen=True):
    """Record the started services as those that should run, and stop old instances in order. A closing step."""

    name = "services.adopt"

    retire: bool = False
    """Whether the old version is stopped while a scheduler of the new release is still to be started."""

    @property
    def title(self) -> str:
        return "stop the old version" if self.retire else "let the services start by themselves again"

    def do(self, application: ApplicationContext, context: Context[WarningFacts]) -> None:
        new = started(application, context.operation)
        names = {instance.name for instance in new}
        memory = remembered(application, context.operation, "stopped")
        if self.retire and not memory.exists():
            save_instances(memory, wanted(application))  # a new scheduler starts later, where the old one ran
        old = [instance for instance in wanted(application) if instance.name not in names]
        set_wanted(application, [*new, *(instance for instance in old if self.retire)])
        stopping.stop(application, context, old)
        set_wanted(application, new)
        application.runtime.start(*ordered(new, stopping=False))
        application.claim_created()


# --- the operator's own command -------------------------------------------------------------------------

Action = Literal["stop", "start", "restart"]


class CommandFacts(WarningFacts):
    stopped: list[str] | None = None
    """The services that were stopped, with those that depend on the named ones."""


class CommandServices(TypedStep[CommandFacts], frozen=True):
    """Do `service stop | start | restart`, and record durably what should run afterwards."""

    name = "services.command"
    is_undone = True

    action: Action
    names: tuple[str, ...]
    """The named services, then `again`; all if empty."""
    along: tuple[str, ...] = ()
    """The services that are stopped or restarted with the named ones, because they depend on them."""
    again: tuple[str, ...] = ()
    """The services that are started with the named ones, because they were stopped with them."""

    @property
    def title(self) -> str:
        named = self.names[: len(self.names) - len(self.again)]
        return f"{self.action} {', '.join(named) or 'all services'}{self.others}"

    @property
    def others(self) -> str:
        """Return the text that names the other services; empty if there are none."""
        return f", with {', '.join([*self.along, *self.again])}" if self.along or self.again else ""

    def do(self, application: ApplicationContext, context: Context[CommandFacts]) -> None:
        memory = remembered(application, context.operation, "before")
        if not memory.exists():
            save_instances(memory, wanted(application))
        before = load_instances(memory)
        affected = chosen(before, self.action, self.names)
        if self.action != "start":
            refuse_blocked(application, [instance.service for instance in affected])
            stopping.stop(application, context, affected)
        if self.action == "stop":
            context.facts.stopped = [instance.service for instance in affected]
            context.record()
            set_wanted(application, [instance for instance in before if instance not in affected])
        else:
            self._start(application, context, memory, [*affected, *self._new_instances(application, before)])

    def _new_instances(
        self, application: ApplicationContext, before: Sequence[ServiceInstance]
    ) -> list[ServiceInstance]:
        """Return instances of the services that are to run and did not."""
        release = application.current_release()
        ran = {instance.service for instance in before}
        services = application.loaded.configuration.running_services()
        made = []
        for name in self.names or services:
            if release is not None and name not in ran:
                is_web = application.loaded.configuration.service_kind(name) == "web"
                port = free_loopback_port() if is_web else None
                made.append(instance_of(application, name, services[name], release, port))
        return made

    def _start(
        self,
        application: ApplicationContext,
        context: OperationContext,
        memory: Path,
        instances: Sequence[ServiceInstance],
    ) -> None:
        release = application.current_release()
        now = {instance.name: on_usable_port(application, instance) for instance in instances}
        affected = list(now.values())
        before = [now.get(instance.name, instance) for instance in load_instances(memory)]
        save_instances(memory, before)  # an undo sends visitors to the port on which a web was started meanwhile
        for instance in ordered(affected, stopping=False):
            application.runtime.start(instance)
            verify(application, instance, context)
            if instance.kind == "web" and release is not None:
                application.gate.route(release.id, target_of(application, instance))
        set_wanted(application, [*(item for item in before if item not in affected), *affected])
        if affected:
            start_wanted(application)  # start all, because a runtime that died has ended the others, too

    def undo(self, application: ApplicationContext, context: Context[CommandFacts]) -> None:
        """Start what should have run before."""
        memory = remembered(application, context.operation, "before")
        if memory.exists():
            before = load_instances(memory)
            set_wanted(application, before)
            _stop_others(application, {item.name for item in before})
            start_wanted(application)
