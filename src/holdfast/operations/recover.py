"""The code of `recover`: it brings interrupted operations to their end, with the configuration that they began with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from holdfast.application.application import App
from holdfast.application.context import OWNER_FILE
from holdfast.config.load import ResolvedConfig, undump
from holdfast.engine.journal import Journal
from holdfast.engine.lock import LOCK_ORDER, Lock, release_all
from holdfast.engine.observer import Observer, SilentObserver
from holdfast.engine.records import OperationRecord
from holdfast.engine.strategy import Strategy
from holdfast.errors import BusyError, InterruptedOperationError, NotFoundError, RefusedError, StepError, StuckError
from holdfast.model import Outcome
from holdfast.steps import boot
from holdfast.wiring import open_app

_MOUNT_WAIT_SECONDS = 120.0
_ENGINE_WAIT_SECONDS = 300.0
_TRY_AGAIN_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 1.0


@dataclass(frozen=True)
class Recovered:
    operation: str
    kind: str
    title: str
    outcome: Outcome
    seconds: float
    release: str
    """The label of the release that is the current one now; empty if there is none."""
    undone_by: Strategy | None = None
    """How an upgrade was undone."""


@dataclass(frozen=True)
class Boot:
    """What `recover --auto` did."""

    recovered: list[Recovered]
    started: list[str]


def take_locks(state: Path, what: str) -> list[Lock]:
    """Take every lock, so that nothing runs during a recovery. Raise BusyError naming the holder."""
    held: list[Lock] = []
    try:
        for name in LOCK_ORDER:
            held.append(Lock(state / "locks" / f"{name}.lock").acquire(what, wait_seconds=5 if name == "gate" else 0))
    except BaseException:
        release_all(held)
        raise
    return held


def recover(state: Path, *, observer: Observer | None = None) -> list[Recovered]:
    """Bring all interrupted operations to their end, newest first. Idempotent. Raise BusyError or StuckError."""
    journal = Journal(state)
    try:
        locks = take_locks(state, "recover")
        try:
            done = []
            # With every lock held nothing runs, so open operations were interrupted, even those of this process.
            for record in journal.unfinished():
                done.append(_recover_one(record, observer))
            journal.drop_orphan_markers()
            return done
        finally:
            release_all(locks)
    finally:
        journal.close()


def _recover_one(record: OperationRecord, observer: Observer | None) -> Recovered:
    app = open_app(undump(record.configuration), command="holdfast recover", observer=observer or SilentObserver())
    try:
        result = app.runner.recover(record)
        release = app.context.current_release()
        label = release.label if release is not None else ""
        how = app.runner.strategy_of(record.id)
        return Recovered(record.id, record.kind, record.title, result.outcome, result.seconds, label, how)
    finally:
        app.close()


def abandon(app: App, reason: str) -> list[str]:
    """Close interrupted and stuck operations without an undo. Raise NotFoundError if there is none."""
    records = app.journal.interrupted()
    if not records:
        raise NotFoundError("no operation is interrupted or stuck")
    locks = take_locks(app.loaded.state, "recover --abandon")
    try:
        for record in records:
            app.runner.abandon(record, reason)
    finally:
        release_all(locks)
    return [record.id for record in records]


def at_boot(
    loaded: ResolvedConfig, *, observer: Observer | None = None, wait: Callable[[float], None] = time.sleep
) -> Boot:
    """Do `recover --auto`: wait for mounts, start services, recover, start the rest.

    No service is recorded as running while an operation has it stopped. So recorded services need not wait for a
    recovery, which may take long or fail. A database server, for example, may be available later than the machine; so
    the undo and the start of services are tried again for some minutes.

    Raise RefusedError where data is not mounted in the end, StepError naming unhealthy services, and what `recover`
    raises.
    """
    deadline = time.monotonic() + _MOUNT_WAIT_SECONDS
    begun: dict[str, None] = {}
    _await_state(loaded, deadline, wait)
    app = open_app(loaded, command="holdfast recover --auto", observer=observer)
    try:
        while missing := app.context.missing_markers():
            if time.monotonic() > deadline:
                raise RefusedError(
                    f"data of this application is missing: there is no {', '.join(map(str, missing))}",
                    state="Nothing was started: a later mount would hide whatever is written now.",
                    next_step="Mount the data, then run: holdfast recover --auto\n"
                    "If it was lost, run: holdfast backup restore latest. If the present data is right, run: holdfast"
                    " backup create --adopt-data",
                )
            wait(1.0)
        done = _recovered(app, observer, wait, begun)
        _started(app, wait, begun)
    finally:
        app.close()
    return Boot(done, list(begun))


def _recovered(
    app: App, observer: Observer | None, wait: Callable[[float], None], begun: dict[str, None]
) -> list[Recovered]:
    """Recover until it succeeds; before each try, start services that no operation stopped, and the gate."""
    deadline = time.monotonic() + _ENGINE_WAIT_SECONDS
    while True:
        _start(app, begun)
        try:
            return recover(app.loaded.state, observer=observer)
        except (BusyError, StuckError, InterruptedOperationError) as error:
            if time.monotonic() > deadline or not error.may_pass:
                _start(app, begun)  # a try may have taken long
                raise
        wait(_TRY_AGAIN_SECONDS)


def _started(app: App, wait: Callable[[float], None], begun: dict[str, None]) -> None:
    """Start services until all are healthy. Raise StepError after a deadline."""
    deadline = time.monotonic() + _ENGINE_WAIT_SECONDS
    while True:
        error = _start(app, begun)
        unhealthy = boot.unhealthy(app.context)
        if error is None and not unhealthy:
            return
        if time.monotonic() > deadline:
            raise error or boot.unhealthy_error(unhealthy)
        wait(_LOOK_AGAIN_SECONDS)


def _start(app: App, begun: dict[str, None]) -> StepError | None:
    """Start services, note them in `begun`, and return what prevented it.

    Do nothing while an operation runs, which controls the services.
    """
    try:
        with Lock(app.loaded.state / "locks" / "change.lock").acquire("recover --auto"):
            begun.update(dict.fromkeys(boot.start(app.context)))
    except BusyError:
        pass
    except StepError as error:
        return error
    return None


def _await_state(loaded: ResolvedConfig, deadline: float, wait: Callable[[float], None]) -> None:
    """Wait until the state directory is mounted.

    Opening it before would create another one, without the operation that is open. Raise RefusedError after a deadline.
    """
    marker = loaded.path(loaded.configuration.releases.path) / f".holdfast-{OWNER_FILE}"
    try:
        named = json.loads(marker.read_text())["state"]
    except (OSError, ValueError, KeyError):
        return
    while named == str(loaded.state) and not (loaded.state / "journal.sqlite3").exists():
        if time.monotonic() > deadline:
            raise RefusedError(
                f"the state directory {loaded.state} is empty, and {marker} says that it was not",
                state="Nothing was started: Holdfast could not know about an interrupted operation.",
                next_step="Mount it, then run: holdfast recover --auto\n"
                "If it was lost, run: holdfast backup restore latest",
            )
        wait(1.0)
