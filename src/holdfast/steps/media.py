"""The steps of `media upload` and `media delete`, which move files as an import does: a kill leaves old or new."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from holdfast.application import uploads
from holdfast.application.context import ApplicationContext
from holdfast.drivers.interchange import incoming
from holdfast.errors import RefusedError, StepError
from holdfast.model import Entry
from holdfast.steps.typed import Context, NoFacts, TypedStep, WarningFacts
from holdfast.system import durable
from holdfast.system.confined import Beneath

_BLOCK_BYTES = 1 << 20
_MOST_NAMED = 3
_READ = os.O_RDONLY | os.O_NONBLOCK


class UploadFiles(TypedStep[WarningFacts], frozen=True):
    """Copy the accepted files of a source next to the dataset, examine the copies, then move them into place."""

    name = "media.upload"
    is_undone = True

    files: str
    below: str
    """The folder of the dataset into which they are copied; empty for the dataset itself."""
    source: str
    skip_refused: bool = False
    """Whether files that are refused are left out; otherwise the first one fails the operation."""

    @property
    def title(self) -> str:
        return f"upload files into {self.files}" + (f"/{self.below}" if self.below else "")

    def do(self, application: ApplicationContext, context: Context[WarningFacts]) -> None:
        files = application.files[self.files]
        rules = application.loaded.configuration.files[self.files].uploads
        folder = files.workspace(f"{context.operation}.upload")
        refused = []
        with uploads.opened(self.source) as tree:
            for entry in uploads.entries(self.source):
                context.check_cancelled()
                why = uploads.refused_by_name(entry.path, rules) if entry.kind == "file" else f"it is a {entry.kind}"
                why = why or _copied(tree, entry, folder)
                if why and not self.skip_refused:
                    raise RefusedError(f"{entry.path} is refused: {why}")
                refused += [f"{entry.path} was refused: {why}"] if why else []
        if refused:
            context.facts.warnings = refused
            context.record()
        found = incoming.Incoming(folder, self.below, files.root)
        wanted = found.merged(files.scan(), replace=False)
        files.stage(context.operation, wanted, found.fetch, context.check_cancelled)
        files.apply(context.operation)
        durable.remove_tree(folder)

    def undo(self, application: ApplicationContext, context: Context[WarningFacts]) -> None:
        files = application.files[self.files]
        files.revert(context.operation)
        files.discard(context.operation)


def _copied(tree: Beneath, entry: Entry, folder: Path) -> str:
    """Copy a file below a folder; return why it is refused, because of what the copy contains."""
    target = folder / os.fsdecode(entry.raw_path())
    target.parent.mkdir(0o755, parents=True, exist_ok=True)
    try:
        source = tree.open(entry.raw_path(), _READ)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    try:
        why = _copy(source, target, entry.path)
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        why = f"it cannot be read: {error.strerror}"
    finally:
        os.close(source)
    if why:
        durable.unlink(target)
    else:
        os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns))
    return why


def _copy(source: int, target: Path, path: str) -> str:
    with open(target, "xb") as copy:
        os.fchmod(copy.fileno(), 0o644)
        head = os.read(source, _BLOCK_BYTES)
        if why := uploads.refused_by_content(path, head[: uploads.HEAD_BYTES]):
            return why
        block = head
        while block:
            copy.write(block)
            block = os.read(source, _BLOCK_BYTES)
    return ""


class DeleteFiles(TypedStep[NoFacts], frozen=True):
    """Move files out of the dataset, next to it; they stay there for a while, and an undo moves them back."""

    name = "media.delete"
    is_undone = True

    files: str
    paths: tuple[str, ...]
    """Files and folders of the dataset; all of it if empty."""

    @property
    def title(self) -> str:
        if not self.paths:
            return f"delete everything in {self.files}"
        named = ", ".join(self.paths) if len(self.paths) <= _MOST_NAMED else f"{len(self.paths)} paths"
        return f"delete {named} of {self.files}"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        files = application.files[self.files]
        files.stage(context.operation, self._stays(files.scan()), _nothing, context.check_cancelled)
        files.apply(context.operation)

    def _stays(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        return (entry for entry in entries if not covers(self.paths, entry.path))

    def undo(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        files = application.files[self.files]
        files.revert(context.operation)
        files.discard(context.operation)


def covers(paths: tuple[str, ...], path: str) -> bool:
    """Return whether one of these paths is a path or above it; without any, everything is meant."""
    return not paths or any(path == one or path.startswith(f"{one}/") for one in paths)


def _nothing(entry: Entry, descriptor: int) -> None:
    raise StepError(f"unexpected file to write: {entry.path}")
