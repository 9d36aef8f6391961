"""Containers of a project's configured services, whoever started them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from holdfast.drivers.runtimes.compose_container import label, reached_by
from holdfast.drivers.runtimes.compose_engine import Engine, Known
from holdfast.drivers.runtimes.compose_model import APPLICATION_LABEL
from holdfast.errors import RefusedError
from holdfast.model import Running

_SERVICE = "com.docker.compose.service"


def running_of(engine: Engine, project: str, services: Collection[str], mark: str) -> list[Known]:
    """Those that run. Raises RefusedError where one was started for an application with another mark."""
    found = engine.of_project(project)
    running = [item for item in found if label(item, _SERVICE) in services and item["State"]["Running"]]
    for item in running:
        if (other := label(item, APPLICATION_LABEL)) not in ("", mark):
            name = str(item["Name"]).lstrip("/")
            raise RefusedError(
                f"container {name} of this Compose project was started by Holdfast for {other}, not for {mark}",
                next_step="Give each environment a project of its own (COMPOSE_PROJECT_NAME, or `runtime.project`). One that"
                f" is left over: {engine.name} rm --force {name}",
            )
    return running


def one_of_each(running: Sequence[Known], services: Collection[str]) -> dict[str, Running]:
    """By service. Raises RefusedError where one has several."""
    found: dict[str, Running] = {}
    for item in running:
        service = label(item, _SERVICE)
        if service not in services:
            continue
        if service in found:
            raise RefusedError(
                f"service {service} has several containers",
                next_step="Holdfast runs one of each: scale it down to one first.",
            )
        found[service] = Running(item["Id"], item["Image"], reached_by(item))
    return found
