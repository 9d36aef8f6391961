"""Opens the runtimes: supervisord always, for the gate's own server; a Compose project where one is configured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from holdfast.config.load import ResolvedConfig
from holdfast.drivers.kinds import DriverClass
from holdfast.drivers.protocols.runtimes import Runtime
from holdfast.errors import StepError
from holdfast.system import durable
from holdfast.system.host import Host

if TYPE_CHECKING:
    from holdfast.drivers.runtimes.compose.driver import ComposeRuntime
    from holdfast.drivers.runtimes.compose.project import Compose, Project


def _supervisor() -> Callable[..., Runtime]:
    from holdfast.drivers.runtimes.supervisor.driver import SupervisorRuntime

    return SupervisorRuntime


def _compose() -> Callable[..., ComposeRuntime]:
    from holdfast.drivers.runtimes.compose.driver import ComposeRuntime

    return ComposeRuntime


KINDS: Mapping[str, DriverClass[Runtime]] = {"supervisor": _supervisor, "compose": _compose}


def open_supervisor(loaded: ResolvedConfig, host: Host) -> Runtime:
    """Return the runtime of processes of this machine."""
    return _supervisor()(loaded.state / "supervisor", loaded.environment_id, host)


def open_compose(loaded: ResolvedConfig, host: Host) -> ComposeRuntime | None:
    """Return the runtime of containers, where it is configured."""
    configuration = loaded.configuration
    if configuration.runtime.kind != "compose":
        return None
    ports = {name: service.port for name, service in configuration.services.items()}
    web = next((name for name in ports if configuration.service_kind(name) == "web"), "")
    return _compose()(
        loaded.state / "compose",
        loaded.environment_id,
        host,
        project_of(loaded, loaded.root, loaded.root),
        ports=ports,
        web=web,
        keep_ports=configuration.gate.kind == "none",
        reached_inside=bool(configuration.gate.container),
    )


def project_of(loaded: ResolvedConfig, sources: Path, folder: Path, name: str = "") -> Project:
    """Return the Compose project that a tree of sources describes; its paths are relative to `folder`."""
    from holdfast.drivers.runtimes.compose.project import Project, env_files_in, files_in

    runtime = loaded.configuration.runtime
    return Project(
        tuple(runtime.command),
        folder,
        files_in(runtime.files, sources, loaded.root),
        env_files_in(runtime.env_files, loaded.root),
        tuple(runtime.profiles),
        name or runtime.project,
    )


def compose_commands(loaded: ResolvedConfig) -> tuple[Callable[..., Compose], str] | None:
    """Return what makes the operator's Compose command for sources, and its engine; None without containers."""
    if loaded.configuration.runtime.kind != "compose":
        return None
    return partial(compose_command, loaded), project_of(loaded, loaded.root, loaded.root).engine


def compose_command(loaded: ResolvedConfig, sources: Path, folder: Path, name: str = "") -> Compose:
    """Return the operator's Compose command for such a project."""
    from holdfast.drivers.runtimes.compose.cli.select import compose_of

    return compose_of(project_of(loaded, sources, folder, name))


def with_volume_folders(loaded: ResolvedConfig, compose: ComposeRuntime) -> ResolvedConfig:
    """Return the configuration with the folders in which the engine keeps the volumes that are datasets.

    While the engine does not answer, the folders that it named last are used, because a recovery may come before the
    engine is back. An engine that answers and has no such volume is believed. Raise StepError.
    """
    configuration = loaded.configuration
    volumes = {name: item for name, item in configuration.files.items() if item.volume and not item.path}
    if not volumes:
        return loaded
    memory = loaded.state / "volumes.json"
    known = durable.read_json(memory, dict[str, str]) if memory.exists() else {}
    try:
        compose.prepare()
    except StepError:
        if not {item.volume for item in volumes.values()} <= set(known):
            raise
        places = known
    else:
        places = {item.volume: compose.place_of(item.volume) for item in volumes.values()}
    if places != known:
        durable.write_file(memory, json.dumps(places, indent=1))
    found = {name: structs.replace(item, path=places[item.volume]) for name, item in volumes.items()}
    return structs.replace(loaded, configuration=structs.replace(configuration, files={**configuration.files, **found}))
