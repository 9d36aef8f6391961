"""The steps of imports: a dump into a database, an archive or folder into a dataset of files."""

from __future__ import annotations

import re
from pathlib import Path

from holdfast.application.context import Opened
from holdfast.drivers.interchange import dump_source, incoming, unpack
from holdfast.engine.runner import StepContext
from holdfast.errors import RefusedError
from holdfast.system import durable


def load(opened: Opened, context: StepContext) -> None:
    """Load a dump as a candidate database and verify it; nothing visible changes."""
    _load(opened, context, context.parameters["source"])


def _load(opened: Opened, context: StepContext, dump: str) -> None:
    name = context.parameters["database"]
    database = opened.databases[name]
    identity = database.inspect()["identity"]
    with dump_source.opened(dump) as source:
        candidate = database.load(context.operation, source)
    durable.barrier(opened.barrier_paths())
    context.record({"candidates": {name: candidate}, "databases": {name: identity}})


def discard(opened: Opened, context: StepContext) -> None:
    """Undo `load`."""
    opened.databases[context.parameters["database"]].discard(context.operation)


def load_cold(opened: Opened, context: StepContext) -> None:
    """Unpack a server's data directory, dump it with a private server, and load the dump as a candidate database."""
    name = context.parameters["database"]
    newest = int(re.sub(r"^\D*(\d+).*", r"\1", opened.databases[name].inspect()["tool"]))
    scratch = Path(context.parameters["scratch"])
    known = looking = False

    def check() -> None:
        """Stop before a member if the data directory cannot be read here, instead of unpacking all of it."""
        nonlocal known, looking
        context.check_cancelled()
        if not known:
            looking = True
            known = opened.cold[name].known(scratch, scratch / "unpacked", newest)
            looking = False

    _clear(opened, context)
    scratch.mkdir(0o700)
    try:
        (scratch / "unpacked").mkdir(0o700)
        try:
            unpack.unpack(context.parameters["source"], scratch / "unpacked", check)
        except RefusedError as error:
            if not looking:  # the error is of a member
                hint = (
                    " Tablespaces and a pg_wal outside the data directory cannot be imported: make a dump with"
                    " `pg_dump` instead."
                )
                error.next_step += hint
            raise
        dump = opened.cold[name].dump(scratch, scratch / "unpacked", newest)
        durable.remove_tree(scratch / "unpacked")
        _load(opened, context, str(dump))
    finally:
        _clear(opened, context)


def _clear(opened: Opened, context: StepContext) -> None:
    """Remove the scratch folder, whose random name is in the plan and belongs to this operation alone."""
    scratch = Path(context.parameters["scratch"])
    opened.cold[context.parameters["database"]].end(scratch)
    durable.remove_tree(scratch)


def discard_cold(opened: Opened, context: StepContext) -> None:
    """Undo `load_cold`."""
    _clear(opened, context)
    discard(opened, context)


def bring_files(opened: Opened, context: StepContext) -> None:
    """Unpack next to the dataset, plan all moves, then carry them out; other files stay."""
    files = opened.files[context.parameters["files"]]
    below = context.parameters["below"]
    folder = files.workspace(f"{context.operation}.import")
    unpack.unpack(context.parameters["source"], folder, context.check_cancelled)
    found = incoming.Incoming(folder, below, files.root)
    wanted = found.merged(files.scan(), replace=context.parameters["replace"])
    files.stage(context.operation, wanted, found.fetch, context.check_cancelled)
    files.apply(context.operation)
    durable.remove_tree(folder)


def revert_files(opened: Opened, context: StepContext) -> None:
    """Undo `bring_files`."""
    files = opened.files[context.parameters["files"]]
    files.revert(context.operation)
    files.discard(context.operation)
