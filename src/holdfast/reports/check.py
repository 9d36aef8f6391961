"""The report of `check`: it examines everything, changes nothing, and says what to run for each problem."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
import typing
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from holdfast.application import access, development, whole_backups
from holdfast.application.application import App
from holdfast.config.secret_references import everywhere
from holdfast.errors import HoldfastError, RefusedError, StepError
from holdfast.model import Outcome, Problem
from holdfast.reports import indices, status
from holdfast.reports.maintenance import overdue
from holdfast.steps import preflight, release_paths, services, tasks
from holdfast.system import child_environment

_OLD_BACKUP_SECONDS = 2 * 86400
_FREE_SHARE = 0.10
_RESERVE_BYTES = 4 << 20
_SEVERITIES = ("error", "warning", "note")


def problems(app: App) -> list[Problem]:
    """Return all problems, errors first."""
    found: list[Problem] = []
    # A recovery needs the databases and the runtime, so their errors come before an open operation.
    looks: list[Callable[[App], list[Problem]]] = [
        _tools,
        _state,
        _owner,
        _drivers,
        _operations,
        _space,
        _secrets,
        _vault,
        _registry,
        _left_overs,
        indices.problems,
        _environment,
        _trust,
        _development,
        _accounts,
        _links,
    ]
    for look in looks:
        try:
            found += look(app)
        except HoldfastError as error:
            found.append(Problem(look.__name__.strip("_"), "error", error.what, error.next_step))
        except OSError as error:
            found.append(
                Problem(
                    look.__name__.strip("_"),
                    "error",
                    f"{error.filename}: {error.strerror}",
                    "Check its owner and mode.",
                )
            )
    return sorted(_once(found), key=lambda problem: _SEVERITIES.index(problem.severity))


def _once(found: list[Problem]) -> list[Problem]:
    """Return each problem once, under the key of the configuration if it was also met elsewhere."""
    kept: dict[tuple[str, str], Problem] = {}
    for problem in found:
        same = (problem.severity, problem.message)
        if same not in kept or ("." in problem.subject and "." not in kept[same].subject):
            kept[same] = problem
    return list(kept.values())


def _environment(app: App) -> list[Problem]:
    names = child_environment.not_obeyed()
    names += [
        name
        for name in child_environment.ENGINE
        if os.environ.get(name) and os.environ[name] != app.context.host.engine.get(name)
    ]
    if not names:
        return []
    return [
        Problem(
            "environment",
            "warning",
            f"{', '.join(names)} of this shell would send programs elsewhere, so Holdfast ignores it",
            "Put what the application needs into `[environment]` of holdfast.toml.",
        )
    ]


def _trust(app: App) -> list[Problem]:
    """Return notes on trees of other accounts in which Holdfast works as root."""
    found = []
    for name, files in app.context.files.items():
        if os.geteuid() == 0 and files.root.is_dir() and files.root.stat().st_uid != 0:
            found.append(
                Problem(
                    f"files.{name}",
                    "note",
                    f"{files.root} belongs to account number {files.root.stat().st_uid},"
                    " and Holdfast works there as root",
                    "Nothing to do: Holdfast follows no links there, and only it can enter the folder that it keeps"
                    " there.",
                )
            )
    return found


def _development(app: App) -> list[Problem]:
    """Return an error for each development mode that production runs in, or that its visitors can reach."""
    found = development.problems(app.context)
    for instance in services.wanted(app.context):
        for path in development.reachable(app.context, instance) if instance.kind == "web" else ():
            message = f"{path} answers visitors of this production environment in a development mode"
            found.append(Problem("development", "error", message, "Refuse it in the web server, or remove the file."))
    return found


def _accounts(app: App) -> list[Problem]:
    return access.problems(app.context)


def _links(app: App) -> list[Problem]:
    """Return a warning for each link of the current release that leads nowhere."""
    release = app.context.current_release()
    if release is None:
        return []
    found = []
    for link, shared in release_paths.shared_links(app.context, Path(release.path)).items():
        if link.is_symlink() and not link.exists():
            target = app.loaded.path(shared)
            found.append(
                Problem(
                    "source.shared",
                    "warning",
                    f"{link.relative_to(release.path)} of the current release leads to {target}, which does not exist",
                    "Put it back, for example with `holdfast backup restore latest`, or remove it from"
                    " `source.shared`.",
                )
            )
    return found


def _tools(app: App) -> list[Problem]:
    found = []
    if shutil.which("git") is None:
        found.append(Problem("tools", "error", "git is not installed", "apt install git"))
    elif not (app.loaded.path(app.loaded.configuration.source.repository)).is_dir():
        found.append(
            Problem(
                "source.repository",
                "error",
                f"{app.loaded.path(app.loaded.configuration.source.repository)} does not exist",
                "Correct `source.repository`.",
            )
        )
    for subject, program in _programs(app):
        if shutil.which(program) is None and not _in_release(app, program):
            found.append(
                Problem(subject, "error", f"{program} is not installed", f"Install {program}, or correct the command.")
            )
    if sqlite3.sqlite_version_info < (3, 35):
        found.append(
            Problem(
                "tools",
                "warning",
                f"SQLite {sqlite3.sqlite_version} is old",
                "Use a Python built with SQLite 3.35 or later.",
            )
        )
    return found


def _programs(app: App) -> Iterator[tuple[str, str]]:
    """Return the programs of services and tasks that must be installed, each with the key that names it."""
    configuration = app.loaded.configuration
    if app.context.containers is not None:
        return  # they are those of the images
    if app.context.current_release() is None and (configuration.source.python or configuration.source.build):
        return  # the first release brings the programs that it builds or installs
    commands = [(f"services.{name}", service.command) for name, service in configuration.services.items()]
    for name in typing.get_args(tasks.TaskName):
        task = configuration.tasks.task(name)
        commands += [(f"tasks.{name}", argv) for argv in (task.argvs() if task is not None else [])]
    for subject, argv in (*commands, ("tasks.console", configuration.tasks.console)):
        if argv and "/" not in argv[0] and "{" not in argv[0]:
            yield subject, argv[0]


def _in_release(app: App, program: str) -> bool:
    return any((folder / program).exists() for folder in app.context.programs(app.context.current_link))


def _operations(app: App) -> list[Problem]:
    return [
        Problem(
            "operation",
            "error",
            f"{record.title} is {'stuck' if record.outcome is Outcome.STUCK else 'interrupted'}",
            "holdfast recover",
        )
        for record in app.journal.interrupted()
    ]


def _state(app: App) -> list[Problem]:
    found = []
    reserve = app.loaded.state / "reserve"
    if not reserve.exists() or reserve.stat().st_size < _RESERVE_BYTES:
        found.append(
            Problem(
                "state",
                "warning",
                "the reserve for a full disk is missing",
                f"Free space in {app.loaded.state}; the next command creates it.",
            )
        )
    if app.loaded.state.stat().st_mode & 0o077:
        found.append(
            Problem("state", "error", f"{app.loaded.state} can be read by others", f"chmod 700 {app.loaded.state}")
        )
    return found


def _owner(app: App) -> list[Problem]:
    app.context.check_owner()
    return []


def _drivers(app: App) -> list[Problem]:
    found = app.context.runtime.check()
    if app.context.current_release() is None:
        found = [_before_install(app, problem) for problem in found]
    else:
        found += _services(app)
    found += _gate(app)
    for files in app.context.files.values():
        found += files.check()
    for database in app.context.databases.values():
        found += database.check()
    return found


def _services(app: App) -> list[Problem]:
    """Return an error for services that should run and do not, unless an open operation will start them."""
    server = app.context.gate.instance()
    containers = app.context.containers
    try:
        missing = [name for name in status.not_running(app) if server is None or name != server.name]
        strange = containers.unmanaged() if containers is not None else {}
    except (StepError, RefusedError):  # the runtime's own check reports it
        return []
    if not missing or app.journal.unfinished():
        return []
    if containers is not None and strange:
        return [
            Problem(
                "services",
                "error",
                f"{', '.join(missing)}: only containers run that Holdfast did not start: {', '.join(strange)}",
                f"{containers.engine_name} rm --force {' '.join(strange)}; holdfast service start",
            )
        ]
    starts = "recover --auto" if status.gate_is_down(app) else "service start"
    return [Problem("services", "error", f"not running, and should run: {', '.join(missing)}", f"holdfast {starts}")]


def _gate(app: App) -> list[Problem]:
    """Return the gate's problems; a port that `adopt` frees is none."""
    found = [*app.context.gate.check(), *overdue(app.context.gate.state().hold)]
    release = app.context.current_release()
    containers = app.context.containers
    listen = app.loaded.configuration.gate.listen
    if release is None and found and containers is not None and app.context.gate.instance() is not None:
        port = int(listen.rpartition(":")[2])
        for service, running in containers.running(list(app.loaded.configuration.services)).items():
            if running.port == port:
                message = f"the container of {service} uses {listen}; `holdfast adopt` starts it again behind the gate"
                return [Problem("gate", "note", message, "holdfast adopt")]
    if release is not None and not found and status.gate_is_down(app):
        message = "the gate does not run: visitors get no answer"
        return [Problem("gate", "error", message, "holdfast recover --auto")]
    return found


