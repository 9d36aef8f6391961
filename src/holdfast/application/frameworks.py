"""How frameworks store their migrations: the table with the applied ones, the files that contain them.

Sources: the documentation of Alembic (`alembic_version`), Doctrine Migrations (`doctrine_migration_versions`), Rails
(`schema_migrations`) and Flyway (`flyway_schema_history`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from holdfast.application import bundles


class Framework(msgspec.Struct, frozen=True):
    """A framework: `applied` selects names, `files` are patterns, `name` returns the name of a file or None."""

    applied: str
    files: tuple[str, ...]
    name: Callable[[Path], str | None]


def _rails(path: Path) -> str | None:
    """Return the version of a file as Rails records it: a number. Redmine adds the plugin that it is from."""
    found = re.match(r"(\d+)_", path.name)
    if not found:
        return None
    plugin = path.parents[2].name if len(path.parts) > 4 and path.parts[-5] == "plugins" else ""
    return f"{int(found[1])}-{plugin}" if plugin else str(int(found[1]))


def _flyway(path: Path) -> str | None:
    """Return the version of a file: `V1_2__text.sql` is version 1.2."""
    found = re.match(r"V([0-9._]+?)__", path.name)
    return found[1].replace("_", ".") if found else None


def _revision(path: Path) -> str | None:
    found = re.search(r"^revision\b[^=]*=\s*['\"]([^'\"]+)['\"]", path.read_text(errors="replace"), re.MULTILINE)
    return found[1] if found else None


FRAMEWORKS: Mapping[str, Framework] = {
    "alembic": Framework("SELECT version_num FROM alembic_version", ("**/versions/*.py",), _revision),
    "doctrine": Framework(
        "SELECT version FROM doctrine_migration_versions",
        ("migrations/**/Version*.php",),
        lambda path: path.stem,
    ),
    "rails": Framework(
        "SELECT version FROM schema_migrations", ("db/migrate/*.rb", "plugins/*/db/migrate/*.rb"), _rails
    ),
    "flyway": Framework(
        "SELECT version FROM flyway_schema_history WHERE version IS NOT NULL AND success",
        ("**/V*__*.sql",),
        _flyway,
    ),
}


def applied_names(kind: str, rows: Iterable[tuple[object, ...]], release: Path | None, files: str = "") -> list[str]:
    """Return the applied migrations under the names of their files.

    Alembic stores only the last ones; with a release, its files add those before them. OroPlatform stores the latest
    version of a bundle at each run, of which only the newest counts.
    """
    names = [str(row[0]) for row in rows]
    if kind == "oro":
        return bundles.named(bundles.latest(names))
    if kind == "doctrine":
        names = [name.rpartition("\\")[2] for name in names]
    if kind == "alembic" and release is not None:
        names = _with_ancestors(names, release, _patterns(kind, files))
    return sorted(set(names))


def shipped_names(kind: str, release: Path, files: str) -> list[str]:
    framework = FRAMEWORKS[kind]
    found = [
        framework.name(path) for pattern in _patterns(kind, files) for path in release.glob(pattern) if path.is_file()
    ]
    return sorted({name for name in found if name})


def _patterns(kind: str, files: str) -> tuple[str, ...]:
    return (files,) if files else FRAMEWORKS[kind].files


def _with_ancestors(heads: list[str], release: Path, patterns: tuple[str, ...]) -> list[str]:
    """Return revisions with their ancestors, by `down_revision` in the files. Unknown revisions have no ancestors."""
    parents: dict[str, list[str]] = {}
    for path in (path for pattern in patterns for path in release.glob(pattern)):
        revision = _revision(path)
        if revision is not None:
            line = re.search(r"^down_revision\b[^=]*=\s*(.+?)$", path.read_text(errors="replace"), re.MULTILINE)
            parents[revision] = re.findall(r"['\"]([^'\"]+)['\"]", line[1]) if line else []
    found: set[str] = set()
    left = list(heads)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += parents.get(name, [])
    return sorted(found)
