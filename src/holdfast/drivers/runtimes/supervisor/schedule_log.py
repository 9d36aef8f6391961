"""The log of scheduled tasks: one file of JSON lines for each, with each start, end and exit code; and what follows."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from cronsim import CronSim

from holdfast.config.schema.schedule import Schedule
from holdfast.system import durable

_MOST_BYTES = 1 << 20


def _file(state: Path, name: str) -> Path:
    return state / "schedule" / f"{name}.jsonl"


def write(state: Path, name: str, record: Mapping[str, object]) -> None:
    """Add a line; best effort, because a full disk must not keep a task from its run."""
    path = _file(state, name)
    line = json.dumps({"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **record}) + "\n"
    with contextlib.suppress(OSError):
        durable.make_directory(path.parent)
        if path.exists() and path.stat().st_size > _MOST_BYTES:
            os.replace(path, path.with_suffix(".1.jsonl"))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def records(state: Path, name: str) -> list[dict[str, object]]:
    """Return the lines of a task, the newest last; one that was cut off by a crash is passed over."""
    found: list[dict[str, object]] = []
    try:
        lines = _file(state, name).read_text(errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def last(state: Path, name: str, event: str) -> dict[str, object] | None:
    """Return the newest line of a kind."""
    return next((one for one in reversed(records(state, name)) if one.get("event") == event), None)


def last_start(state: Path, name: str) -> float | None:
    """Return the instant at which a task was started last."""
    found = last(state, name, "start")
    if found is None:
        return None
    with contextlib.suppress(ValueError):
        at = datetime.strptime(str(found["at"]), "%Y-%m-%dT%H:%M:%SZ")
        return at.replace(tzinfo=UTC).timestamp()
    return None


def next_run(task: Schedule, started: float | None, now: float) -> float:
    """Return when a task is due after an instant. What was missed while nothing ran is not made up for."""
    if task.every_seconds:
        return now if started is None else max(now, started + task.every_seconds)
    found: datetime = next(CronSim(task.cron, datetime.fromtimestamp(now, UTC)))
    return found.timestamp()
