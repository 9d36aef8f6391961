"""Code and its upgrades: the source, migrations, the guard of rows, releases and what an upgrade keeps."""

import re
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from holdfast.config.schema.section import Argv, Section, seconds_of
from holdfast.config.schema.services import Task, problems_of

if TYPE_CHECKING:
    from holdfast.config.schema.configuration import Configuration


class PythonSource(Section, frozen=True):
    requirements: Annotated[
        str,
        Meta(
            description="Requirements file in the repository, or its `pyproject.toml`, `uv.lock` or `poetry.lock`;"
            " wheels of all that it names go into the package."
        ),
    ] = "requirements.txt"
    interpreter: Annotated[str, Meta(description="Interpreter that creates the virtual environment of a release.")] = (
        "python3"
    )


class WritablePath(Section, frozen=True):
    """An entry of `source.writable` that is a table."""

    path: Annotated[str, Meta(min_length=1, description="Path in each release.")]
    recursive: Annotated[bool, Meta(description="Whether everything below it is meant, too.")] = False
    group: Annotated[
        str, Meta(description="Group that may write there. Default: the path belongs to the account of the web.")
    ] = ""
    mode: Annotated[
        str,
        Meta(
            pattern=r"^([0-3]?[0-7]{3})?$",
            extra={"expected": "an octal mode such as 2775"},
            description="Mode of folders; files get it without what only folders need.",
        ),
    ] = ""


class Source(Section, frozen=True):
    repository: Annotated[str, Meta(description="Path of the git repository, relative to holdfast.toml.")] = "."
    build: Annotated[
        list[Argv], Meta(description="Commands run in the built tree before it is packed; each a list of arguments.")
    ] = []
    assets: Annotated[
        list[Argv],
        Meta(
            description="Commands that build assets, run after `build` and after the patches;"
            " `package build --skip-assets-build` leaves them out."
        ),
    ] = []
    patches: Annotated[
        str,
        Meta(
            description="Folder in the repository whose `*.patch` files are applied to the tree after `build`, in the"
            " order of their names; empty for none."
        ),
    ] = "patches"
    images: Annotated[
        list[Argv],
        Meta(
            description="The project's own commands that build its images, run in a checkout of the commit instead of"
            " `compose build`. Success is judged by the images built; exit codes are ignored (compose)."
        ),
    ] = []
    shared: Annotated[
        dict[str, str],
        Meta(
            description="Links in each release: path in the release -> path that all releases share. What the release"
            " ships at such a path is copied once, when the shared path does not exist yet. A missing shared path is"
            " created as a folder if it ends with `/` or has no dot in its name; else a task creates the file."
        ),
    ] = {}
    writable: Annotated[
        list[str | WritablePath],
        Meta(
            description="Paths in each release that belong to the account of the web, or of tasks, because the"
            " application writes there: caches, compiled templates. Missing ones are created as folders. An entry may"
            ' also be a table `{ path = "var", recursive = true, group = "www-data", mode = "2775" }`: only this path'
            " without `recursive`; with `group`, that group may write there and the owner stays; without `mode`, the"
            " group gets the right to write."
        ),
    ] = []
    python: Annotated[
        PythonSource | None, Meta(description="For Python: create a virtual environment `.venv` in each release.")
    ] = None

    def problems(self) -> list[str]:
        paths = [one.path for one in self.writable_paths()]
        places = [*(("writable", path) for path in paths), ("patches", self.patches)]
        outside = [(key, path) for key, path in places if path.startswith("/") or ".." in path.split("/")]
        return [f"{key}: {path} is not a path inside the release" for key, path in outside]

    def writable_paths(self) -> list[WritablePath]:
        """Return the paths that the application writes; a text is a tree that belongs to its account."""
        return [WritablePath(one, recursive=True) if isinstance(one, str) else one for one in self.writable]

    def problems_with(self, configuration: "Configuration", name: str) -> list[str]:
        if configuration.runtime.kind != "compose":
            return ["images: is for runtime.kind compose"] if self.images else []
        problems = ["python: is not for containers, whose image has everything"] if self.python is not None else []
        return problems + (["writable: is for runtime.kind supervisor"] if self.writable else [])


