"""The consistency levels live, pause and quiesce, which bring files and databases to one instant.

There are passes, as in a live migration: the files are copied while everything runs; then come the databases' snapshots
at the instant; then files that appeared or changed since. At `pause` the last pass runs while writers are held, before
the snapshot.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from holdfast.application.context import ApplicationContext
from holdfast.config.schema import References
from holdfast.drivers.protocols.datasets import JointSnapshotFn, SnapshotFn
from holdfast.drivers.protocols.vaults import VaultRun
from holdfast.engine.journal import utc_now
from holdfast.errors import StepError
from holdfast.model import Entry, Snapshot, Stored
from holdfast.steps.typed import OperationContext
from holdfast.steps.vault_files import dump_path

COUNT_SECONDS = 60.0  # the budget for counting the rows of a dump while it is made
_LIVE_ATTEMPTS = 5  # while the same file is missing
_CHANGING_ATTEMPTS = 12  # while other files are missing each time, for example with fast writers
_HOLD_ATTEMPTS = 3


@dataclass
class Instant:
    """The result of the snapshots.

    It has the level reached, the instant, how long writers were held, how far the databases' instants are apart at
    most, and totals per files dataset.
    """

    level: str
    instant: str
    writer_held_seconds: float = 0.0
    apart_seconds: float = 0.0
    stored: dict[str, Stored] = field(default_factory=dict)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def take(
    application: ApplicationContext,
    run: VaultRun,
    context: OperationContext,
    *,
    level: str,
    databases: Sequence[str],
    files: Sequence[str],
    stored: Mapping[str, Stored],
    tolerant: bool = False,
) -> Instant:
    """Do the last pass and the snapshots at one level.

    `tolerant`: missing files that the database names are a warning.

    Raise StepError if the level cannot be reached and no fallback is configured.
    """
    configuration = application.loaded.configuration.backup
    taken: Instant
    if level == "pause" and databases:
        try:
            taken = _paused(application, run, context, databases, files, asks=not tolerant)
            _compare_references(application, run, taken, databases if not tolerant else (), files)
        except NamesMissingError:
            raise
        except StepError as error:
            if configuration.fallback != "live":
                raise
            context.say(f"level pause was not reached ({error.what}); the backup is at level live, as configured")
            taken = _live(application, run, context, databases, files)
            taken.warnings.append(f"level pause was not reached: {error.what}")
    elif level == "live":
        taken = _live(application, run, context, databases, files, tolerant=tolerant)
    else:
        snapshots = {name: _snapshot(application, run, name, asks=not tolerant) for name in databases}
        stored_now = _pass(application, run, context.check_cancelled, context, files, keep=False)()
        taken = Instant(level, utc_now(), stored=stored_now, snapshots=snapshots)
        _compare_references(application, run, taken, databases if not tolerant else (), files)
    for name, totals in taken.stored.items():
        if name in stored:
            totals.new_bytes += stored[name].new_bytes
            totals.read_files += stored[name].read_files
    return taken


def _fix(
    application: ApplicationContext, run: VaultRun, name: str, fix: SnapshotFn, *, asks: bool
) -> Callable[[], Snapshot]:
    """Fix the instant of one database; `asks`: also query the files that it names."""
    queries = _queries(name, application.loaded.configuration.backup.references) if asks else []
    return fix(dump_path(application, run, name), queries, COUNT_SECONDS)


class NamesMissingError(StepError):
    """An error that no consistency level avoids: files that the database names are not in the backup."""


def _compare_references(
    application: ApplicationContext, run: VaultRun, taken: Instant, databases: Sequence[str], files: Sequence[str]
) -> None:
    """Raise NamesMissingError where the backup lacks files that one of the databases names."""
    references = application.loaded.configuration.backup.references
    if references is None or references.database not in databases or references.files not in files:
        return
    missing = _resolve(run, references, _referenced(taken.snapshots[references.database]), {})
    if missing:
        _tell_missing(application, references, missing, taken, tolerant=False)


def _tell_missing(
    application: ApplicationContext, references: References, missing: Sequence[str], taken: Instant, *, tolerant: bool
) -> None:
    what = f"{len(missing)} files that the database names are not in the backup, for example {missing[0]}"
    if tolerant:
        taken.warnings.append(what)
        return
    root = application.files[references.files].root
    raise NamesMissingError(
        what,
        next_step=f"Check that {root} is mounted and complete. Put the files back, or correct backup.references.query,"
        " so that it leaves out what is known to be missing.",
    )


def _queries(name: str, references: References | None) -> list[str]:
    """Return the query for the paths that a database names, if they are to be examined."""
    return [references.query] if references is not None and references.database == name else []


def _groups(application: ApplicationContext, databases: Sequence[str]) -> list[list[str]]:
    """Return the databases in groups that one transaction can see; every other one is alone."""
    groups: list[list[str]] = []
    for name in databases:
        for group in groups:
            if application.databases[group[0]].joint_snapshot([application.databases[name]]) is not None:
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


@contextmanager
def _holding(application: ApplicationContext, names: Sequence[str]) -> Iterator[JointSnapshotFn]:
    """Yield a function that fixes the instant of databases of one group, without holding writers."""
    first, *others = (application.databases[name] for name in names)
    together = first.joint_snapshot(others) if others else None
    if together is not None:
        with together as fix_all:
            yield fix_all
        return
    with first.freeze_writes(None) as fix:
        yield lambda orders, budget_seconds: [fix(*orders[0], budget_seconds)]


def _snapshot(application: ApplicationContext, run: VaultRun, name: str, *, asks: bool) -> Snapshot:
    with application.databases[name].freeze_writes(None) as fix:
        return _fix(application, run, name, fix, asks=asks)()


def _pass(
    application: ApplicationContext,
    run: VaultRun,
    check: Callable[[], None],
    context: OperationContext,
    files: Sequence[str],
    *,
    keep: bool,
) -> Callable[[], dict[str, Stored]]:
    """Read what changed since the last pass; return a function that writes the listings."""
    finishes = {
        name: run.read_tree(name, application.files[name], keep_vanished=keep, check=check, progress=context.progress)
        for name in files
    }
    return lambda: {name: finish() for name, finish in finishes.items()}


def _paused(
    application: ApplicationContext,
    run: VaultRun,
    context: OperationContext,
    databases: Sequence[str],
    files: Sequence[str],
    *,
    asks: bool,
) -> Instant:
    """Hold writers for the last pass only; a pass that takes too long releases them and is tried again."""
    limit = application.loaded.configuration.backup.pause_limit_seconds
    for attempt in range(1, _HOLD_ATTEMPTS + 1):
        # So that little is left for the pass with writers held.
        _pass(application, run, context.check_cancelled, context, files, keep=False)()
        with ExitStack() as stack:
            holds = {name: stack.enter_context(application.databases[name].freeze_writes(limit)) for name in databases}
            began = time.monotonic()

            def within(began: float = began) -> None:
                context.check_cancelled()
                if time.monotonic() - began > limit:
                    raise StepError(f"the last pass over the files takes longer than {limit:g} s with writers held")

            try:
                finish_files = _pass(application, run, within, context, files, keep=False)
            except StepError:
                if attempt == _HOLD_ATTEMPTS:
                    raise
                continue
            instant = utc_now()
            # Fix all instants first, because finishing the dumps takes time.
            finishes = {name: _fix(application, run, name, fix, asks=asks) for name, fix in holds.items()}
            snapshots = {name: finish() for name, finish in finishes.items()}
            held = max(snapshot.held_seconds for snapshot in snapshots.values())
            return Instant("pause", instant, held, 0.0, finish_files(), snapshots)
    raise AssertionError("unreachable")


def _live(
    application: ApplicationContext,
    run: VaultRun,
    context: OperationContext,
    databases: Sequence[str],
    files: Sequence[str],
    *,
    tolerant: bool = False,
) -> Instant:
    """Take the instant without holding writers; if a file that the database names is missing, take it again."""
    references = application.loaded.configuration.backup.references
    lacked: set[tuple[str, str | None]] = set()
    for attempt in range(1, _CHANGING_ATTEMPTS + 1):
        with ExitStack() as stack:
            groups = [
                (names, stack.enter_context(_holding(application, names))) for names in _groups(application, databases)
            ]
            if attempt > 1:
                # The last pass was before a whole dump. Short-lived files are only in a pass near the instant.
                _pass(application, run, context.check_cancelled, context, files, keep=True)()
            earlier = {name: _digests(run.listing(name)) for name in files if references and references.files == name}
            instant = utc_now()
            # The pass follows the instants as closely as it can; the dumps are finished after it.
            began = time.monotonic()
            finishes: dict[str, Callable[[], Snapshot]] = {}
            for names, fix in groups:
                orders = [(dump_path(application, run, name), _queries(name, references)) for name in names]
                finishes.update(zip(names, fix(orders, COUNT_SECONDS), strict=True))
            apart = time.monotonic() - began if len(groups) > 1 else 0.0
            stored = _pass(application, run, context.check_cancelled, context, files, keep=True)()
            snapshots = {name: finishes[name]() for name in databases}
        held = max((snapshot.held_seconds for snapshot in snapshots.values()), default=0.0)
        taken = Instant("live", instant, held, apart, stored, snapshots)
        if references is None or references.database not in databases or references.files not in files:
            return taken
        wanted = _referenced(snapshots[references.database])
        missing = _resolve(run, references, wanted, earlier[references.files])
        if not missing:
            return taken
        if tolerant:
            _tell_missing(application, references, missing, taken, tolerant=True)
            return taken
        lacks = {(path, wanted[path]) for path in missing}
        stays = attempt >= _LIVE_ATTEMPTS and bool(lacked & lacks)
        lacked = lacks
        if stays or attempt == _CHANGING_ATTEMPTS:
            _tell_missing(application, references, missing, taken, tolerant=False)
        context.say(f"{len(missing)} files changed during the snapshot; taking it again")
    raise AssertionError("unreachable")


def _digests(listing: Iterator[Entry]) -> dict[str, Entry]:
    return {entry.path: entry for entry in listing if entry.kind == "file"}


def _referenced(snapshot: Snapshot) -> dict[str, str | None]:
    """Return paths that the dumped database names, with the digest if the query has one."""
    rows = snapshot.answers[0]
    return {str(row[0]): (str(row[1]) if len(row) > 1 and row[1] is not None else None) for row in rows}


def _resolve(
    run: VaultRun, references: References, wanted: Mapping[str, str | None], earlier: Mapping[str, Entry]
) -> list[str]:
    """Return what the database names and the backup lacks. A replaced file keeps the version that its row means."""
    present = _digests(run.listing(references.files))
    missing = []
    chosen: dict[str, Entry] = {}
    for path, digest in wanted.items():
        entry = present.get(path)
        if entry is not None and digest in (None, entry.sha256):
            continue
        before = earlier.get(path)
        if before is not None and digest in (None, before.sha256):
            chosen[path] = before
        else:
            missing.append(path)
    if chosen and not missing:
        # A file that was replaced and then removed while it was read is only in the earlier listing.
        gone = sorted((entry for path, entry in chosen.items() if path not in present), key=Entry.order)
        listing = (chosen.get(entry.path, entry) for entry in run.listing(references.files))
        run.choose(references.files, heapq.merge(listing, gone, key=Entry.order))
    return missing
