"""The first step of a change: everything that can refuse it before anything is touched."""

from __future__ import annotations

import os
import time
from calendar import timegm
from collections.abc import Iterable
from pathlib import Path

import msgspec

from holdfast.application import access
from holdfast.application.context import ApplicationContext
from holdfast.config.secret_references import of_services
from holdfast.engine.records import OperationRecord
from holdfast.errors import NoSpaceError, RefusedError
from holdfast.model import Outcome, Problem, StepState
from holdfast.steps import release_paths
from holdfast.steps.candidates import COMPLETE, LAST_PASS
from holdfast.steps.services import refuse_blocked
from holdfast.steps.typed import Context, NoFacts, TypedStep
from holdfast.system import durable
from holdfast.system.secrets import STORED

_STATE_BYTES = 1 << 20


class Preflight(TypedStep[NoFacts], frozen=True):
    """Run the checks that can refuse a change before anything is touched; only missing owner markers are written."""

    name = "preflight.check"

    need_bytes: dict[str, int] = msgspec.field(default_factory=dict)
    """The bytes that are needed, by path."""
    reserve: bool = True
    """Whether an undo may need space next to the data, which is then reserved."""
    taken_over: bool = True
    """Whether everything that runs must belong to Holdfast."""
    stops: bool = True
    """Whether services will be stopped."""
    adopts: bool = False
    """Whether data without Holdfast's marker is accepted, for example because it will be replaced."""
    saves_configuration: bool = False
    """Whether a backup is made from which no configuration file may be missing."""

    @property
    def title(self) -> str:
        return "check before starting"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        """Check. Raise RefusedError, NoSpaceError or OwnerMismatchError."""
        application.check_owner()
        if not self.adopts:
            application.require_markers()
            if application.undiscovered and application.current_release() is not None:
                raise RefusedError(
                    application.undiscovered,
                    next_step="Start the server of the database, or correct `discover`, then run the command again.",
                )
        if self.saves_configuration:
            application.require_config_files()
        self._check_data(application)
        refuse_errors(access.problems(application), replaced=False)
        self._check_services(application)
        self._check_space(application)
        _check_secrets(application, comes_back=self.adopts)
        release_paths.refuse_groups(application)
        application.claim()
        remove_outdated(application)
        if self.reserve:
            application.reserve()

    def _check_data(self, application: ApplicationContext) -> None:
        found = [problem for files in application.files.values() for problem in files.check()]
        found += [problem for database in application.databases.values() for problem in database.check()]
        refuse_errors(found, replaced=self.adopts)
        if self.reserve:  # an undo may be necessary
            for files in application.files.values():
                files.refuse_mounts()

    def _check_services(self, application: ApplicationContext) -> None:
        configuration = application.loaded.configuration
        if self.stops:
            made_anew = not self.taken_over and configuration.gate.kind != "none"
            refuse_blocked(application, list(configuration.services), in_order=made_anew)
        if self.taken_over:
            for problem in application.gate.check():
                raise RefusedError(problem.message, next_step=problem.advice)
            _refuse_strange_containers(application, stops=self.stops)

    def _check_space(self, application: ApplicationContext) -> None:
        for where, need in self.need_bytes.items():
            free = durable.free_bytes(where)
            if free < need:
                raise NoSpaceError(
                    f"{where} has {free >> 20} MiB free; this needs about {(need >> 20) + 1} MiB",
                    next_step="Free space there (`holdfast backup prune`, `holdfast package prune`), then run the"
                    " command again.",
                )
        if durable.free_bytes(application.loaded.state) < _STATE_BYTES:
            raise NoSpaceError(f"the state directory {application.loaded.state} is full", next_step="Free space there.")


def _check_secrets(application: ApplicationContext, *, comes_back: bool) -> None:
    """Resolve the secrets of services. `comes_back`: a lost file of secrets may be in the backup that is restored.

    Raise HoldfastError.
    """
    store = application.host.store
    lost = comes_back and store is not None and not store.path.exists()
    for value in of_services(application.loaded.configuration).values():
        if lost and value.startswith(STORED):
            assert store is not None
            if not store.identity_path.exists():
                raise RefusedError(
                    f"{value} cannot be read after the restore: there is no identity {store.identity_path}",
                    next_step="Copy it there from where you keep it, then run the command again.",
                )
            continue
        application.host.resolve_secret(value)


def refuse_errors(problems: Iterable[Problem], *, replaced: bool) -> None:
    """Raise RefusedError for the first error; with `replaced`, errors in the content of data do not count."""
    for problem in problems:
        if problem.severity == "error" and not (replaced and problem.in_content):
            raise RefusedError(problem.message, next_step=problem.advice)


def _refuse_strange_containers(application: ApplicationContext, *, stops: bool) -> None:
    """Raise RefusedError for unmanaged containers and missing images.

    A container that an operator started by hand would go on through a migration; without images an undo is impossible.
    """
    release = application.current_release()
    if application.containers is None or (release is None and not stops):
        return
    for name, service in application.containers.unmanaged().items():
        if release is None:
            raise RefusedError(
                f"container {name} of service {service} is already running",
                next_step="Run `holdfast adopt` to take over the running project, or stop and remove its containers"
                " first.",
            )
        raise RefusedError(
            f"container {name} of service {service} is running, but Holdfast did not start it",
            next_step=f"{application.containers.engine_name} rm --force {name}; holdfast service restart {service}",
        )
    if release is not None and (gone := application.runtime.missing_images(release.path)):
        raise RefusedError(
            f"images of the current release are gone: {', '.join(gone)}",
            next_step=f"To build them again, run: holdfast package build {release.commit}",
        )


def remove_outdated(application: ApplicationContext) -> None:
    """Remove restore points and replaced data that were kept long enough, except of unfinished operations."""
    keep_seconds = application.loaded.configuration.upgrade.kept_seconds()
    unfinished = {record.id for record in application.journal.unfinished()}
    for folder in private_folders(application):
        operation = folder.name.partition(".")[0]
        record = application.journal.operation(operation)
        if record is None or operation in unfinished or is_in_no_backup(application, record):
            continue
        if time.time() - folder.stat().st_mtime > keep_seconds:
            durable.remove_tree(folder)
            for files in application.files.values():
                files.discard(operation)
    for database in application.databases.values():
        for token in database.tokens() if database.private_folder is None else ():
            operation = token.partition(".")[0]
            record = application.journal.operation(operation)
            if record is None or operation in unfinished or is_in_no_backup(application, record):
                continue
            if time.time() - timegm(time.strptime(record.started_at, "%Y-%m-%dT%H:%M:%SZ")) > keep_seconds:
                database.discard(operation)


def is_in_no_backup(application: ApplicationContext, record: OperationRecord) -> bool:
    """Return whether an operation was abandoned or superseded after it replaced data that is in no backup."""
    done = {step.name for step in application.journal.steps(record.id) if step.state is StepState.DONE}
    closed = record.outcome in (Outcome.ABANDONED, Outcome.SUPERSEDED)
    return closed and LAST_PASS in done and COMPLETE not in done


def private_folders(application: ApplicationContext) -> list[Path]:
    """Return the folders that operations keep next to databases and in files datasets."""
    found = []
    for marker in application.owner_markers():
        if marker.parent.is_dir() and marker.parent.name.startswith(".holdfast"):
            found += [marker.parent / name for name in os.listdir(marker.parent) if (marker.parent / name).is_dir()]
    return found