class Migrations(Section, frozen=True):
    kind: Annotated[
        Literal["none", "files", "version", "django", "alembic", "doctrine", "rails", "flyway", "oro"],
        Meta(
            description="How Holdfast lists migrations. files: by the names of files in the release; version: by one"
            " version in the database and one in a file of the release, as WordPress and many others do it; django: by"
            " its own command; oro: by the latest version of each bundle; the others: by their own tables and files."
        ),
    ] = "none"
    database: Annotated[
        str, Meta(description="Database that records the applied migrations. Default: the only one.")
    ] = ""
    applied: Annotated[
        str,
        Meta(
            description="SELECT of the names of applied migrations (kind = files), or of the database's version (kind"
            " = version)."
        ),
    ] = ""
    shipped: Annotated[
        str,
        Meta(
            description="Pattern of migration files in the release; their stems are the names (kind = files). The file"
            " that has the version (kind = version). For alembic, doctrine, rails and flyway: the pattern, if it is"
            " not their usual one."
        ),
    ] = ""
    pattern: Annotated[
        str, Meta(description="Regular expression whose one group is the version in that file (kind = version).")
    ] = ""
    on_start: Annotated[
        bool,
        Meta(
            description="The web, or its backend, migrates by itself when it starts. Holdfast looks for missing"
            " migrations before workers start and before the commit, because such start scripts serve even after a"
            " failed migration."
        ),
    ] = False
    pending: Annotated[
        list[str | list[str]],
        Meta(
            description="Command of a release, or a list of them, that prints its pending migrations, one on a line."
            " It runs before services stop, after `migrate`, when nothing may be pending, and before `--source`,"
            " `--rolling` and a rollback."
        ),
    ] = []
    pending_line: Annotated[
        str,
        Meta(description="Regular expression for the lines that name a pending migration, which is its one group."),
    ] = r"^\s*(\S.*?)\s*$"
    sql: Annotated[
        list[str | list[str]],
        Meta(
            description="Command of a release, or a list of them, that prints the SQL of its pending migrations."
            " `--rolling` refuses SQL that drops or alters what the old code uses. Django's `sqlmigrate` is used"
            " without this."
        ),
    ] = []
    check: Annotated[
        list[str | list[str]],
        Meta(
            description="Command of a release, or a list of them, that fails if the schema is not the one that its code"
            " describes, such as `doctrine:schema:validate`; `--source` needs its success."
        ),
    ] = []
    compatible: Annotated[
        list[str],
        Meta(
            description="Patterns of migrations that the old code tolerates. A rolling upgrade needs them, unless `sql`"
            " shows that a migration only adds, or `--allow-incompatible` is given."
        ),
    ] = []
    transactional: Annotated[
        bool,
        Meta(
            description="False if a migration that fails half-way leaves its changes. A rolling upgrade then only takes"
            " migrations whose SQL shows that they only add."
        ),
    ] = True

    def commands(self, key: Literal["pending", "sql", "check"]) -> list[list[str]]:
        """Return the commands of a key."""
        found: list[str | list[str]] = getattr(self, key)
        return Task(found).argvs() if found else []

    def problems(self) -> list[str]:
        found = []
        for key in ("pending", "sql", "check"):
            found += [f"{key}: {problem}" for problem in problems_of(getattr(self, key))]
        return found + _of_pattern("pending_line", self.pending_line)

    def problems_with(self, configuration: "Configuration", name: str) -> list[str]:
        if self.kind == "none":
            return ["on_start: needs migrations.kind, which shows what a start did not apply"] * self.on_start
        problems = []
        if self.database and self.database not in configuration.databases:
            problems.append(f"database: there is no database {self.database!r}")
        if not self.database and len(configuration.databases) != 1:
            problems.append("database: name one of the databases")
        needed = {"files": ("applied", "shipped"), "version": ("applied", "shipped", "pattern")}
        problems += [
            f"{key}: is needed for kind {self.kind}" for key in needed.get(self.kind, ()) if not getattr(self, key)
        ]
        return problems + (_of_pattern("pattern", self.pattern) if self.pattern else [])


def _of_pattern(key: str, pattern: str) -> list[str]:
    """Return the problems of a regular expression that is to have one group."""
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        return [f"{key}: {error}"]
    return [f"{key}: has {groups} groups instead of one"] if groups != 1 else []


class Guard(Section, frozen=True):
    may_shrink: Annotated[
        list[str],
        Meta(
            description="Tables that an upgrade may empty or drop, as shell patterns. `holdfast upgrade --may-shrink"
            " TABLE` allows it once."
        ),
    ] = []
    may_lose: Annotated[
        dict[str, str],
        Meta(description="Tables that an upgrade may take some rows from, each with the share, such as `10%`."),
    ] = {}
    count: Annotated[
        dict[str, str],
        Meta(
            description="Tables of which only some rows must stay, each with the query that counts these, such as"
            " `SELECT count(*) FROM options WHERE name NOT LIKE '_transient%'`."
        ),
    ] = {}
    budget_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="Time for counting rows, once before and once after a migration; visitors wait for it. Small"
            " tables come first; a table that is not counted gives only a warning.",
        ),
    ] = 0.75

    def share(self, table: str) -> float:
        """Return the share of a table's rows that an upgrade may take, from 0 to 1."""
        return float(self.may_lose.get(table, "0%").removesuffix("%")) / 100

    def problems(self) -> list[str]:
        wrong = [name for name, share in self.may_lose.items() if not re.fullmatch(r"\d{1,2}(\.\d+)?%|100%", share)]
        return [f"may_lose: {self.may_lose[name]!r} of {name} is not a share such as 10%" for name in wrong]


class Releases(Section, frozen=True):
    path: Annotated[
        str, Meta(description="Folder of the releases, relative to holdfast.toml; `current` points into it.")
    ] = "releases"
    keep: Annotated[int, Meta(ge=1, description="Releases and packages kept for a rollback.")] = 3


class Upgrade(Section, frozen=True):
    keep_restore_point: Annotated[
        str,
        Meta(
            pattern=r"^(\d+[hd])?$",
            extra={"expected": "a number with h or d, such as 24h"},
            description="How long to keep a restore point after the commit, such as `24h`.",
        ),
    ] = ""
    recent_backup: Annotated[
        str,
        Meta(
            pattern=r"^\d+[hd]$",
            extra={"expected": "a number with h or d, such as 24h, or 0h"},
            description="If the vault contains a younger backup of all datasets, an upgrade dumps databases only after"
            " the commit, from the restore point. Otherwise, and with `0h`, it makes a whole backup before the window"
            " too.",
        ),
    ] = "24h"
    keep_replaced: Annotated[
        str,
        Meta(
            pattern=r"^\d+[hd]$",
            extra={"expected": "a number with h or d, such as 24h or 7d"},
            description="How long to keep data that a restore, rollback, import or clone replaced.",
        ),
    ] = "7d"

    def kept_seconds(self) -> int:
        """Return how long restore points and replaced data are kept."""
        return max(seconds_of(self.keep_restore_point) or 0, seconds_of(self.keep_replaced) or 0)
