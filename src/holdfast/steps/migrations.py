"""The comparison, both ways, of the migrations that a database has and that a release ships."""

from __future__ import annotations

import fnmatch
import hashlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast.application import bundles, schema_changes
from holdfast.application.context import ApplicationContext
from holdfast.application.frameworks import FRAMEWORKS, applied_names, shipped_names
from holdfast.drivers.protocols.databases import Database, Queryable
from holdfast.drivers.protocols.datasets import Dataset
from holdfast.errors import RefusedError, StepError
from holdfast.model import Facts, Release
from holdfast.steps import tasks

_DJANGO_APPLIED = "SELECT app || '.' || name FROM django_migrations"
_DJANGO_LINE = re.compile(r"^\[(X| )\]\s+(\S+)$")
# A squashed migration replaces others. Django lists either it or those, but the database records all of them.
_DJANGO_REPLACED = """
from django.db.migrations.loader import MigrationLoader
for key, migration in MigrationLoader(None, ignore_no_migrations=True).disk_migrations.items():
    for app, name in [key, *migration.replaces]:
        print(f"on disk {app}.{name}")
"""
_LISTED = 5
_ON_DISK = re.compile(r"^on disk (\S+)$")


def known(application: ApplicationContext) -> bool:
    """Return whether the names of applied and shipped migrations are known."""
    return application.loaded.configuration.migrations.kind != "none"


def tells_pending(application: ApplicationContext) -> bool:
    """Return whether it can be found out which migrations a release would run."""
    return known(application) or bool(application.loaded.configuration.migrations.pending)


def database_of(application: ApplicationContext) -> str:
    """Return the name of the database that records the applied migrations."""
    configured = application.loaded.configuration.migrations.database
    return configured or next(iter(application.loaded.configuration.databases))


def _applied_sql(application: ApplicationContext) -> str:
    migrations = application.loaded.configuration.migrations
    if migrations.kind in FRAMEWORKS:
        return FRAMEWORKS[migrations.kind].applied
    if migrations.kind == "oro":
        return bundles.APPLIED
    return migrations.applied if migrations.kind in ("files", "version") else _DJANGO_APPLIED


def applied(application: ApplicationContext, release: Release | None = None) -> list[str]:
    """Return the names of applied migrations in the live database; empty where their table does not exist yet.

    An unpacked release adds the ancestors of those that the database names.
    """
    if not known(application):
        return []
    database = application.sql_database(database_of(application))
    if not database.inspect()["exists"]:
        return []
    return applied_in(application, database, release)


def applied_in(
    application: ApplicationContext, database: Queryable, release: Release | None = None, *, needs_table: bool = False
) -> list[str]:
    """Return the applied migrations of one database, which may be a candidate; as `applied` does.

    Raise StepError for a table that does not exist with `needs_table`.
    """
    sql = _applied_sql(application)
    try:
        rows = database.query(sql)
    except StepError:
        if not needs_table and not any(table in sql for table in database.tables(budget_seconds=0)):
            return []
        raise
    release = release or application.current_release()
    migrations = application.loaded.configuration.migrations
    return applied_names(migrations.kind, rows, Path(release.path) if release is not None else None, migrations.shipped)


def shipped(application: ApplicationContext, release: Release) -> list[str]:
    """Return the names of the migrations that a release ships."""
    migrations = application.loaded.configuration.migrations
    if migrations.kind == "none":
        return []
    if migrations.kind == "oro":
        return bundles.shipped(Path(release.path))
    if migrations.kind in FRAMEWORKS:
        return shipped_names(migrations.kind, Path(release.path), migrations.shipped)
    if migrations.kind == "version":
        return [_version_in(release, migrations.shipped, migrations.pattern)]
    if migrations.kind == "files":
        return sorted(path.stem for path in Path(release.path).glob(migrations.shipped))
    return sorted(match[2] for match in _answered(application, release, ["showmigrations", "--plan"], _DJANGO_LINE))


