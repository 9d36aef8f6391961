"""The engine of a client program's name."""

from __future__ import annotations

from holdfast.containers.docker import Engine
from holdfast.containers.podman import PodmanEngine
from holdfast.system.host import Host

_ENGINES: dict[str, type[Engine]] = {"docker": Engine, "podman": PodmanEngine}


def engine_named(name: str, host: Host) -> Engine:
    """Return the engine of `docker` or `podman`."""
    return _ENGINES[name](name, host)
