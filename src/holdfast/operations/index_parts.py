"""Parts of plans that bring search indices to the state of their databases. They only describe; nothing runs here."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.application.application import App
from holdfast.model import PlannedStep, Release
from holdfast.steps.index_snapshots import SnapshotIndices
from holdfast.steps.indices import LoadIndices, RebuildIndices, SwapIndices
from holdfast.steps.restore import Chosen
from holdfast.steps.tasks import TaskName


def snapshot_indices(app: App, chosen: Sequence[str]) -> list[PlannedStep]:
    """Return the step that puts indices into a backup; none if no backup has any."""
    sections = app.loaded.configuration.indices
    names = tuple(name for name in chosen if sections[name].content == "snapshot")
    return [SnapshotIndices(names)] if names else []


def affected_indices(app: App, databases: Sequence[str], left_out: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the indices that are out of date when these databases are replaced."""
    return tuple(name for name in app.loaded.configuration.indices if databases and name not in left_out)


def load_indices(chosen: Chosen, names: Sequence[str]) -> list[PlannedStep]:
    """Return the step that restores the snapshots of a backup next to the live indices; none without any."""
    return [LoadIndices(*chosen, indices=tuple(names))] if names else []


def swap_indices(affected: Sequence[str], *, exact: bool) -> list[PlannedStep]:
    """Return the step that puts restored indices in place and notes the others as out of date."""
    return [SwapIndices(tuple(affected), exact)] if affected else []


def rebuild_indices(release: Release | None, names: Sequence[str]) -> list[PlannedStep]:
    """Return the closing step that builds indices again where they are out of date, once visitors are let in."""
    return [RebuildIndices(release, tuple(names))] if names and release is not None else []


def reindex(app: App) -> tuple[TaskName, ...]:
    """Return the task that builds indices in the window, where no index is configured that is built after it."""
    return () if app.loaded.configuration.indices else ("reindex",)
