"""The steps of imports: a dump into a database, an archive or folder into a dataset of files."""

from __future__ import annotations

import re
from pathlib import Path

from holdfast.application.context import ApplicationContext
from holdfast.drivers.interchange import dump_source, incoming, unpack
from holdfast.errors import RefusedError
from holdfast.steps.candidates import CandidateFacts
from holdfast.steps.typed import Context, NoFacts, TypedStep
from holdfast.system import durable

STANDARD_INPUT = "-"


def named(source: str) -> str:
    """Return how titles name a source."""
    return "the standard input" if source == STANDARD_INPUT else source


class ImportDatabase(TypedStep[CandidateFacts], frozen=True):
    """Load a dump as a candidate database and verify it; nothing visible changes."""

    name = "database.import"
    is_undone = True

    database: str
    source: str
    format: str = ""
    """The format of the dump, for the title; empty if it is only known once it is read."""

    @property
    def title(self) -> str:
        format = f" ({self.format})" if self.format else ""
        return f"load {named(self.source)}{format} as a candidate for database {self.database}"

    def do(self, application: ApplicationContext, context: Context[CandidateFacts]) -> None:
        _load(application, context, self.database, self.source)

    def undo(self, application: ApplicationContext, context: Context[CandidateFacts]) -> None:
        application.databases[self.database].discard(context.operation)


def _load(application: ApplicationContext, context: Context[CandidateFacts], name: str, dump: str) -> None:
    database = application.databases[name]
    identity = database.inspect()["identity"]
    with dump_source.opened(dump) as source:
        candidate = database.load(context.operation, source)
    durable.barrier(application.barrier_paths())
    context.facts.candidates, context.facts.databases = {name: candidate}, {name: identity}
    context.record()


class ImportDataDirectory(TypedStep[CandidateFacts], frozen=True):
    """Unpack a server's data directory, dump it with a private server, and load the dump as a candidate database."""

    name = "database.import_cold"
    is_undone = True

    database: str
    source: str
    scratch: str
    """A folder whose random name is in the plan and belongs to this operation alone."""

    @property
    def title(self) -> str:
        return f"load the data directory {named(self.source)} as a candidate for database {self.database}"

    def do(self, application: ApplicationContext, context: Context[CandidateFacts]) -> None:
        newest = int(re.sub(r"^\D*(\d+).*", r"\1", application.databases[self.database].inspect()["tool"]))
        scratch = Path(self.scratch)
        self._clear(application)
        scratch.mkdir(0o700)
        try:
            (scratch / "unpacked").mkdir(0o700)
            self._unpack(application, context, newest)
            dump = application.cold[self.database].dump(scratch, scratch / "unpacked", newest)
            durable.remove_tree(scratch / "unpacked")
            _load(application, context, self.database, str(dump))
        finally:
            self._clear(application)

    def _unpack(self, application: ApplicationContext, context: Context[CandidateFacts], newest: int) -> None:
        scratch = Path(self.scratch)
        known = looking = False

        def check() -> None:
            """Stop before a member if the data directory cannot be read here, instead of unpacking all of it."""
            nonlocal known, looking
            context.check_cancelled()
            if not known:
                looking = True
                known = application.cold[self.database].known(scratch, scratch / "unpacked", newest)
                looking = False

        try:
            unpack.unpack(self.source, scratch / "unpacked", check)
        except RefusedError as error:
            if not looking:  # the error is of a member
                error.next_step += (
                    " Tablespaces and a pg_wal outside the data directory cannot be imported: make a dump with"
                    " `pg_dump` instead."
                )
            raise

    def _clear(self, application: ApplicationContext) -> None:
        """Remove the scratch folder."""
        application.cold[self.database].end(Path(self.scratch))
        durable.remove_tree(Path(self.scratch))

    def undo(self, application: ApplicationContext, context: Context[CandidateFacts]) -> None:
        self._clear(application)
        application.databases[self.database].discard(context.operation)


class ImportFiles(TypedStep[NoFacts], frozen=True):
    """Unpack next to the dataset, plan all moves, then carry them out; other files stay."""

    name = "files.import"
    is_undone = True

    files: str
    below: str
    """The folder of the dataset into which files are copied; empty for the dataset itself."""
    source: str
    replace: bool
    """Whether everything in that folder is replaced."""

    @property
    def title(self) -> str:
        return f"copy files into {self.files}" + (f"/{self.below}" if self.below else "")

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        files = application.files[self.files]
        folder = files.workspace(f"{context.operation}.import")
        unpack.unpack(self.source, folder, context.check_cancelled)
        found = incoming.Incoming(folder, self.below, files.root)
        wanted = found.merged(files.scan(), replace=self.replace)
        files.stage(context.operation, wanted, found.fetch, context.check_cancelled)
        files.apply(context.operation)
        durable.remove_tree(folder)

    def undo(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        files = application.files[self.files]
        files.revert(context.operation)
        files.discard(context.operation)
