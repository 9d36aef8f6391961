"""The step that records in the registry which packages this environment runs or may go back to."""

from __future__ import annotations

import hashlib
import socket
import time

from holdfast.application.context import ApplicationContext
from holdfast.errors import CancelledError, HoldfastError
from holdfast.model.packages import PATCHED, EnvironmentUse
from holdfast.steps.release import known_releases
from holdfast.steps.typed import Context, NoFacts, TypedStep


class RecordUse(TypedStep[NoFacts], frozen=True):
    """Record which packages a prune of any environment must keep in the registry.

    A registry that does not answer must not stop an application. The operation then reports that, and the next one
    records the packages.
    """

    name = "package.record"
    is_undone = True

    also: tuple[str, ...] = ()
    """Packages that a release is about to be made of."""

    @property
    def title(self) -> str:
        return "record in the registry what runs here"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        self._record(application, context, self.also)

    def undo(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        self._record(application, context, ())

    @staticmethod
    def _record(application: ApplicationContext, context: Context[NoFacts], also: tuple[str, ...]) -> None:
        if application.registry is None:
            return
        try:
            application.registry.record(use_of(application, also))
        except CancelledError:
            raise
        except HoldfastError as error:
            context.say(f"{error.what}. So the registry does not know yet which packages this environment needs.")


def use_of(application: ApplicationContext, also: tuple[str, ...] = ()) -> EnvironmentUse:
    """Return the packages of the kept releases, each without what patches made of it."""
    current = application.current_release()
    ids = [*also, *(release.package for release in known_releases(application))]
    return EnvironmentUse(
        environment=application.loaded.configuration.application.environment,
        key=environment_key(application),
        recorded_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        current=_root(current.package) if current is not None else "",
        packages=tuple(sorted({_root(id) for id in ids})),
    )


def environment_key(application: ApplicationContext) -> str:
    """Return what tells this environment from all others that share the registry, also on other machines."""
    owner = f"{application.loaded.owner}@{socket.gethostname()}"
    digest = hashlib.sha256(owner.encode()).hexdigest()[:8]
    return f"{application.loaded.configuration.application.environment}.{digest}"


def _root(id: str) -> str:
    return id.partition(PATCHED)[0]
