"""The step of `adopt`: running containers, their images and sources become the first release. Nothing is stopped."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

from holdfast.application.context import Opened
from holdfast.application.instances import instance_of
from holdfast.drivers.protocols.containers import ImageKeeping
from holdfast.engine.runner import StepContext
from holdfast.errors import RefusedError
from holdfast.model import Release, ServiceInstance
from holdfast.steps import services
from holdfast.steps.release import refuse_unfit
from holdfast.system import durable


def take(opened: Opened, context: StepContext) -> None:
    """Take over the running containers. Raise RefusedError where no container of the project is running."""
    release = Release(**context.parameters["release"])
    containers = opened.containers
    configured = opened.loaded.configuration.services
    found = containers.running(list(configured)) if containers is not None else {}
    if containers is None or not found:
        raise RefusedError("no container of these services is running", next_step="Run: holdfast install REF")
    images = {service: running.image for service, running in found.items()}
    package = cast(ImageKeeping, opened.packages).keep(release.commit, release.label, context.operation, images)
    context.record({"created": True, "path": release.path})
    durable.make_directory(Path(release.path).parent, 0o755)
    opened.packages.unpack(package, Path(release.path), asdict(release))
    refuse_unfit(opened, release)
    instances: dict[str, ServiceInstance] = {}
    for service, running in ((name, found[name]) for name in configured if name in found):
        port = running.port if opened.loaded.configuration.service_kind(service) == "web" else None
        made = instance_of(opened, service, configured[service], release, port)
        instances[running.id] = replace(made, environment={}, command=())  # as the project's own files have it
    containers.adopt(instances)
    services.set_wanted(opened, instances.values())
    context.record({"instances": [instance.name for instance in instances.values()]})


def give_back(opened: Opened, context: StepContext) -> None:
    """Undo `take`: the containers keep running, as the operator's own."""
    if not context.facts.get("created") or opened.containers is None:
        return
    opened.packages.abandon(context.operation)
    opened.containers.adopt({})
    services.set_wanted(opened, [])
    durable.remove_tree(context.facts["path"])
