"""The schema versions of the bundles of OroPlatform: the latest of each in the database, and in a release.

Its table `oro_migrations` has one row for each bundle and run, with only the latest version. So names of migrations
cannot be compared, only versions, by PHP's rule: v1_10 is newer than v1_9.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from holdfast.application.php_versions import compare, newest

APPLIED = "SELECT bundle || ' ' || version FROM oro_migrations"
_WHERE = ("src", "vendor")
_VERSION = re.compile(r"getMigrationVersion\s*\([^)]*\)[^{]*\{\s*return\s+['\"]([^'\"]+)['\"]", re.DOTALL)
_SKIPPED = {"node_modules", "Tests", "tests", "public", "translations"}


def latest(names: Iterable[str]) -> dict[str, str]:
    """Return the latest version of each bundle among texts such as `OroUserBundle v1_10`."""
    found: dict[str, list[str]] = {}
    for name in names:
        bundle, _, version = name.rpartition(" ")
        found.setdefault(bundle, []).append(version)
    return {bundle: newest(versions) for bundle, versions in found.items()}


def named(versions: Mapping[str, str]) -> list[str]:
    return sorted(f"{bundle} {version}" for bundle, version in versions.items())


def shipped(release: Path) -> list[str]:
    """Return the latest version of each bundle that a release ships, by its folders and its installers."""
    found: list[str] = []
    for folder in _schema_folders(release):
        bundle = _bundle_of(folder)
        if bundle is None:
            continue
        versions = [path.name for path in folder.iterdir() if path.name.startswith("v") and path.is_dir()]
        for installer in folder.glob("*Installer.php"):
            versions += _VERSION.findall(installer.read_text(errors="replace"))[:1]
        found += [f"{bundle} {version}" for version in versions]
    return named(latest(found))


def newer(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return those whose bundle has an older version, or none, among the others."""
    known = latest(others)
    return [
        f"{bundle} {version}"
        for bundle, version in sorted(latest(names).items())
        if bundle not in known or compare(version, known[bundle]) > 0
    ]


def missing(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return those whose bundle is not among the others at all."""
    known = latest(others)
    return [name for name in named(latest(names)) if name.rpartition(" ")[0] not in known]


def _schema_folders(release: Path) -> Iterator[Path]:
    for top in _WHERE:
        for place, folders, _ in os.walk(release / top):
            folders[:] = [name for name in folders if name not in _SKIPPED and not name.startswith(".")]
            if place.endswith("/Migrations"):
                if "Schema" in folders:
                    yield Path(place, "Schema")
                folders.clear()


def _bundle_of(schema: Path) -> str | None:
    """Return the name of the bundle around a folder `Migrations/Schema`: that of its class; None if it has none."""
    classes = sorted(schema.parents[1].glob("*Bundle.php"))
    return classes[0].stem if classes else None
