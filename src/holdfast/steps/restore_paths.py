"""The step that brings back single files and folders of a backup while the services go on."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import msgspec

from holdfast.application import file_paths
from holdfast.application.context import ApplicationContext
from holdfast.drivers.entries import Selection
from holdfast.drivers.files.tree import readable
from holdfast.errors import DamagedError
from holdfast.steps import backup
from holdfast.steps.typed import Context, NoFacts, TypedStep


class ChosenPath(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file or folder of a dataset; without a path it is the whole dataset."""

    dataset: str
    path: str
    path_base64: str = ""
    """The exact bytes of a path that is not UTF-8."""

    @classmethod
    def of(cls, dataset: str, path: bytes) -> ChosenPath:
        return cls(dataset, *readable(path))

    def raw_path(self) -> bytes:
        return base64.b64decode(self.path_base64) if self.path_base64 else self.path.encode()

    def __str__(self) -> str:
        return f"{self.dataset}/{self.path}".rstrip("/")


class RestorePaths(TypedStep[NoFacts], frozen=True):
    """Stage what differs, verified by its digest, before the first file moves. Everything else in the trees stays."""

    name = "files.restore_paths"
    is_undone = True

    set: str
    """The backup."""
    paths: tuple[ChosenPath, ...]

    @property
    def title(self) -> str:
        return f"restore {named(self.paths)}"

    def _selections(self) -> dict[str, Selection]:
        return file_paths.selections((chosen.dataset, chosen.raw_path()) for chosen in self.paths)

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        source = backup.vault_of(application).open_set(self.set, ())
        selections = self._selections()
        for name, chosen in selections.items():
            wanted = file_paths.chosen_entries(source, name, chosen)
            try:
                application.files[name].stage(
                    context.operation, wanted, source.fetch, context.check_cancelled, within=chosen
                )
            except DamagedError as error:
                error.next_step = "Choose another backup; `holdfast backup find` shows which ones have the file."
                raise
        for name in selections:
            application.files[name].apply(context.operation)

    def undo(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        for name in self._selections():
            application.files[name].revert(context.operation)
            application.files[name].discard(context.operation)


def named(paths: Sequence[ChosenPath]) -> str:
    """Return how titles name what is restored."""
    return str(paths[0]) if len(paths) == 1 else f"{len(paths)} paths"
