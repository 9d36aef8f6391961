"""The end of services: the wait for those that are to finish their work, such as consumers, and the stop in order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TypeVar

from holdfast.application.context import ApplicationContext
from holdfast.application.instances import configured
from holdfast.config.schema import Service
from holdfast.errors import CancelledError, CommandFailedError, CommandTimeoutError, StepError
from holdfast.model import ServiceInstance
from holdfast.steps import tasks
from holdfast.steps.services import stop_groups
from holdfast.steps.typed import Context, OperationContext, WarningFacts

_POLL_SECONDS = 0.5
_WarningsT = TypeVar("_WarningsT", bound=WarningFacts)


def drained(application: ApplicationContext, instances: Sequence[ServiceInstance]) -> dict[str, Service]:
    """Return the services among these that have a command by which their end of work is known, each once."""
    found: dict[str, Service] = {}
    known: list[Service] = []
    for instance in instances:
        service = configured(application, instance)
        if service is not None and service.drain and not any(service is one for one in known):
            known.append(service)
            found[instance.service] = service
    return found


def drain(application: ApplicationContext, context: Context[_WarningsT], instances: Sequence[ServiceInstance]) -> None:
    """Wait for each service until it has nothing left to do; say and record which still has at its limit.

    Raise StepError where the operation is to end then.
    """
    for name, service in drained(application, instances).items():
        said = _left(application, context, service)
        if said is None:
            continue
        note = f"service {name} still had work to do after {service.drain_timeout_seconds:g} s: {said}"
        if service.drain_failure == "abort":
            raise StepError(note, next_step="Wait until its work is done, then run the command again.")
        note += "; it was stopped nevertheless"
        context.say(note)
        context.facts.warnings = [*(context.facts.warnings or []), note]
        context.record()


def _left(application: ApplicationContext, context: OperationContext, service: Service) -> str | None:
    """Ask until a service has nothing left to do, and return None; at the limit return the last answer."""
    release = application.current_release()
    if release is None:
        return None
    deadline = time.monotonic() + service.drain_timeout_seconds
    command = tasks.in_release(
        application, release, service.drain, tasks.sessions(application, context.operation), service.user
    )
    while True:
        left = max(0.1, deadline - time.monotonic())
        try:
            application.runtime.run_task(command, context.operation, timeout_seconds=left)
            return None
        except CancelledError:
            raise
        except (CommandFailedError, CommandTimeoutError) as error:
            tail = error.output_tail.strip() if isinstance(error, CommandFailedError) else ""
            said = application.host.redactor.text(tail.splitlines()[-1] if tail else error.what)
        if time.monotonic() >= deadline:
            return said
        context.check_cancelled()
        time.sleep(_POLL_SECONDS)


def stop(
    application: ApplicationContext,
    context: Context[_WarningsT],
    instances: Sequence[ServiceInstance],
    *,
    keep: bool = False,
    at_most_seconds: float | None = None,
) -> None:
    """Stop instances in order; note one that had to be killed, because its work was cut off."""
    by_name = {instance.name: instance for instance in instances}
    for together in stop_groups(instances):
        names = [item.name for item in together]
        late = application.runtime.stop(*names, keep=keep, at_most_seconds=at_most_seconds)
        for name, seconds in late.items() if at_most_seconds is None else ():
            killed = f"service {by_name[name].service} had to be killed after {seconds:g} s"
            note = f"{killed}: it did not end by itself within its stop_timeout_seconds"
            context.say(note)
            context.facts.warnings = [*(context.facts.warnings or []), note]
            context.record()
