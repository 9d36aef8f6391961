"""Bringing in what other tools made: a dump into a database, an archive or folder into a dataset of files."""

from __future__ import annotations

from holdfast import durable
from holdfast.drivers import foreign
from holdfast.drivers.files import incoming, unpack
from holdfast.engine.runner import StepContext
from holdfast.steps.opened import Opened


def load(opened: Opened, context: StepContext) -> None:
    """Loads a dump beside the live database and verifies it; nothing visible changes."""
    name = context.parameters["database"]
    database = opened.databases[name]
    identity = database.inspect()["identity"]
    with foreign.opened(context.parameters["source"]) as source:
        candidate = database.load(context.operation, source)
    durable.barrier(opened.barrier_paths())
    context.record({"candidates": {name: candidate}, "databases": {name: identity}})


def discard(opened: Opened, context: StepContext) -> None:
    """The undo of `load`."""
    opened.databases[context.parameters["database"]].discard(context.operation)


def bring_files(opened: Opened, context: StepContext) -> None:
    """Unpacks beside the dataset, works out all moves, then carries them out; other files stay as they are."""
    files = opened.files[context.parameters["files"]]
    below = context.parameters["below"]
    folder = files.root / ".holdfast" / f"{context.operation}.import"
    if folder.exists():
        durable.remove_tree(folder)
    durable.make_directory(files.root, 0o755)
    durable.make_directory(folder)
    unpack.unpack(context.parameters["source"], folder, context.check_cancelled)
    found = incoming.Incoming(folder, below, files.root)
    wanted = found.merged(files.scan(), replace=context.parameters["replace"])
    files.stage(context.operation, wanted, found.fetch, context.check_cancelled)
    files.apply(context.operation)
    durable.remove_tree(folder)


def revert_files(opened: Opened, context: StepContext) -> None:
    """The undo of `bring_files`."""
    files = opened.files[context.parameters["files"]]
    files.revert(context.operation)
    files.discard(context.operation)
