"""The steps that bring search indices to the state of their databases: loaded, swapped, protected, built again.

An index is made from the databases. So none of these steps fails an operation or its undo: an index that cannot be
brought along is noted as out of date, and the operator reads the command that builds it again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from holdfast.application import stale_indices
from holdfast.application.context import ApplicationContext
from holdfast.errors import CancelledError, HoldfastError, StepError
from holdfast.model import Release
from holdfast.steps import tasks
from holdfast.steps.index_snapshots import record_name
from holdfast.steps.restore import OfBackup
from holdfast.steps.service_steps import StartServices
from holdfast.steps.tasks import RunTask
from holdfast.steps.typed import Context, NoFacts, OperationContext, StepFacts, TypedStep, WarningFacts
from holdfast.system import durable


class IndexFacts(StepFacts):
    identities: dict[str, str | None] | None = None
    """The live indices; None for one that does not exist."""
    candidates: dict[str, str] | None = None
    """The indices next to them."""


def _note(found: IndexFacts, name: str, identity: str | None, candidate: str | None) -> None:
    found.identities = {**(found.identities or {}), name: identity}
    if candidate is not None:
        found.candidates = {**(found.candidates or {}), name: candidate}


def _tolerant(application: ApplicationContext, act: Callable[[], None]) -> str:
    """Do something with an index; return why it failed, empty if it did not."""
    try:
        act()
    except CancelledError:
        raise
    except HoldfastError as error:
        return application.host.redactor.text(error.what).splitlines()[0]
    return ""


def _behind(application: ApplicationContext, context: OperationContext, name: str, why: str) -> str:
    """Note an index as out of date, and return what the operator reads."""
    stale_indices.mark(application.loaded, [name], why)
    text = f"The index {name} is out of date ({why}). Run: holdfast index rebuild {name}"
    context.say(text)
    return text


def _discard(application: ApplicationContext, context: OperationContext) -> list[str]:
    """Remove what this operation left next to indices, and what dead ones did while their server was down.

    Return the indices of which it could not be removed.
    """
    unfinished = {record.id for record in application.journal.unfinished()}

    def discard(name: str) -> None:
        index = application.indices[name]
        left = {token.partition(".")[0] for token in index.tokens()}
        known = {one for one in left if application.journal.operation(one) is not None and one not in unfinished}
        for operation in (context.operation, *sorted(known)):
            index.discard(operation)

    kept = []
    for name in application.indices:
        if failed := _tolerant(application, partial(discard, name)):
            context.say(f"what an operation left next to the index {name} could not be removed yet: {failed}")
            kept.append(name)
    return kept


def _discard_copies(application: ApplicationContext, context: OperationContext) -> None:
    """Do the same after an index was copied; one whose server was down then may refuse writes once it is back."""
    for name in _discard(application, context):
        _behind(application, context, name, "its server was down, and it may refuse writes")


# --- restore -------------------------------------------------------------------------------------------


class LoadIndices(OfBackup[IndexFacts], frozen=True):
    """Restore each snapshot next to the live index; nothing visible changes."""

    name = "index.load"
    is_undone = True

    indices: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"load snapshots of {', '.join(self.indices)}"

    def do(self, application: ApplicationContext, context: Context[IndexFacts]) -> None:
        found = IndexFacts({}, {})
        for name in self.indices:
            context.check_cancelled()
            failed = _tolerant(application, partial(self._load, application, context, name, found))
            if failed:
                context.say(f"the index {name} of the backup cannot be loaded and will be built again: {failed}")
        context.facts.identities, context.facts.candidates = found.identities, found.candidates
        context.record()

    def _load(self, application: ApplicationContext, context: OperationContext, name: str, found: IndexFacts) -> None:
        index = application.indices[name]
        path = application.operation_folder(context.operation) / record_name(name)
        with self.open_set_of(application, name).open(record_name(name)) as reader:
            durable.write_file(path, reader.read())
        identity = index.inspect()["identity"]
        candidate = index.prepare(context.operation, path, {})
        _note(found, name, identity, candidate)

    def undo(self, application: ApplicationContext, context: Context[IndexFacts]) -> None:
        _discard(application, context)


class SwapFacts(StepFacts):
    stale: dict[str, str] | None = None
    """The indices that were out of date before."""


class SwapIndices(TypedStep[SwapFacts], frozen=True):
    """Put the loaded indices in place, and note every other one as out of date."""

    name = "index.swap"
    is_undone = True

    indices: tuple[str, ...]
    """All indices whose databases are replaced."""
    exact: bool = False
    """Whether the backup has databases and indices of one instant."""

    @property
    def title(self) -> str:
        return f"bring {', '.join(self.indices)} to the restored data"

    def do(self, application: ApplicationContext, context: Context[SwapFacts]) -> None:
        if context.facts.stale is None:
            context.facts.stale = stale_indices.stale(application.loaded)
            context.record()
        stale_indices.mark(application.loaded, self.indices, "its data was replaced")
        for name, candidate in (_loaded(context).candidates or {}).items():
            act = partial(application.indices[name].swap, context.operation, candidate, f"{context.operation}.replaced")
            if failed := _tolerant(application, act):
                context.say(f"the index {name} of the backup cannot be put in place: {failed}")
            elif self.exact:
                stale_indices.clear(application.loaded, [name])

    def undo(self, application: ApplicationContext, context: Context[SwapFacts]) -> None:
        if context.facts.stale is None:
            return
        stale_indices.replace(application.loaded, context.facts.stale)
        for name, identity in (_loaded(context).identities or {}).items():
            act = partial(application.indices[name].swap, context.operation, identity, f"{context.operation}.undone")
            if failed := _tolerant(application, act):
                _behind(application, context, name, f"it could not be put back: {failed}")


def _loaded(context: OperationContext) -> IndexFacts:
    return context.facts_of(LoadIndices) or IndexFacts()


class RebuildIndices(TypedStep[WarningFacts], frozen=True):
    """Build the indices again that are out of date. This is a closing step, while visitors are served.

    A failure is a warning; with `fails`, it fails the operation.
    """

    name = "index.rebuild"
    is_undone = True

    release: Release
    indices: tuple[str, ...]
    fails: bool = False

    @property
    def title(self) -> str:
        return f"build {', '.join(self.indices)} again where it is out of date"

    def do(self, application: ApplicationContext, context: Context[WarningFacts]) -> None:
        context.facts.warnings = []
        wanted = [name for name in self.indices if self.fails or name in stale_indices.stale(application.loaded)]
        stale_indices.mark(application.loaded, wanted, "it is being built again")
        by_task = [name for name in wanted if not application.indices[name].command]
        groups = [[name] for name in wanted if name not in by_task]
        for group in [*groups, *([by_task] if by_task else [])]:
            context.check_cancelled()
            names = ", ".join(group)
            context.say(f"building {names} again")
            failed = _tolerant(application, partial(self._build, application, context, group))
            if failed and self.fails:
                raise StepError(f"the index {names} was not built: {failed}")
            if failed:
                context.facts.warnings += [_behind(application, context, name, failed) for name in group]
            else:
                stale_indices.clear(application.loaded, group)
        context.record()
        _discard(application, context)

    def _build(self, application: ApplicationContext, context: OperationContext, names: Sequence[str]) -> None:
        index = application.indices[names[0]]
        if not index.command:
            tasks.run(application, self.release, "reindex", context.operation)
            return
        if not any("{index}" in argument for argument in index.command):
            tasks.invoke(application, self.release, index.command, {})
            return
        new = index.make_room(context.operation)
        tasks.invoke(application, self.release, [argument.replace("{index}", new) for argument in index.command], {})
        index.swap(context.operation, index.adopt(context.operation), f"{context.operation}.replaced")

    def undo(self, application: ApplicationContext, context: Context[WarningFacts]) -> None:
        _discard(application, context)


# --- upgrade -------------------------------------------------------------------------------------------


class ProtectIndices(TypedStep[IndexFacts], frozen=True):
    """Copy each index before the migration, where its server can; the undo puts the copy in its place."""

    name = "index.protect"
    is_undone = True
    undo_title = "put the indices back"

    indices: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"copy {', '.join(self.indices)} on the server"

    def do(self, application: ApplicationContext, context: Context[IndexFacts]) -> None:
        found = IndexFacts({}, {})
        for name in self.indices:
            failed = _tolerant(application, partial(self._copy, application, context, name, found))
            if failed:
                context.say(f"the index {name} has no restore point ({failed}); an undo would have it built again")
        context.facts.identities, context.facts.candidates = found.identities, found.candidates
        context.record()

    @staticmethod
    def _copy(application: ApplicationContext, context: OperationContext, name: str, found: IndexFacts) -> None:
        index = application.indices[name]
        facts = index.inspect()
        _note(found, name, facts["identity"], None)
        if not facts["exists"]:
            return
        if not index.can_copy():
            raise StepError("its server cannot copy it")
        _note(found, name, facts["identity"], index.prepare(context.operation, None, {}))

    def undo(self, application: ApplicationContext, context: Context[IndexFacts]) -> None:
        if any((context.started(RunTask), context.started(StartServices))):
            candidates = context.facts.candidates or {}
            for name in self.indices:
                if name not in candidates:
                    if (context.facts.identities or {}).get(name) is not None:
                        _behind(application, context, name, "an upgrade was undone")
                    continue

                swap = application.indices[name].swap
                act = partial(swap, context.operation, candidates[name], f"{context.operation}.failed")
                if failed := _tolerant(application, act):
                    _behind(application, context, name, f"it could not be put back: {failed}")
        _discard_copies(application, context)


class DropIndexCopies(TypedStep[NoFacts], frozen=True):
    """Remove what the operation left next to the indices. This is a closing step."""

    name = "index.drop"

    indices: tuple[str, ...] = msgspec.field(default=())

    @property
    def title(self) -> str:
        return "remove the copies of indices"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        _discard_copies(application, context)
