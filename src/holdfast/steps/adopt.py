"""The step of `adopt`: running containers, their images and sources become the first release. Nothing is stopped."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from msgspec.structs import asdict, replace

from holdfast.application.context import ApplicationContext
from holdfast.application.instances import instance_of
from holdfast.drivers.protocols.containers import ImageKeeping
from holdfast.errors import RefusedError
from holdfast.model import Release, ServiceInstance
from holdfast.steps import services
from holdfast.steps.release import UnpackFacts, refuse_incompatible
from holdfast.steps.typed import Context, TypedStep
from holdfast.system import durable


class AdoptFacts(UnpackFacts):
    instances: list[str] | None = None


class AdoptContainers(TypedStep[AdoptFacts], frozen=True):
    """Take over the running containers of the project as a release."""

    name = "release.adopt"
    is_undone = True

    release: Release

    @property
    def title(self) -> str:
        return f"take over the running containers as {self.release.label}"

    def do(self, application: ApplicationContext, context: Context[AdoptFacts]) -> None:
        """Take over. Raise RefusedError where no container of the project is running."""
        release = self.release
        containers = application.containers
        configured = application.loaded.configuration.services
        found = containers.running(list(configured)) if containers is not None else {}
        if containers is None or not found:
            raise RefusedError("no container of these services is running", next_step="Run: holdfast install REF")
        images = {service: running.image for service, running in found.items()}
        package = cast(ImageKeeping, application.packages).keep(
            release.commit, release.label, context.operation, images
        )
        context.facts.created, context.facts.path = True, release.path
        context.record()
        durable.make_directory(Path(release.path).parent, 0o755)
        application.packages.unpack(package, Path(release.path), asdict(release))
        refuse_incompatible(application, release)
        instances: dict[str, ServiceInstance] = {}
        for service, running in ((name, found[name]) for name in configured if name in found):
            port = running.port if application.loaded.configuration.service_kind(service) == "web" else None
            made = instance_of(application, service, configured[service], release, port)
            instances[running.id] = replace(made, environment={}, command=())  # as the project's own files have it
        containers.adopt(instances)
        services.set_wanted(application, instances.values())
        context.facts.instances = [instance.name for instance in instances.values()]
        context.record()

    def undo(self, application: ApplicationContext, context: Context[AdoptFacts]) -> None:
        """Forget the containers, which keep running as the operator's own."""
        if not context.facts.created or context.facts.path is None or application.containers is None:
            return
        application.packages.abandon(context.operation)
        application.containers.adopt({})
        services.set_wanted(application, [])
        durable.remove_tree(context.facts.path)
