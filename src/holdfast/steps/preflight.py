"""The first step of a change: everything that can refuse it before anything is touched."""

from __future__ import annotations

import os
import time
from calendar import timegm
from collections.abc import Iterable
from pathlib import Path

from holdfast.application.context import Opened
from holdfast.engine.records import OperationRecord
from holdfast.engine.runner import StepContext
from holdfast.errors import NoSpaceError, RefusedError
from holdfast.model import Outcome, Problem, StepState
from holdfast.steps.services import refuse_tied
from holdfast.system import durable
from holdfast.system.secrets import is_secret

_STATE_BYTES = 1 << 20


def check(opened: Opened, context: StepContext) -> None:
    """Run the preflight checks; only missing owner markers are written.

    Raise RefusedError, NoSpaceError or OwnerMismatchError.
    """
    opened.check_owner()
    if not context.parameters.get("adopts", False):
        opened.require_markers()
    if context.parameters.get("saves_configuration", False):
        opened.require_config_files()
    configuration = opened.loaded.configuration
    found = [problem for files in opened.files.values() for problem in files.check()]
    found += [problem for database in opened.databases.values() for problem in database.check()]
    refuse_errors(found, replaced=context.parameters.get("adopts", False))
    if context.parameters.get("reserve", True):  # an undo may be necessary
        for files in opened.files.values():
            files.refuse_mounts()
    if context.parameters.get("stops", True):
        made_anew = not context.parameters.get("taken_over", True) and configuration.gate.kind != "none"
        refuse_tied(opened, list(configuration.services), in_order=made_anew)
    if context.parameters.get("taken_over", True):
        for problem in opened.gate.check():
            raise RefusedError(problem.message, next_step=problem.advice)
        _refuse_strange_containers(opened, stops=context.parameters.get("stops", True))
    for where, need in context.parameters.get("need_bytes", {}).items():
        free = durable.free_bytes(where)
        if free < need:
            raise NoSpaceError(
                f"{where} has {free >> 20} MiB free; this needs about {(need >> 20) + 1} MiB",
                next_step="Free space there (`holdfast backup prune`, `holdfast package prune`), then run the command"
                " again.",
            )
    if durable.free_bytes(opened.loaded.state) < _STATE_BYTES:
        raise NoSpaceError(f"the state directory {opened.loaded.state} is full", next_step="Free space there.")
    for environment in (configuration.environment, *(item.environment for item in configuration.services.values())):
        for value in filter(is_secret, environment.values()):
            opened.host.resolve_secret(value)
    opened.claim()
    remove_outdated(opened)
    if context.parameters.get("reserve", True):
        opened.reserve()


def refuse_errors(problems: Iterable[Problem], *, replaced: bool) -> None:
    """Raise RefusedError for the first error; with `replaced`, errors in the content of data do not count."""
    for problem in problems:
        if problem.severity == "error" and not (replaced and problem.in_content):
            raise RefusedError(problem.message, next_step=problem.advice)


def _refuse_strange_containers(opened: Opened, *, stops: bool) -> None:
    """Raise RefusedError for unmanaged containers and missing images.

    A container that an operator started by hand would go on through a migration; without images an undo is impossible.
    """
    release = opened.current_release()
    if opened.containers is None or (release is None and not stops):
        return
    for name, service in opened.containers.unmanaged().items():
        if release is None:
            raise RefusedError(
                f"container {name} of service {service} is already running",
                next_step="Run `holdfast adopt` to take over the running project, or stop and remove its containers"
                " first.",
            )
        raise RefusedError(
            f"container {name} of service {service} is running, but Holdfast did not start it",
            next_step=f"{opened.containers.engine_name} rm --force {name}; holdfast service restart {service}",
        )
    if release is not None and (gone := opened.containers.missing_images(release.path)):
        raise RefusedError(
            f"images of the current release are gone: {', '.join(gone)}",
            next_step=f"To build them again, run: holdfast package build {release.commit}",
        )


def remove_outdated(opened: Opened) -> None:
    """Remove restore points and replaced data that were kept long enough, except of unfinished operations."""
    keep_seconds = opened.loaded.configuration.upgrade.kept_seconds()
    unfinished = {record.id for record in opened.journal.unfinished()}
    for folder in private_folders(opened):
        operation = folder.name.partition(".")[0]
        record = opened.journal.operation(operation)
        if record is None or operation in unfinished or is_in_no_backup(opened, record):
            continue
        if time.time() - folder.stat().st_mtime > keep_seconds:
            durable.remove_tree(folder)
            for files in opened.files.values():
                files.discard(operation)
    for database in opened.databases.values():
        for token in database.tokens() if database.private_folder is None else ():
            operation = token.partition(".")[0]
            record = opened.journal.operation(operation)
            if record is None or operation in unfinished or is_in_no_backup(opened, record):
                continue
            if time.time() - timegm(time.strptime(record.started_at, "%Y-%m-%dT%H:%M:%SZ")) > keep_seconds:
                database.discard(operation)


def is_in_no_backup(opened: Opened, record: OperationRecord) -> bool:
    """Return whether an operation was abandoned or superseded after it replaced data that is in no backup."""
    done = {step.name for step in opened.journal.steps(record.id) if step.state is StepState.DONE}
    closed = record.outcome in (Outcome.ABANDONED, Outcome.SUPERSEDED)
    return closed and "backup.last_pass" in done and "backup.complete" not in done


def private_folders(opened: Opened) -> list[Path]:
    """Return the folders that operations keep next to databases and in files datasets."""
    found = []
    for marker in opened.owner_markers():
        if marker.parent.is_dir() and marker.parent.name.startswith(".holdfast"):
            found += [marker.parent / name for name in os.listdir(marker.parent) if (marker.parent / name).is_dir()]
    return found
