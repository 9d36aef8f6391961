"""The plans of `import database` and `import files`, which bring in data of other tools and can be undone."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Literal

from holdfast.application.application import App
from holdfast.config.similar import no_such
from holdfast.drivers.interchange import dump_source
from holdfast.errors import NotFoundError, RefusedError, UsageError
from holdfast.model import Plan, PlannedStep
from holdfast.operations import hooks, import_list, index_parts, parts
from holdfast.steps.backup import PublishBackup, UnpinBackup
from holdfast.steps.closing import TidyReplaced
from holdfast.steps.gate import OpenGate
from holdfast.steps.imports import STANDARD_INPUT, ImportDatabase, ImportDataDirectory, ImportFiles
from holdfast.steps.loaded import CheckReferences
from holdfast.steps.service_steps import AdoptServices
from holdfast.steps.swap import SwapDatabases

SCRATCH = "/var/tmp"
_SOCKET = "/run/.s.PGSQL.5432"
_MOST_SOCKET_BYTES = 107  # unix(7): sun_path has 108, the last of which is 0


def plan_database(
    app: App,
    source: str,
    *,
    database: str | None = None,
    safety: bool = True,
    cold: bool = False,
    scratch: str = SCRATCH,
    then: Literal["after_restore", "after_clone"] = "after_restore",
) -> Plan:
    """Return the plan of an import into one database; `then` names the task and the hook that run with the new data.

    The source is a dump, or with `cold` a data directory that is unpacked below `scratch`.

    Raise UsageError, NotFoundError, RefusedError or DamagedError.
    """
    name = _database(app, database)
    more: dict[str, int] = {}
    load: PlannedStep
    if cold:
        load, more = _cold(app, name, source, scratch)
    else:
        load = _dump(app, name, source)
    release = app.context.current_release()
    affected = index_parts.affected_indices(app, (name,))
    present = parts.only_existing(app, parts.choose(app))
    stopping, completing = parts.stop_with_safety_backup_steps(app, (name,), f"import into {name}", safety=safety)
    checks = parts.check_loaded(app, release)
    references = app.loaded.configuration.backup.references
    steps: list[PlannedStep] = [
        parts.preflight(app, present, dumps=int(safety), more=more),
        *hooks.for_failure(app),
        load,
        *checks.before,
        *([CheckReferences()] if references is not None and references.database == name else []),
        *stopping,
        SwapDatabases("imported"),
        *index_parts.swap_indices(affected, exact=False),
        *checks.after,
    ]
    if release is not None:
        steps += [
            *parts.tasks(app, release, "migrate", then, *index_parts.reindex(app)),
            *parts.start_all(app, release),
        ]
    after: tuple[PlannedStep, ...] = (
        AdoptServices(),
        OpenGate(),
        *completing,
        TidyReplaced(keep_replaced=True),
        *index_parts.rebuild_indices(release, affected),
        *parts.after_start(app, release),
        *hooks.hook(app, then),
    )
    keep = app.loaded.configuration.upgrade.keep_replaced
    return Plan(
        kind="import.database",
        title=f"import into database {name}",
        steps=tuple(steps),
        after_commit=after,
        also_locks=("backup",),
        barrier_paths=tuple(app.context.barrier_paths()),
        parameters=parts.parameters(app, release),
        notes=(
            f"Everything in database {name} is replaced. The replaced database is kept for {keep}.",
            "All objects get the database's owner. Grants to other roles are not imported.",
            *checks.notes,
        ),
    )


def _dump(app: App, name: str, source: str) -> ImportDatabase:
    if source == STANDARD_INPUT:
        return ImportDatabase(name, source)
    source = str(Path(import_list.chosen(app, name, source)).absolute())
    if dump_source.is_data_directory(source):
        raise RefusedError(
            f"{source} looks like a data directory of PostgreSQL, not like a dump",
            next_step=f"Run: holdfast import database {source} --cold",
        )
    with dump_source.opened(source) as found:
        return ImportDatabase(name, source, found.format)


def _cold(app: App, name: str, source: str, scratch: str) -> tuple[ImportDataDirectory, dict[str, int]]:
    """Return the step, and the bytes it needs by path. Raise NotFoundError or RefusedError."""
    if name not in app.context.cold:
        raise RefusedError(
            f"database {name} is not a PostgreSQL database: --cold reads only data directories of PostgreSQL"
        )
    if source != STANDARD_INPUT:
        source = str(Path(source).absolute())
        if not Path(source).exists():
            raise NotFoundError(f"there is no {source}")
    if not Path(scratch).is_dir():
        raise NotFoundError(f"there is no folder {scratch}", next_step="Name one with --scratch.")
    place = Path(scratch).resolve()
    step = ImportDataDirectory(name, source, str(place / f"holdfast-{secrets.token_hex(8)}"))
    if len(os.fsencode(f"{step.scratch}{_SOCKET}")) > _MOST_SOCKET_BYTES or set(str(place)) & set(',"\n'):
        raise RefusedError(
            f"the folder {place} has a path that is too long for a server's socket, or that contains a comma, a quote"
            " or a line break",
            next_step="Name another one with --scratch.",
        )
    size = 0 if source == STANDARD_INPUT else dump_source.unpacked_bytes(source)
    return step, {str(place): size + size // 2}  # the dump is next to the unpacked files


def _database(app: App, wanted: str | None) -> str:
    known = list(app.loaded.configuration.databases)
    if wanted is None:
        if len(known) != 1:
            raise UsageError(
                "which database?", next_step=f"Add `--database NAME`; known: {', '.join(known) or 'none'}."
            )
        return known[0]
    if wanted not in known:
        raise no_such("database", wanted, known)
    return wanted


def plan_files(app: App, source: str, into: str, *, replace: bool = False, safety: bool = True) -> Plan:
    """Return the plan of an import into a dataset of files, or below a path of it.

    Raise UsageError, NotFoundError or RefusedError.
    """
    name, _, below = into.partition("/")
    if name not in app.loaded.configuration.files:
        known = app.loaded.configuration.files
        raise no_such(
            "files dataset", name, known, next_step=f"Known: {', '.join(known) or 'none'}; `--into DATASET/SUBPATH`."
        )
    if source != STANDARD_INPUT:
        source = str(Path(source).absolute())
        if not Path(source).exists():
            raise NotFoundError(f"there is no {source}")
        root = app.context.files[name].root
        if Path(source).is_dir() and (Path(source) == root or root in Path(source).parents):
            raise RefusedError(f"{source} is inside the dataset {name} itself")
    present = parts.only_existing(app, parts.choose(app, only=(name,)))
    if safety and not app.loaded.configuration.vaults:
        raise RefusedError("no vault is configured for the safety backup", next_step="Use --no-safety.")
    steps: list[PlannedStep] = [
        parts.preflight(app, present, dumps=int(safety), stops=False),
        *hooks.for_failure(app),
    ]
    if safety:
        steps += [
            parts.backup_copy(present),
            parts.backup_finish(present, "live", f"before the import into {into}", safety=True),
            PublishBackup(pin=True),
        ]
    steps.append(ImportFiles(name, below, source, replace))
    keep = app.loaded.configuration.upgrade.keep_replaced
    what = f"Everything below {into} is replaced" if replace else "Files with the same path are replaced, others stay"
    return Plan(
        kind="import.files",
        title=f"import files into {into}",
        steps=tuple(steps),
        after_commit=(UnpinBackup(safety=True),) if safety else (),
        also_locks=("backup",),
        barrier_paths=tuple(app.context.barrier_paths()),
        parameters=parts.parameters(app, None),
        notes=(
            f"{what}. The replaced files are kept for {keep}.",
            "The imported files get the dataset's owner and group.",
        ),
    )
