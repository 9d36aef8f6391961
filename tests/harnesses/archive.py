"""Packages that are archives of a repository's tree."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

from holdfast.drivers.packages.archive import ArchivePackages
from holdfast.system.host import Host
from tests.harnesses.harness import OpenPackages

PACKAGES: Mapping[str, OpenPackages] = {
    "archive": lambda folder, history: nullcontext(ArchivePackages(folder / "packages", history.repository, Host()))
}