def _answered(
    application: ApplicationContext, release: Release, command: Sequence[str], line: re.Pattern[str]
) -> list[re.Match[str]]:
    """Return what matches among the lines that a release's own command prints."""
    configured = application.loaded.configuration.tasks
    migrate = configured.task("migrate")
    manage = _manage(migrate.argvs() if migrate is not None else [], configured.console)
    found = [line.match(text.strip()) for text in printed_by(application, release, [*manage, *command]).splitlines()]
    return [match for match in found if match is not None]


def printed_by(application: ApplicationContext, release: Release, argv: Sequence[str]) -> str:
    """Return what a command in a release prints, which may be thousands of lines; messages keep only the last ones."""
    with tempfile.TemporaryFile() as printed:
        tasks.invoke(application, release, argv, {}, printed)
        printed.seek(0)
        return printed.read().decode(errors="replace")


def unknown_among(
    application: ApplicationContext, release: Release, applied: Sequence[str], ships: Sequence[str]
) -> list[str]:
    """Return the applied migrations that a release does not know and that are not declared as compatible.

    Of `ships`, what the release lists. It also knows those that its squashed migrations replace.
    """
    unknown = incompatible(application, not_in(application, applied, ships))
    if application.loaded.configuration.migrations.kind == "oro":
        # A bundle that a release lacks was removed in it, or comes later: its versions do not say which.
        absent = bundles.missing(applied, ships)
        return [name for name in unknown if name not in absent]
    if not unknown or not asks_a_command(application):
        return unknown
    try:
        found = _answered(application, release, ["shell", "--command", _DJANGO_REPLACED], _ON_DISK)
    except StepError:  # a project without that command, or a broken live database; the output is in the log
        return unknown
    return not_in(application, unknown, [match[1] for match in found])


def _version_in(release: Release, file: str, pattern: str) -> str:
    """Return the version of a release from one of its files. Raise StepError."""
    path = Path(release.path) / file
    try:
        found = re.search(pattern, path.read_text(errors="replace"), re.MULTILINE)
    except OSError as error:
        raise StepError(f"the version of release {release.label} is not known: {path}: {error.strerror}") from None
    if found is None:
        raise StepError(f"the version of release {release.label} is not known: {pattern} matches nothing in {path}")
    return found[1]