def _before_install(app: App, problem: Problem) -> Problem:
    """Return a runtime's problem with the advice for an application that is not installed yet.

    A runtime only knows that no service is running, and advises `service start`, which has nothing to start.
    """
    if problem.severity != "warning":
        return problem
    adopt = "; if its containers are already running: holdfast adopt" if app.context.runtime.takes_over else ""
    return replace(problem, advice=f"holdfast install REF{adopt}")


def _space(app: App) -> list[Problem]:
    found = []
    seen = set()
    for path in app.context.barrier_paths():
        existing = Path(path)
        while not existing.exists():
            existing = existing.parent
        device = existing.stat().st_dev
        usage = shutil.disk_usage(existing)
        if device not in seen and usage.free < usage.total * _FREE_SHARE:
            found.append(
                Problem(
                    "space",
                    "warning",
                    f"{existing} has {usage.free >> 20} MiB free of {usage.total >> 20}",
                    "holdfast backup prune; holdfast package prune",
                )
            )
        seen.add(device)
    return found


def _registry(app: App) -> list[Problem]:
    """Return a warning for a registry that cannot be used: what is here can be deployed without it."""
    try:
        if app.context.registry is not None:
            app.context.registry.require_access()
    except HoldfastError as error:
        return [Problem("packages.registry", "warning", error.what, error.next_step)]
    return []


