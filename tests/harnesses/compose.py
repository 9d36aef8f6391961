"""The runtime whose services are containers of a Compose project, and packages that are images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from holdfast.drivers.packages.archive import ArchivePackages
from holdfast.drivers.packages.images.driver import ImagePackages
from holdfast.drivers.runtimes.compose.driver import ComposeRuntime
from holdfast.system.host import Host
from tests.contract import projects
from tests.harnesses.harness import History, OpenPackages, OpenRuntime


@contextmanager
def opened(folder: Path) -> Iterator[ComposeRuntime]:
    with projects.project(folder) as made:
        yield made.runtime


@contextmanager
def images(folder: Path, history: History) -> Iterator[ImagePackages]:
    with projects.images(folder, ArchivePackages(folder / "packages", history.repository, Host())) as made:
        yield made


RUNTIMES: Mapping[str, OpenRuntime] = {"compose": opened}
PACKAGES: Mapping[str, OpenPackages] = {"images": images}
