"""The demo's git repository with its tags v1 to v6, and the operator's holdfast.toml next to the releases."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from holdfast.errors import RefusedError
from holdfast.system.host import Host

_COLUMNS = ["author", "text", "file", "sha256"]


@dataclass(frozen=True)
class Version:
    tag: str
    parent: str | None
    migrations: tuple[str, ...]
    columns: tuple[str, ...]
    broken: bool = False
    compatible: tuple[str, ...] = ()


_WITH_MOOD = (*_COLUMNS, "mood")
VERSIONS = (
    Version("v1", None, ("0001_entries",), tuple(_COLUMNS)),
    Version("v2", "v1", ("0001_entries", "0002_mood"), _WITH_MOOD),
    Version("v3", "v2", ("0001_entries", "0002_mood", "0003_dies"), _WITH_MOOD),
    Version("v4", "v2", ("0001_entries", "0002_mood", "0004_harmless"), _WITH_MOOD, broken=True),
    Version("v5", "v2", ("0001_entries", "0002_mood", "0005_slow"), _WITH_MOOD),
    Version(
        "v6",
        "v5",
        ("0001_entries", "0002_mood", "0005_slow", "0006_place"),
        (*_WITH_MOOD, "place"),
        compatible=("0006_place",),
    ),
    Version("v6.1", "v6", ("0001_entries", "0002_mood", "0005_slow", "0006_place"), (*_WITH_MOOD, "place")),
)

_TEMPLATE = """# The guestbook of `holdfast demo`: everything on one page.
[application]
name = "guestbook"
environment = "production"
state = "{state}"

[source]
repository = "{repository}"
shared = {{ "guestbook.sqlite3" = "shared/guestbook.sqlite3", "media" = "shared/media" }}

[environment]
GUESTBOOK_ROWS = "{rows}"
GUESTBOOK_FILES = "{files}"
GUESTBOOK_SLOW_SECONDS = "{slow}"
{environment}

[services.web]
command = ["python3", "app.py", "{{port}}"]
health = "/health"
settle_seconds = {settle}
health_timeout_seconds = {health_timeout}

[tasks]
install = ["python3", "manage.py", "install"]
migrate = ["python3", "manage.py", "migrate"]
warm_cache = ["python3", "manage.py", "warm"]
console = ["python3", "manage.py"]

[databases.main]
{database}

[files.media]
path = "shared/media"

[migrations]
kind = "files"
applied = "SELECT name FROM schema_migrations"
shipped = "migrations/*.py"

[gate]
kind = "{gate}"
listen = "127.0.0.1:{port}"
message = "The guestbook is being upgraded."
drain_seconds = 5

[vaults.local]
kind = "local"
path = "{vault}"

[backup]
references = {{ database = "main", files = "media", query = "SELECT DISTINCT file, sha256 FROM entries" }}
keep = {{ last = 3 }}

[limits]
task_timeout_seconds = {task_timeout}
"""


def write_configuration(
    folder: Path,
    repository: Path,
    state: Path,
    vault: Path,
    port: int,
    *,
    rows: int = 3000,
    files: int = 300,
    slow: float = 2.0,
    settle: float = 0.5,
    gate: str = "front",
    health_timeout: float = 3,
    task_timeout: float = 120,
    database: str = 'kind = "sqlite"\npath = "shared/guestbook.sqlite3"',
    environment: str = "",
) -> Path:
    """Write holdfast.toml into the application's folder.

    `database` and `environment` are lines of their sections.
    """
    text = _TEMPLATE.format(
        state=state,
        repository=repository,
        vault=vault,
        port=port,
        rows=rows,
        files=files,
        slow=slow,
        settle=settle,
        gate=gate,
        health_timeout=health_timeout,
        task_timeout=task_timeout,
        database=database,
        environment=environment,
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "holdfast.toml"
    path.write_text(text)
    return path


def write_repository(folder: str) -> Path:
    """Write the repository to a new folder. Raise RefusedError if something is there."""
    path = Path(folder).absolute()
    if os.path.lexists(path):
        raise RefusedError(f"{path} exists already", next_step="Name a folder that does not exist yet.")
    build(path, Host())
    Host().capture(["git", "-C", str(path), "checkout", "--quiet", "main"])
    return path


def build(folder: Path, host: Host, database: Path | None = None, broken_timeout: float | None = None) -> None:
    """Make the repository; every version is a commit with a tag. `database` is a module instead of the SQLite one.

    `broken_timeout`: the health timeout, in seconds, of the release that answers 500, where the operator allows more.
    """
    source = resources.files("holdfast.demo") / "application"
    folder.mkdir(parents=True)
    git = ["git", "-C", str(folder), "-c", "user.name=Guestbook", "-c", "user.email=guestbook@example.invalid"]
    host.capture([*git, "init", "--quiet", "--initial-branch=main"])
    for version in VERSIONS:
        if version.parent is not None:
            host.capture([*git, "checkout", "--quiet", "--detach", version.parent])
        for name in ("app.py", "manage.py"):
            (folder / name).write_text((source / name).read_text())
        (folder / "database.py").write_text((database or source / "database.py").read_text())
        (folder / "migrations").mkdir(exist_ok=True)
        for name in version.migrations:
            (folder / "migrations" / f"{name}.py").write_text((source / "migrations" / f"{name}.py").read_text())
        settings = {"version": version.tag, "broken": version.broken, "columns": version.columns}
        (folder / "settings.json").write_text(json.dumps(settings, indent=1) + "\n")
        own = folder / "holdfast.toml"
        own.unlink(missing_ok=True)
        if version.compatible:
            own.write_text(f"[migrations]\ncompatible = {json.dumps(list(version.compatible))}\n")
        elif version.broken and broken_timeout is not None:
            own.write_text(f"[services.web]\nhealth_timeout_seconds = {broken_timeout}\n")
        host.capture([*git, "add", "--all"])
        host.capture([*git, "commit", "--quiet", "--message", f"Guestbook {version.tag}"])
        host.capture([*git, "tag", version.tag])