def _secrets(app: App) -> list[Problem]:
    found = []
    configuration = app.loaded.configuration
    for key, value in everywhere(configuration).items():
        try:
            app.context.host.resolve_secret(value)
        except HoldfastError as error:
            advice = error.next_step or f"Make {value} readable for this user."
            found.append(Problem(key, "warning" if key.startswith("tasks.") else "error", error.what, advice))
            continue
        if value.startswith("env:"):
            found.append(
                Problem(
                    key,
                    "warning",
                    f"{value} is in this shell, but may be missing at boot",
                    "Use `file:PATH` for services that come back after a reboot.",
                )
            )
    return found


def _vault(app: App) -> list[Problem]:
    vault = app.context.vault
    if vault is None:
        return [
            Problem(
                "vaults", "error", "no vault is configured: there are no backups", "Add [vaults.local] with a path."
            )
        ]
    found = []
    if not app.loaded.configuration.databases and not app.loaded.configuration.files:
        found.append(
            Problem(
                "backup",
                "warning",
                "no database and no files are configured: a backup contains only the code",
                "Add [databases.NAME] and [files.NAME] for everything that the application writes.",
            )
        )
    path = vault.capabilities.folder
    for name in app.loaded.configuration.vaults if path is not None and path.exists() else ():
        devices = {
            app.loaded.path(files.path).stat().st_dev
            for files in app.loaded.configuration.files.values()
            if app.loaded.path(files.path).exists()
        }
        if path is not None and path.stat().st_dev in devices:
            found.append(
                Problem(
                    f"vaults.{name}",
                    "warning",
                    f"{path} is on the same filesystem as the data: a disk failure would destroy both",
                    "Put the vault on another disk.",
                )
            )
    for name in vault.damaged():
        found.append(
            Problem(
                "backup", "error", f"backup {name} is damaged", "Run `holdfast backup verify`, then make a new backup."
            )
        )
    sets = whole_backups.whole(app.loaded, [backup for backup in vault.backups() if not backup.safety])
    if not sets:
        found.append(Problem("backup", "warning", "there is no backup yet", "holdfast backup create"))
    elif time.time() - _timestamp(sets[-1].created_at) > _OLD_BACKUP_SECONDS:
        found.append(
            Problem(
                "backup",
                "warning",
                f"the last whole backup is from {sets[-1].created_at}",
                "Schedule `holdfast backup create` (for example with cron).",
            )
        )
    return found


def _timestamp(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def _tokens(app: App) -> list[str]:
    """Return the tokens of what operations keep next to databases and in files datasets."""
    beside = [token for database in app.context.databases.values() for token in database.tokens()]
    return beside + [folder.name for folder in preflight.private_folders(app.context)]


def _left_overs(app: App) -> list[Problem]:
    """Return restore points of unknown operations, and replaced data that is in no backup."""
    found = []
    for operation in sorted({token.partition(".")[0] for token in _tokens(app)}):
        record = app.journal.operation(operation)
        if record is not None and preflight.is_in_no_backup(app.context, record):
            message = f"data replaced by {operation} ({record.title}) is kept next to the live data and is in no backup"
            advice = (
                f"Once nothing needs it, remove everything that has {operation} in its name: nothing removes it"
                " automatically."
            )
            found.append(Problem("restore point", "warning", message, advice))
    for folder in preflight.private_folders(app.context):
        if app.journal.operation(folder.name.partition(".")[0]) is None:
            found.append(
                Problem(
                    "restore point",
                    "warning",
                    f"{folder} belongs to no known operation",
                    f"If nothing needs it: rm -r {folder}",
                )
            )
    return found
