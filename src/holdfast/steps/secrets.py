"""The steps of `secret apply`: services that use a changed secret stop, the values change, the services start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from holdfast.application.context import ApplicationContext
from holdfast.application.health import verify
from holdfast.errors import StepError
from holdfast.model import ServiceInstance
from holdfast.steps import stopping
from holdfast.steps.services import (
    chosen,
    load_instances,
    on_usable_port,
    ordered,
    remembered,
    route_visitors,
    save_instances,
    set_wanted,
    stop_groups,
    wanted,
)
from holdfast.steps.typed import Context, NoFacts, OperationContext, TypedStep, WarningFacts
from holdfast.system import durable
from holdfast.system.secret_store import SecretStore
from holdfast.system.secrets import STORED

_ALL, _USERS = "all", "users"


def users_of(application: ApplicationContext, names: Sequence[str]) -> list[ServiceInstance]:
    """Return the running instances that use one of these secrets, with the webs that depend on a backend of them."""
    references = {f"{STORED}{name}" for name in names}
    running = wanted(application)
    services = [item.service for item in running if references & {*item.environment.values()}]
    return chosen(running, "restart", services) if services else []


def store_of(application: ApplicationContext) -> SecretStore:
    assert application.host.store is not None, "the wiring opens it"
    return application.host.store


class StopUsers(TypedStep[WarningFacts], frozen=True):
    """Stop the services that use a changed secret, and remember what ran."""

    name = "secrets.stop_users"
    is_undone = True

    services: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"stop {', '.join(self.services)}"

    def do(self, application: ApplicationContext, context: Context[WarningFacts]) -> None:
        memory = remembered(application, context.operation, _ALL)
        if not memory.exists():
            save_instances(memory, wanted(application))
        users = [item for item in load_instances(memory) if item.service in self.services]
        set_wanted(application, [item for item in load_instances(memory) if item not in users])
        stopping.stop(application, context, users)

    def undo(self, application: ApplicationContext, context: Context[WarningFacts]) -> None:
        """Start them again, with the values from before."""
        memory = remembered(application, context.operation, _ALL)
        if memory.exists():
            _start(application, context, memory, self.services, patient=True)


class SwitchSecrets(TypedStep[NoFacts], frozen=True):
    """Put pending values in use, in one write of one file; the operation's folder keeps the file as it was."""

    name = "secrets.switch"
    is_undone = True

    names: tuple[str, ...]
    removed: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        if self.removed:
            return f"remove {', '.join(self.removed)}"
        return f"put {', '.join(self.names)} in use"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        """Decrypt what is to be used and what it replaces, before anything changes. Raise RefusedError."""
        store = store_of(application)
        before = self._before(application, context)
        if not before.exists():
            for name in self.names:
                application.host.redactor.add(store.pending_value(name))
            durable.write_file(before, store.content())
        store.switch(before.read_bytes(), self.names, self.removed)

    def undo(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        before = self._before(application, context)
        if before.exists():
            store_of(application).put_back(before.read_bytes())

    def _before(self, application: ApplicationContext, context: OperationContext) -> Path:
        return application.operation_folder(context.operation) / "secrets.before.json"


class StartUsers(TypedStep[NoFacts], frozen=True):
    """Start the services with the new values and verify them."""

    name = "secrets.start_users"
    is_undone = True

    services: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"start and verify {', '.join(self.services)}"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        """Raise StepError, upon which the values from before come back."""
        _start(application, context, remembered(application, context.operation, _ALL), self.services)

    def undo(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        """Stop them, because they have the new values."""
        memory = remembered(application, context.operation, _ALL)
        users = [item for item in load_instances(memory) if item.service in self.services]
        set_wanted(application, [item for item in load_instances(memory) if item not in users])
        for together in stop_groups(users):
            application.runtime.stop(*(item.name for item in together))


def _start(
    application: ApplicationContext,
    context: OperationContext,
    memory: Path,
    services: Sequence[str],
    *,
    patient: bool = False,
) -> None:
    """Start and verify the services among the remembered instances, then let all of them be those that should run."""
    now = {item.name: on_usable_port(application, item) for item in load_instances(memory) if item.service in services}
    every = [now.get(item.name, item) for item in load_instances(memory)]
    save_instances(memory, every)  # an undo sends visitors to the port on which a web was started meanwhile
    for instance in ordered(now.values(), stopping=False):
        application.runtime.start(instance)
        route_visitors(application, instance)
    for instance in ordered(now.values(), stopping=False):
        try:
            verify(application, instance, context, patient=patient)
        except StepError as error:
            if not patient:
                raise
            context.say(f"not healthy as it is again: {error.what}")
    set_wanted(application, every)
