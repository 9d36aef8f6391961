"""Containers of a project's configured services, whoever started them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from holdfast.containers.container import APPLICATION_LABEL, label, reached_by
from holdfast.containers.docker import SERVICE, Engine
from holdfast.containers.facts import Known
from holdfast.errors import RefusedError
from holdfast.model import Running


def running_of(engine: Engine, project: str, services: Collection[str]) -> list[Known]:
    found = engine.of_project(project)
    return [item for item in found if label(item, SERVICE) in services and item["State"]["Running"]]


def is_own(item: Known, environment_id: str) -> bool:
    """Return whether Holdfast started it for the environment with that id, or did not start it at all."""
    return label(item, APPLICATION_LABEL) in ("", environment_id)


def refuse_others(running: Iterable[Known], environment_id: str, engine_name: str) -> None:
    """Raise RefusedError where Holdfast started one for another environment."""
    for item in running:
        if not is_own(item, environment_id):
            name, other = str(item["Name"]).lstrip("/"), label(item, APPLICATION_LABEL)
            raise RefusedError(
                f"container {name} of this Compose project was started by Holdfast for {other},"
                f" not for {environment_id}",
                next_step="Give each environment a project of its own (COMPOSE_PROJECT_NAME, or `runtime.project`)."
                f" Remove a container that is left over: {engine_name} rm --force {name}",
            )


def one_of_each(running: Sequence[Known], services: Collection[str]) -> dict[str, Running]:
    """Return the containers by service. Raise RefusedError where a service has several."""
    found: dict[str, Running] = {}
    for item in running:
        service = label(item, SERVICE)
        if service not in services:
            continue
        if service in found:
            raise RefusedError(
                f"service {service} has several containers",
                next_step="Scale it down to one container first, because Holdfast runs one of each.",
            )
        found[service] = Running(item["Id"], item["Image"], reached_by(item))
    return found
