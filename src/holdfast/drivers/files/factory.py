"""Opens the trees of files that are configured."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from holdfast.config.load import ResolvedConfig
from holdfast.drivers.kinds import DriverClass, OpenedOnDemand
from holdfast.drivers.protocols.files import Files
from holdfast.system.host import Host


def _local() -> Callable[..., Files]:
    from holdfast.drivers.files.local import LocalFiles

    return LocalFiles


KINDS: Mapping[str, DriverClass[Files]] = {"local": _local}


def open_files(loaded: ResolvedConfig, host: Host) -> Mapping[str, Files]:
    """Return a driver for each tree."""
    sections = loaded.configuration.files

    def open_one(name: str) -> Files:
        item = sections[name]
        excludes = [*item.exclude, *_databases_in(loaded, item.path), *_switches_in(loaded, item.path)]
        return KINDS["local"]()(name, loaded.path(item.path), excludes, host, loaded.state / "files" / name)

    return OpenedOnDemand(sections, open_one)


def _switches_in(loaded: ResolvedConfig, files_path: str) -> list[str]:
    """Return the gate's own files below a dataset: a restore must never close the gate."""
    root = loaded.path(files_path)
    paths = [loaded.path(item.path) for item in loaded.configuration.gate.switches.values() if item.kind == "file"]
    return [str(path.relative_to(root)) for path in paths if root in path.parents]


def _databases_in(loaded: ResolvedConfig, files_path: str) -> list[str]:
    """Return patterns of the database files below a dataset: those are saved as databases, never as files."""
    root = loaded.path(files_path)
    patterns = []
    for item in loaded.configuration.databases.values():
        if not item.path:
            continue
        path = loaded.path(item.path)
        for place in {path, Path(os.path.realpath(path))}:  # a link and what it leads to
            if root not in place.parents:
                continue
            inside = str(place.relative_to(root))
            patterns += [inside, *(f"{inside}{ending}" for ending in ("-wal", "-shm", "-journal"))]
    return patterns
