"""What the accounts of services and tasks can reach, by the owners and modes of folders."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from holdfast.application.context import ApplicationContext
from holdfast.errors import CommandFailedError, ConfigurationError, HoldfastError
from holdfast.model import Problem
from holdfast.system.accounts import Account, account_of

_READ, _WRITE, _ENTER = 4, 2, 1
# A virtual environment links to the interpreter from which it is made, even through another such environment.
_WHERE = "import os, sys; print(os.path.realpath(getattr(sys, '_base_executable', sys.executable)))"
_TESTS = {_READ: "-r", _WRITE: "-w", _ENTER: "-x"}


def users(application: ApplicationContext) -> dict[str, str]:
    """Return the accounts that the configuration names, each with the first key that does."""
    configuration = application.loaded.configuration
    found: dict[str, str] = {}
    for name, service in configuration.services.items():
        if service.user:
            found.setdefault(service.user, f"services.{name}.user")
    for key in ("tasks.user", *(f"tasks.{name}.user" for name in configuration.tasks.__struct_fields__)):
        holder = configuration.tasks if key == "tasks.user" else getattr(configuration.tasks, key.split(".")[1])
        if user := getattr(holder, "user", ""):
            found.setdefault(user, key)
    return found


def problems(application: ApplicationContext) -> list[Problem]:
    """Return what the configured accounts cannot reach: errors for code, warnings for data."""
    return list(_problems(application)) if os.geteuid() == 0 else []


def _problems(application: ApplicationContext) -> Iterator[Problem]:
    configuration = application.loaded.configuration
    for user, key in users(application).items():
        try:
            account = account_of(user)
        except ConfigurationError as error:
            yield Problem(key, "error", error.what, error.next_step)
            continue
        closed = unreachable(application, application.releases, account)
        if closed is not None:
            yield Problem(
                key, "error", f"{user} cannot enter {closed}, which leads to the releases", f"chmod o+x {closed}"
            )
        yield from _of_the_interpreter(application, user, account)
    owner = configuration.owner()
    if not owner or owner not in users(application):
        return
    try:
        account = account_of(owner)
    except ConfigurationError:  # reported above
        return
    yield from _of_shared_paths(application, owner, account)
    missing: set[str] = set()  # folders in which nobody else creates the database
    places = {f"files.{name}": application.loaded.path(item.path) for name, item in configuration.files.items()}
    for name, item in configuration.databases.items():
        if item.path:
            path = application.loaded.path(item.path)
            places |= {f"databases.{name}": path, f"databases.{name}.path": path.parent}
            missing |= {f"databases.{name}.path"} if not path.exists() else set()
    for subject, path in places.items():
        if path.exists() and not may(application, path, account, _WRITE):
            level: Literal["error", "warning"] = "error" if subject in missing else "warning"
            yield Problem(subject, level, f"{owner} cannot write {path}", f"chown {owner}: {path}")


def _of_shared_paths(application: ApplicationContext, owner: str, account: Account) -> Iterator[Problem]:
    """Say which folders close shared paths to the account that they are for."""
    loaded = application.loaded
    found: dict[Path, None] = {}
    for shared in loaded.configuration.source.shared.values():
        closed = unreachable(application, loaded.path(shared).parent, account)
        if closed is not None:
            found[closed] = None
    for closed in found:
        yield Problem(
            "source.shared",
            "error",
            f"{owner} cannot enter {closed}, which leads to what releases share",
            f"chmod o+x {closed}",
        )


def _of_the_interpreter(application: ApplicationContext, user: str, account: Account) -> Iterator[Problem]:
    """Say which folder closes the interpreter to an account: the environment of a release only has a link to it."""
    python = application.loaded.configuration.source.python
    if python is None:
        return
    try:
        program = Path(application.host.capture([python.interpreter, "-I", "-S", "-c", _WHERE]).strip())
    except HoldfastError:  # which is missing, or broken: the build says so
        return
    closed = unreachable(application, program.parent, account)
    if closed is not None:
        yield Problem(
            "source.python.interpreter",
            "error",
            f"{user} cannot enter {closed}, which contains the Python interpreter {program}",
            "Name an interpreter that every account can run, such as /usr/bin/python3.",
        )


def unreachable(application: ApplicationContext, path: Path, account: Account) -> Path | None:
    """Return the first existing folder on the way to a path, and the path itself, that an account cannot enter."""
    for folder in (*reversed(path.parents), path):
        if folder.is_dir() and not may(application, folder, account, _ENTER):
            return folder
    return None


def may(application: ApplicationContext, path: Path, account: Account, wanted: int) -> bool:
    """Return whether an account may do something with a path, as its mode says or else the account itself finds out.

    Access lists can allow what the mode does not show.
    """
    if account.ids is None or account.uid == 0 or _by_mode(os.stat(path), account, wanted):
        return True
    try:
        application.host.run(["test", _TESTS[wanted], str(path)], cwd="/", account=account)
    except CommandFailedError:
        return False
    return True


def _by_mode(status: os.stat_result, account: Account, wanted: int) -> bool:
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid == account.uid:
        return bool(mode >> 6 & wanted)
    if status.st_gid in account.groups:
        return bool(mode >> 3 & wanted)
    return bool(mode & wanted)
