"""What a driver of a database gets to open the dataset that one section of the configuration describes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from holdfast.config.load import ResolvedConfig
from holdfast.config.schema import Database as DatabaseSettings
from holdfast.drivers.protocols.containers import Containers
from holdfast.drivers.protocols.databases import OfflineDataDirectory
from holdfast.drivers.protocols.datasets import Dataset
from holdfast.drivers.protocols.sanitizing import Sanitizer
from holdfast.model import Server
from holdfast.system.host import Host


class Opening(msgspec.Struct, frozen=True):
    name: str
    """The name of the section, by which messages call the dataset."""
    settings: DatabaseSettings
    loaded: ResolvedConfig
    host: Host
    containers: Containers | None

    @property
    def path(self) -> Path:
        """Return the file, for an engine without a server."""
        return self.loaded.path(self.settings.path)

    @property
    def server(self) -> Server:
        """Return the server, as its clients reach it."""
        item = self.settings
        container, find = item.container, None
        if self.containers is not None and container.startswith("compose:"):
            find = partial(self.containers.container_of, container.removeprefix("compose:"))
            container = f"{self.containers.engine_name}:"
        return Server(
            host=item.host,
            port=item.port,
            user=item.user,
            password=item.password,
            maintenance=item.maintenance,
            end_sessions=item.end_sessions,
            jobs=item.jobs,
            container=container,
            find_container=find,
        )


OpenDataset = Callable[[Opening], Dataset]
OpenDataDirectory = Callable[[Opening], OfflineDataDirectory]
OpenSanitizer = Callable[[Opening], Sanitizer]