def _number(version: str) -> tuple[int, ...]:
    """Return the numbers of a version for a comparison, without zeros at the end."""
    numbers = [int(digits) for digits in re.findall(r"\d+", version)]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def not_in(application: ApplicationContext, names: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return the migrations that are not among others; for versions, those that are newer."""
    if application.loaded.configuration.migrations.kind == "version":
        newest = max(map(_number, others), default=())
        return [name for name in names if _number(name) > newest]
    if application.loaded.configuration.migrations.kind == "oro":
        return bundles.newer(names, others)
    known_names = set(others)
    return [name for name in names if name not in known_names]


def _manage(migrate: Sequence[Sequence[str]], console: Sequence[str]) -> list[str]:
    """Return the argv before a command's name, such as `python manage.py` or `/app/manage.py`.

    It is that of the console if no task migrates.
    """
    for argv in migrate:
        if "migrate" in argv:
            return list(argv[: argv.index("migrate")])
    return list(console) or ["python", "manage.py"]


def fingerprint(tables: Mapping[str, Facts], version: str) -> str:
    """Return a digest of a schema: the names of its tables and columns, and the version that the application keeps."""
    lines = sorted(f"{table}({', '.join(facts['columns'])})" for table, facts in tables.items())
    lines += [f"version {version}"] if version else []
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _present_fingerprint(database: Dataset) -> str:
    version = database.schema_version() if isinstance(database, Database) else ""
    return fingerprint(database.tables(budget_seconds=0), version)


def changed_schemas(application: ApplicationContext, known_schemas: Mapping[str, str]) -> list[str]:
    """Return the databases whose schema is not the recorded one."""
    return [
        name
        for name, digest in known_schemas.items()
        if name in application.databases
        and application.databases[name].inspect()["exists"]
        and _present_fingerprint(application.databases[name]) != digest
    ]


def pending(application: ApplicationContext, release: Release) -> list[str]:
    """Return the migrations that a release would run, as its own command prints them if there is one."""
    if application.loaded.configuration.migrations.pending:
        return _asked_for_pending(application, release)
    return not_in(application, shipped(application, release), applied(application, release))


def compared(application: ApplicationContext, release: Release) -> tuple[list[str], list[str]]:
    """Return the applied migrations that a release does not know, as `unknown_to` does, and its pending ones.

    The release is asked only once, because the command of a framework takes seconds.
    """
    present, ships = applied(application, release), shipped(application, release)
    asked = bool(application.loaded.configuration.migrations.pending)
    waiting = _asked_for_pending(application, release) if asked else not_in(application, ships, present)
    return unknown_among(application, release, present, ships), waiting


def _asked_for_pending(application: ApplicationContext, release: Release) -> list[str]:
    """Return the pending migrations that a release's own commands print."""
    migrations = application.loaded.configuration.migrations
    line = re.compile(migrations.pending_line)
    found: dict[str, None] = {}
    for argv in migrations.commands("pending"):
        for text in printed_by(application, release, argv).splitlines():
            if match := line.match(text):
                found[match[1]] = None
    return list(found)


def absent_bundles(application: ApplicationContext, release: Release) -> list[str]:
    """Return versions of bundles in the database that a release does not have at all; only for OroPlatform."""
    if application.loaded.configuration.migrations.kind != "oro":
        return []
    return bundles.missing(applied(application), shipped(application, release))


def intolerable(application: ApplicationContext, release: Release, names: Sequence[str]) -> list[str] | None:
    """Return what pending migrations change that code from before them does not tolerate, by their SQL.

    Return None where there is no command that prints it. A migration that the command does not name is unknown.
    """
    migrations = application.loaded.configuration.migrations
    printed = ""
    for argv in migrations.commands("sql"):
        printed += printed_by(application, release, argv) + "\n"
    if not printed and migrations.kind == "django":
        for name in names:
            printed += f"> {name}\n" + _of_django(application, release, name)
    if not printed:
        return None
    found = schema_changes.intolerable(printed)
    return found + [f"has migration {name}, whose SQL is not known" for name in names if name not in printed]


def _of_django(application: ApplicationContext, release: Release, name: str) -> str:
    configured = application.loaded.configuration.tasks
    migrate = configured.task("migrate")
    manage = _manage(migrate.argvs() if migrate is not None else [], configured.console)
    app, _, migration = name.partition(".")
    return printed_by(application, release, [*manage, "sqlmigrate", app, migration])


def unknown_to(application: ApplicationContext, release: Release) -> list[str]:
    """Return applied migrations that a release does not ship and that are not declared as compatible."""
    return unknown_among(application, release, applied(application, release), shipped(application, release))


def asks_a_command(application: ApplicationContext) -> bool:
    """Return whether a release lists its migrations by its own command, which connects to the live database."""
    return application.loaded.configuration.migrations.kind == "django"


def may_need_views(application: ApplicationContext) -> bool:
    """Return whether the query may read what a candidate database has only after the swap."""
    custom = application.loaded.configuration.migrations.kind in ("files", "version")
    return custom and not application.sql_database(database_of(application)).candidate_has_views


def names_itself(application: ApplicationContext) -> bool:
    """Return whether the query names the live database, for example `SELECT name FROM shop.migrations`."""
    name = application.loaded.configuration.databases[database_of(application)].name
    return bool(name) and re.search(rf"\b{re.escape(name)}\b[`\"]?\s*\.", _applied_sql(application)) is not None


def incompatible(application: ApplicationContext, names: Sequence[str]) -> list[str]:
    patterns = application.loaded.configuration.migrations.compatible
    return [name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def listed(names: Sequence[str]) -> str:
    """Return names for a message: all of a few, or the first, the last and the number."""
    return ", ".join(names) if len(names) <= _LISTED else f"{names[0]} to {names[-1]} ({len(names)} migrations)"


def refuse_unknown(release: Release, names: Sequence[str]) -> None:
    """Raise RefusedError where a database has migrations that a release does not know."""
    if names:
        raise RefusedError(
            f"release {release.label} is older than its database: it does not know {listed(names)}",
            next_step="Upgrade to a release that has them, or run `holdfast backup restore ID` with an earlier backup.",
        )
