"""The plans of `media upload` and `media delete`, and the listing of a files dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from holdfast.application import uploads
from holdfast.application.application import App
from holdfast.application.uploads import Candidate
from holdfast.config.similar import no_such
from holdfast.errors import NotFoundError, RefusedError
from holdfast.model import Entry, Plan, PlannedStep
from holdfast.operations import parts
from holdfast.steps.backup import PublishBackup, UnpinBackup
from holdfast.steps.media import DeleteFiles, UploadFiles, covers


def dataset(app: App, into: str) -> tuple[str, str]:
    """Return the files dataset of `DATASET/PATH`, and the path in it. Raise NotFoundError."""
    name, _, below = into.partition("/")
    known = app.loaded.configuration.files
    if name not in known:
        raise no_such("files dataset", name, known)
    return name, below.strip("/")


def listing(app: App, name: str, paths: Sequence[str] = (), text: str = "") -> Iterator[Entry]:
    """Yield the files of a dataset, of some paths of it, with a text in their path. Raise NotFoundError."""
    missing = {path.strip("/") for path in paths}
    for entry in app.context.files[name].scan():
        if missing:
            missing -= {entry.path}
        if covers(tuple(path.strip("/") for path in paths), entry.path) and text in entry.path:
            yield entry
    for path in sorted(missing):
        raise NotFoundError(f"{name} has no {path}", next_step=f"Run: holdfast media list {name}")


def candidates(app: App, source: str, into: str) -> list[Candidate]:
    """Return every file of a source, each with the reason for its refusal. Raise NotFoundError or RefusedError."""
    name, below = dataset(app, into)
    rules = app.loaded.configuration.files[name].uploads
    if why := uploads.refused_folder(below, rules):
        raise RefusedError(why, next_step=f"Name one of them, as {name}/{rules.folders[0]}.")
    if {"", ".", ".."} & {*below.split("/")} and below:
        raise RefusedError(f"{below!r} is not a path below the dataset")
    root = app.context.files[name].root
    if Path(source).absolute() == root or root in Path(source).absolute().parents:
        raise RefusedError(f"{source} is inside the dataset {name} itself")
    return list(uploads.examined(str(Path(source).absolute()), rules))


def plan_upload(
    app: App, source: str, into: str, *, skip_refused: bool = False, safety: bool = True
) -> tuple[Plan, list[Candidate]]:
    """Return the plan of an upload, and what it takes and refuses.

    Raise NotFoundError, or RefusedError where files are refused and not to be skipped, or nothing is left.
    """
    found = candidates(app, source, into)
    refused = [one for one in found if one.why]
    taken = [one for one in found if not one.why]
    if refused and not skip_refused:
        raise RefusedError(
            f"{len(refused)} of {len(found)} files are refused: "
            + "; ".join(f"{one.path}: {one.why}" for one in refused[:20]),
            next_step="Remove them from the source, or leave them out with --skip-refused.",
        )
    if not taken:
        raise RefusedError(f"{source} has no file that can be uploaded")
    name, below = dataset(app, into)
    step = UploadFiles(name, below, str(Path(source).absolute()), skip_refused)
    size = sum(one.size_bytes for one in taken)
    notes = (
        f"{len(taken)} files, {size:,} bytes. Files with the same path are replaced, others stay.",
        "They get the owner and group of the dataset.",
    )
    return _plan(app, "media.upload", name, step, notes, safety=safety, size=size), found


def plan_delete(app: App, name: str, paths: Sequence[str], *, safety: bool = True) -> Plan:
    """Return the plan that deletes files and folders of a dataset, or all of it. Raise NotFoundError."""
    name, _ = dataset(app, name)
    chosen = tuple(path.strip("/") for path in paths)
    count = sum(entry.kind != "directory" for entry in listing(app, name, chosen))
    notes = (f"{count:,} files of {name} are deleted.",)
    return _plan(app, "media.delete", name, DeleteFiles(name, chosen), notes, safety=safety)


def _plan(
    app: App,
    kind: str,
    name: str,
    step: UploadFiles | DeleteFiles,
    notes: Sequence[str],
    *,
    safety: bool,
    size: int = 0,
) -> Plan:
    present = parts.only_existing(app, parts.choose(app, only=(name,)))
    if safety and not app.loaded.configuration.vaults:
        raise RefusedError("no vault is configured for the safety backup", next_step="Use --no-safety.")
    need = {str(app.context.files[name].root): 2 * size + (1 << 20)} if size else {}
    steps: list[PlannedStep] = [parts.preflight(app, present, dumps=int(safety), stops=False, more=need)]
    if safety:
        steps += [
            parts.backup_copy(present),
            parts.backup_finish(present, "live", f"before: {step.title}", safety=True),
            PublishBackup(pin=True),
        ]
    keep = app.loaded.configuration.upgrade.keep_replaced
    return Plan(
        kind=kind,
        title=step.title,
        steps=(*steps, step),
        after_commit=(UnpinBackup(safety=True),) if safety else (),
        also_locks=("backup",),
        barrier_paths=tuple(app.context.barrier_paths()),
        parameters=parts.parameters(app, None),
        notes=(*notes, f"What is replaced or deleted is kept for {keep}" + (" and in a backup." if safety else ".")),
    )
