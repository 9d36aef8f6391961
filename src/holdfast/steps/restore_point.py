"""Restore points, which an operation makes on the same host to go back in seconds before the commit."""

from __future__ import annotations

from holdfast.application.context import Opened
from holdfast.drivers.protocols.vaults import OpenSet
from holdfast.engine.runner import StepContext
from holdfast.errors import StepError
from holdfast.model import Entry
from holdfast.system import durable


def create(opened: Opened, context: StepContext) -> None:
    """Create a candidate database of each database while services are stopped; durable when the step is done."""
    identities: dict[str, str | None] = {}
    candidates: dict[str, str] = {}
    for name, database in opened.databases.items():
        facts = database.inspect()
        identities[name] = facts["identity"]
        if facts["exists"]:
            candidates[name] = database.prepare(context.operation, None, {})
    durable.barrier(opened.barrier_paths())
    context.record({"databases": identities, "candidates": candidates})


def discard(opened: Opened, context: StepContext) -> None:
    """Undo `create`, or close it after a commit."""
    for database in opened.databases.values():
        database.discard(context.operation)
    for files in opened.files.values():
        files.discard(context.operation)


def arm(opened: Opened, context: StepContext) -> None:
    """Record that the data may change from here; the undo of this step relies on the record."""


def wipe(opened: Opened, context: StepContext) -> None:
    """Move all data out of the way; `go_back` undoes it."""
    for name, database in opened.databases.items():
        if database.inspect()["identity"] == context.earlier["restore_point.create"]["databases"].get(name):
            database.swap(context.operation, None, f"{context.operation}.wiped")
    for files in opened.files.values():
        token = f"{context.operation}.wiped"
        if not files.staged(token):
            files.stage(token, (), _nothing, context.check_cancelled)
        files.apply(token)


def _nothing(entry: Entry, descriptor: int) -> None:
    raise StepError(f"unexpected file to restore: {entry.path}")


def go_back(opened: Opened, context: StepContext) -> None:
    """Undo `arm`: databases by a rename, files by difference from the backup of this operation."""
    if not any(context.started(name) for name in ("task.run", "services.start", "data.wipe")):
        return
    point = context.earlier["restore_point.create"]
    for name, database in opened.databases.items():
        candidate = point["candidates"].get(name)
        if candidate is not None:
            database.swap(context.operation, candidate, f"{context.operation}.failed")
        elif point["databases"].get(name) is None:
            database.swap(context.operation, None, f"{context.operation}.failed")
    _files_back(opened, context)


def _set_of(opened: Opened, context: StepContext) -> OpenSet:
    """Return what this operation saved last before anything changed: an unlisted run or a committed backup."""
    run = context.earlier.get("backup.last_pass", {}).get("run")
    set_id = context.earlier.get("backup.publish", {}).get("set_id")
    if opened.vault is not None and run is not None:
        return opened.vault.open_run(run)
    if opened.vault is not None and set_id is not None:
        return opened.vault.open_set(set_id)
    raise StepError("the backup of this operation is not known; files cannot be restored")


def _files_back(opened: Opened, context: StepContext) -> None:
    names = context.parameters["files"]
    if not names:
        return
    _, listing, fetch, _ = _set_of(opened, context)
    for name in names:
        files = opened.files[name]
        attempt = 1
        while files.staged(f"{context.operation}.back{attempt}"):
            attempt += 1
        token = f"{context.operation}.back{attempt}"
        files.stage(token, listing(name), fetch, context.check_cancelled)
        files.apply(token)
