"""The checks of a service: it runs, is of its release, stays up and is healthy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from holdfast.application.commands import filled
from holdfast.application.context import ApplicationContext
from holdfast.application.health_watch import Failed, Healthy, PortTaken, Seen, Terms, is_down, judge
from holdfast.application.instances import configured
from holdfast.config.schema import Service
from holdfast.errors import CommandFailedError, CommandTimeoutError, PortTakenError, StepError
from holdfast.model import ServiceInstance
from holdfast.system.accounts import account_of
from holdfast.system.ports import listeners_on, other_listeners_on, ports_of
from holdfast.system.processes import command_of

if TYPE_CHECKING:
    from holdfast.application.health_request import Answer

_POLL_SECONDS = 0.05
_PAUSE_GROWS, _LONGEST_PAUSE_SECONDS = 1.5, 2.0
_LINES_OF_A_CHECK = 5
_PATIENCE, _PATIENCE_SECONDS = 5, 120  # a factor for the time of a start, and the longest extension


class Cancellable(Protocol):
    """The context of what the operator may stop."""

    def check_cancelled(self) -> None: ...


def verify(
    application: ApplicationContext,
    instance: ServiceInstance,
    context: Cancellable,
    *,
    at_most_seconds: float = float("inf"),
    patient: bool = False,
    backends: Sequence[ServiceInstance] = (),
) -> None:
    """Return once an instance runs, is of its release, stays one process and is healthy.

    A `patient` verification waits longer and allows the retries of the runtime for a process that ended. It is for
    services that ran before an operation: they need not prove anything, and may be slow or lose a race at their start
    that they win a second later. If such a service is given up, an operator has to decide. A web depends on its
    `backends`, and is given up as soon as one of them ended. One that answers 500 or 501 from its first answer on is
    given up early, unless the verification is patient.

    Raise StepError with the output of the service.
    """
    service = configured(application, instance)
    timeout = service.health_timeout_seconds if service else 60.0
    if patient:
        timeout = min(timeout * _PATIENCE, timeout + _PATIENCE_SECONDS)
    settle = service.settle_seconds if service else 1.0
    terms = Terms(instance.release, min(timeout, at_most_seconds), settle, patient)
    began = time.monotonic()
    pause = _POLL_SECONDS  # a command costs more than a request, so its pauses grow
    seen: Seen | None = None
    while True:
        context.check_cancelled()
        seen = _look(application, instance, service, backends, terms, lambda: time.monotonic() - began, seen)
        verdict = judge(seen, terms)
        if isinstance(verdict, Healthy):
            return
        if isinstance(verdict, PortTaken):
            raise PortTakenError(f"port {instance.port} of service {instance.service} is taken by another process")
        if isinstance(verdict, Failed):
            where = _where_it_listens(instance, seen) if verdict.is_late else ""
            raise _unhealthy(application, verdict.service or instance, verdict.why + where)
        time.sleep(_POLL_SECONDS)
        if service is not None and service.health_command and seen.pid is not None:
            time.sleep(max(0.0, min(pause, _LONGEST_PAUSE_SECONDS) - _POLL_SECONDS))
            pause *= _PAUSE_GROWS


def _look(
    application: ApplicationContext,
    instance: ServiceInstance,
    service: Service | None,
    backends: Sequence[ServiceInstance],
    terms: Terms,
    clock: Callable[[], float],
    before: Seen | None,
) -> Seen:
    """Look at a service, and ask only for what is not decided yet."""
    statuses = application.runtime.statuses()
    status = statuses.get(instance.name)
    seen = Seen(clock(), status).compared_with(before)
    for backend in backends:
        if is_down(ended := statuses.get(backend.name)):
            return replace(seen, ended_backend=(backend, ended))
    if is_down(status, patient=terms.patient):
        return replace(seen, port_taken=instance.port is not None and bool(listeners_on(instance.port)))
    if status is None or status.pid is None or (seen.restarted and not terms.patient):
        return seen
    healthy, said, answered = is_healthy(application, instance, service)
    if status.healthy is False:
        healthy, said = False, f"its health check says {status.detail}"
    seen = replace(seen, at=clock(), healthy=healthy, said=said).answered(answered)
    release = application.runtime.release_of(instance.name) if seen.is_settled(terms) else None
    if release == instance.release and instance.port is not None and not status.holds_port:
        seen = replace(seen, port_taken=bool(other_listeners_on(instance.port, status.pid)))
    return replace(seen, at=clock(), release=release)


def _where_it_listens(instance: ServiceInstance, seen: Seen) -> str:
    """Return what a service does instead of listening on the port that it was given; empty if it listens there."""
    if instance.port is None or seen.status is None or seen.status.pid is None or seen.status.holds_port:
        return ""
    found = ports_of(seen.status.pid)
    if instance.port in found:
        return ""
    ports = ", ".join(map(str, found)) or "no port"
    command = command_of(seen.status.pid)
    return f"; its process {seen.status.pid} ({command}) listens on {ports}, and was given port {instance.port}"


def is_healthy(application: ApplicationContext, instance: ServiceInstance, service: Service | None) -> Answer:
    """Ask a service whether it is healthy, as its configuration says; one without a check is."""
    from holdfast.application.health_request import Answer, answers  # with the HTTP client, which few commands need

    if service is None:
        return Answer(True, "")
    if service.health and instance.port is not None:
        return answers(
            instance.port,
            service.health,
            service.health_headers,
            contains=service.health_contains,
            timeout_seconds=service.health_answer_seconds,
        )
    if service.health_command:
        try:
            application.host.run(
                filled(application, service.health_command, instance.directory, instance.port),
                cwd=instance.directory,
                environment=application.host.resolved(instance.environment),
                account=account_of(service.user),
                timeout_seconds=service.health_timeout_seconds,
            )
        except CommandFailedError as error:
            said = [f"  > {line}" for line in error.output_tail.strip().splitlines()[-_LINES_OF_A_CHECK:]]
            return Answer(False, "\n".join([error.what, *said]))
        except CommandTimeoutError as error:
            return Answer(False, error.what)
    return Answer(True, "")


def _unhealthy(application: ApplicationContext, instance: ServiceInstance, why: str) -> StepError:
    tail = application.runtime.output_tail(instance.name).strip().splitlines()[-8:]
    shown = "\n".join(f"  | {application.host.redactor.text(line)}" for line in tail)
    return StepError(
        f"service {instance.service} of release {instance.release}: {why}" + (f"\n{shown}" if shown else "")
    )
