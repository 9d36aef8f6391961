"""The checks of a service: it runs, is of its release, stays up and is healthy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from holdfast.application.commands import filled
from holdfast.application.context import Opened
from holdfast.config.schema import Service
from holdfast.errors import CommandFailedError, CommandTimeoutError, PortTakenError, StepError
from holdfast.model import ServiceInstance
from holdfast.system.ports import listeners_on, other_listeners_on

_POLL_SECONDS = 0.05
_RETRIED = ("backoff", "exited")  # the process ended, and the runtime starts it again
_DEAD = ("fatal", "unknown")
_PATIENCE, _PATIENCE_SECONDS = 5, 120  # a factor for the time of a start, and the longest extension


class Cancellable(Protocol):
    """The context of what the operator may stop."""

    def check_cancelled(self) -> None: ...


def verify(
    opened: Opened,
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
    `backends`, and is given up as soon as one of them ended.

    Raise StepError with the output of the service.
    """
    service = configured(opened, instance)
    timeout = service.health_timeout_seconds if service else 60.0
    if patient:
        timeout = min(timeout * _PATIENCE, timeout + _PATIENCE_SECONDS)
    timeout = min(timeout, at_most_seconds)
    settle = service.settle_seconds if service else 1.0
    deadline = time.monotonic() + timeout
    pid: int | None = None
    steady_since = time.monotonic()
    said = "it has not answered yet"
    while True:
        context.check_cancelled()
        statuses = opened.runtime.statuses()
        for backend in backends:
            if (ended := statuses.get(backend.name)) is None or ended.detail in (*_DEAD, *_RETRIED):
                raise _unwell(opened, backend, f"it does not stay up ({ended.detail if ended else 'gone'})")
        status = statuses.get(instance.name)
        if status is None or status.detail in _DEAD or (status.detail in _RETRIED and not patient):
            if instance.port is not None and listeners_on(instance.port):
                raise _port_taken(instance)
            raise _unwell(opened, instance, f"it does not stay up ({status.detail if status else 'gone'})")
        if status.pid != pid:
            if pid is not None and status.pid is not None and not patient:
                raise _unwell(opened, instance, "it was restarted while it was verified")
            pid, steady_since = status.pid, time.monotonic()
        if pid is not None:
            well, said = is_well(opened, instance, service)
            if status.healthy is False:
                well, said = False, f"its health check says {status.detail}"
            # Services of one step come up at the same time, so a service's uptime counts, not how long it was watched.
            settled = well and max(time.monotonic() - steady_since, status.uptime_seconds) >= settle
            running = opened.runtime.release_of(instance.name) if settled else None
            if running is not None and running != instance.release:
                raise _unwell(opened, instance, f"it runs release {running}")
            if running is not None:
                if instance.port is not None and not status.holds_port and other_listeners_on(instance.port, pid):
                    raise _port_taken(instance)
                return
        if time.monotonic() > deadline:
            raise _unwell(opened, instance, f"not healthy after {timeout:g} s: {said}")
        time.sleep(_POLL_SECONDS)


def configured(opened: Opened, instance: ServiceInstance) -> Service | None:
    """Return the configuration of an instance's service; None if holdfast.toml no longer has it."""
    return opened.loaded.configuration.services.get(instance.service)


def is_well(opened: Opened, instance: ServiceInstance, service: Service | None) -> tuple[bool, str]:
    if service is None:
        return True, ""
    if service.health and instance.port is not None:
        from holdfast.application.health_request import answers

        return answers(instance.port, service.health, service.health_headers)
    if service.health_command:
        try:
            opened.host.run(
                filled(opened, service.health_command, instance.directory, instance.port),
                cwd=instance.directory,
                environment=opened.host.resolved(instance.environment),
                as_application=True,
                timeout_seconds=service.health_timeout_seconds,
            )
        except CommandFailedError as error:
            said = error.output_tail.strip().splitlines()[-1:]
            return False, ": ".join([error.what, *said])
        except CommandTimeoutError as error:
            return False, error.what
    return True, ""


def _unwell(opened: Opened, instance: ServiceInstance, why: str) -> StepError:
    tail = opened.runtime.output_tail(instance.name).strip().splitlines()[-8:]
    shown = "\n".join(f"  | {opened.host.redactor.text(line)}" for line in tail)
    return StepError(
        f"service {instance.service} of release {instance.release}: {why}" + (f"\n{shown}" if shown else "")
    )


def _port_taken(instance: ServiceInstance) -> PortTakenError:
    return PortTakenError(f"port {instance.port} of service {instance.service} is taken by another process")
