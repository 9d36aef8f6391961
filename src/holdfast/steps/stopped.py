"""The configured services that do not run: who stopped them, and together with which others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from holdfast.application.context import ApplicationContext
from holdfast.engine.records import OperationRecord
from holdfast.errors import StepError
from holdfast.model import ServiceStatus
from holdfast.steps import services

_COMMAND = "services.command"


class Stopped(msgspec.Struct, frozen=True):
    """One service that does not run."""

    service: str
    operation: str = ""
    """The operation that stopped it; empty if none is known."""
    title: str = ""
    user: str = ""
    at: str = ""
    together_with: tuple[str, ...] = ()
    """The named services, if this one was not named and was only stopped because it depends on them."""
    is_open: bool = False
    """Whether that operation is open; it starts the service again."""
    should_run: bool = False

    @property
    def text(self) -> str:
        if self.should_run:
            return "not running, and should run"
        if not self.operation:
            return "stopped"
        if self.is_open:
            return f"stopped by {self.title}"
        others = f" with {', '.join(self.together_with)}" if self.together_with else ""
        return f"stopped{others} by {self.user}, {self.at}"

    @property
    def status(self) -> ServiceStatus:
        return ServiceStatus(self.service, running=False, pid=None, uptime_seconds=0.0, detail=self.text)


def stopped(application: ApplicationContext, statuses: Mapping[str, ServiceStatus] | None) -> list[Stopped]:
    """Return the services of the current release that do not run; `statuses` is None if the runtime has none."""
    if application.current_release() is None:
        return []
    wanted = {instance.service for instance in services.wanted(application)}
    present = {service_of(application, name) for name in statuses or ()}
    missing = [name for name in _services(application) if name not in present]
    found = []
    for name in missing:
        if name in wanted:
            found += [Stopped(name, should_run=True)] if statuses is not None else []
        else:
            found.append(_by_open_operation(application, name) or _by_command(application, name) or Stopped(name))
    return found


def leading_to(application: ApplicationContext, names: Sequence[str]) -> list[str]:
    """Return the services that a stop or restart of others takes along."""
    chosen = services.chosen(services.wanted(application), "stop", names)
    return [instance.service for instance in chosen if names and instance.service not in names]


def stopped_with(application: ApplicationContext, names: Sequence[str]) -> list[str]:
    """Return what was stopped only because these services were, and is started with them again."""
    running = {instance.service for instance in services.wanted(application)}
    found = []
    for name in _services(application) if names else ():
        if name not in names and name not in running:
            last = _by_command(application, name)
            if last is not None and set(last.together_with) & set(names):
                found.append(name)
    return found


def _services(application: ApplicationContext) -> list[str]:
    """Return the configured services that the current release has."""
    names = list(application.loaded.configuration.running_services())
    release = application.current_release()
    if release is not None:
        with contextlib.suppress(OSError, StepError):  # its folder may be gone, which `status` reports
            return application.runtime.services_of(release.path, names)
    return names


def service_of(application: ApplicationContext, instance: str) -> str:
    """Return the service of an instance's name, which consists of the service and a release."""
    for item in services.wanted(application):
        if item.name == instance:
            return item.service
    fits = [name for name in application.loaded.configuration.running_services() if instance.startswith(f"{name}-")]
    return max(fits, key=len, default=instance)


def _by_open_operation(application: ApplicationContext, service: str) -> Stopped | None:
    for record in application.journal.unfinished():
        if service in {instance.service for instance in services.stopped_by(application, record.id)}:
            return Stopped(service, record.id, record.title, record.user, record.started_at, is_open=True)
    return None


def _by_command(application: ApplicationContext, service: str) -> Stopped | None:
    """Return the newest `service stop` that stopped this service."""
    for record, names, ended in _stops(application):
        if service in ended:
            others = () if service in names or not names else tuple(names)
            return Stopped(service, record.id, record.title, record.user, record.started_at, others)
    return None


def _stops(application: ApplicationContext) -> Iterator[tuple[OperationRecord, Sequence[str], Sequence[str]]]:
    """Yield each `service stop`, newest first: the services that were named, and all that were stopped by it."""
    for record in application.journal.committed(["service.stop", "maintenance.on"]):
        step = next((one for one in application.journal.steps(record.id) if one.name == _COMMAND), None)
        if step is None:
            continue  # a maintenance that left the services alone
        # Not as the step's class reads it: a later version may have written more, and nothing is done upon this.
        names: list[str] = step.parameters.get("names") or []
        asked = names or list(application.loaded.configuration.running_services())
        yield record, names, [*asked, *(step.facts.get("stopped") or ())]
