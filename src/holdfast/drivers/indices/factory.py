"""Opens the search indices that are configured; a driver is imported when its kind is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import cast

from holdfast.config import kinds
from holdfast.config.load import ResolvedConfig
from holdfast.drivers.kinds import OpenedOnDemand
from holdfast.drivers.protocols.indices import SearchIndex
from holdfast.system.host import Host

OpenIndex = Callable[[str, ResolvedConfig, Host], SearchIndex]
"""Opens the index of one section of the configuration, given with its name."""


def open_indices(loaded: ResolvedConfig, host: Host) -> Mapping[str, SearchIndex]:
    """Return a driver for each index."""
    sections = loaded.configuration.indices

    def open_one(name: str) -> SearchIndex:
        module = import_module(kinds.INDICES[sections[name].kind])
        opened = cast(OpenIndex, module.open_index)  # the contract suite proves its type
        return opened(name, loaded, host)

    return OpenedOnDemand(sections, open_one)
