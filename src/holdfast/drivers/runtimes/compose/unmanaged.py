"""Containers of a project's configured services, whoever started them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from holdfast.containers.container import label, reached_by
from holdfast.containers.docker import SERVICE, Engine, Known
from holdfast.containers.labels import APPLICATION_LABEL
from holdfast.errors import RefusedError
from holdfast.model import Running


def running_of(engine: Engine, project: str, services: Collection[str]) -> list[Known]:
    found = engine.of_project(project)
    return [item for item in found if label(item, SERVICE) in services and item["State"]["Running"]]


def is_own(item: Known, mark: str) -> bool:
    """Whether nobody or the application with that mark started it by Holdfast."""
    return label(item, APPLICATION_LABEL) in ("", mark)


def refuse_others(running: Iterable[Known], mark: str, engine_name: str) -> None:
    """Raises RefusedError where one was started for an application with another mark."""
    for item in running:
        if not is_own(item, mark):
            name, other = str(item["Name"]).lstrip("/"), label(item, APPLICATION_LABEL)
            raise RefusedError(
                f"container {name} of this Compose project was started by Holdfast for {other}, not for {mark}",
                next_step="Give each environment a project of its own (COMPOSE_PROJECT_NAME, or `runtime.project`). One that"
                f" is left over: {engine_name} rm --force {name}",
            )


def one_of_each(running: Sequence[Known], services: Collection[str]) -> dict[str, Running]:
    """By service. Raises RefusedError where one has several."""
    found: dict[str, Running] = {}
    for item in running:
        service = label(item, SERVICE)
        if service not in services:
            continue
        if service in found:
            raise RefusedError(
                f"service {service} has several containers",
                next_step="Holdfast runs one of each: scale it down to one first.",
            )
        found[service] = Running(item["Id"], item["Image"], reached_by(item))
    return found
