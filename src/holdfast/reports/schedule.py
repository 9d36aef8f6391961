"""The report of `schedule list`, and one run of a scheduled task."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from holdfast.application.application import App
from holdfast.config.schema.schedule import SERVICE, Schedule
from holdfast.config.similar import no_such
from holdfast.drivers.runtimes.supervisor import schedule_log
from holdfast.errors import BusyError, CommandFailedError, HoldfastError, RefusedError
from holdfast.steps import services, tasks
from holdfast.system import durable

_TAIL_LETTERS = 2000


class Entry(msgspec.Struct, frozen=True):
    """One scheduled task; times are in UTC, empty where there is none."""

    name: str
    when: str
    last_start: str
    last_exit_code: int | None
    last_seconds: float | None
    running: bool
    next_run: str


def entries(app: App) -> list[Entry]:
    """Return the scheduled tasks with their last run and the next one."""
    state, found = app.loaded.state, []
    scheduled = is_running(app)
    for name, task in app.loaded.configuration.schedule.items():
        began, ended = schedule_log.last(state, name, "start"), schedule_log.last(state, name, "end")
        code, seconds = (ended or {}).get("exit_code"), (ended or {}).get("seconds")
        due = schedule_log.next_run(task, schedule_log.last_start(state, name), time.time())
        found.append(
            Entry(
                name,
                f"every {task.every_seconds} s" if task.every_seconds else task.cron,
                str((began or {}).get("at", "")),
                code if isinstance(code, int) else None,
                float(seconds) if isinstance(seconds, int | float) else None,
                _runs(app, name),
                time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(due)) if scheduled else "",
            )
        )
    return found


def is_running(app: App) -> bool:
    """Return whether the service that starts scheduled tasks should run and does."""
    wanted = [one.name for one in services.wanted(app.context) if one.service == SERVICE]
    statuses = app.context.runtime.statuses() if wanted else {}
    return any((status := statuses.get(name)) is not None and status.running for name in wanted)


def run(app: App, name: str) -> None:
    """Run a scheduled task now, and log it. Raise NotFoundError, RefusedError, BusyError, and what the task raises."""
    known = app.loaded.configuration.schedule
    if name not in known:
        raise no_such("scheduled task", name, known)
    release = app.context.current_release()
    if release is None:
        raise RefusedError("nothing is installed here", next_step="Run: holdfast install REF")
    for record in app.journal.unfinished():
        if record.lock == "change":
            raise RefusedError(
                f"{record.title} controls the application; no scheduled task starts meanwhile",
                next_step="Wait until it has ended. If it was interrupted, run: holdfast recover",
            )
    with _only_one(app.loaded.state, name):
        _run(app, name, known[name])


def _run(app: App, name: str, task: Schedule) -> None:
    release = app.context.current_release()
    assert release is not None
    state, began = app.loaded.state, time.monotonic()
    schedule_log.write(state, name, {"event": "start", "pid": os.getpid(), "release": release.id})
    code, said = 0, ""
    try:
        said = tasks.run_scheduled(app.context, release, task, f"schedule-{name}-{os.getpid()}")
    except HoldfastError as error:
        code = error.exit_code_of_command if isinstance(error, CommandFailedError) else -1
        said = error.output_tail if isinstance(error, CommandFailedError) and error.output_tail else error.what
        raise
    finally:
        seconds = round(time.monotonic() - began, 3)
        tail = app.context.host.redactor.text(said)[-_TAIL_LETTERS:]
        schedule_log.write(state, name, {"event": "end", "exit_code": code, "seconds": seconds, "output": tail})


def _lock(state: Path, name: str) -> Path:
    return state / "schedule" / f"{name}.lock"


@contextmanager
def _only_one(state: Path, name: str) -> Iterator[None]:
    """Hold the lock of a task. Raise BusyError while it runs."""
    path = _lock(state, name)
    durable.make_directory(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"the scheduled task {name} runs already", next_step="Run: holdfast schedule list"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _runs(app: App, name: str) -> bool:
    try:
        descriptor = os.open(_lock(app.loaded.state, name), os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
