"""The table of all steps: name -> code. Names are in journals and are never renamed, only added."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from holdfast.application.context import Opened
from holdfast.engine.runner import Handler, StepContext
from holdfast.model import Release
from holdfast.steps import (
    adopt,
    backup,
    configuration,
    export,
    gate,
    guard,
    imports,
    last_pass,
    loaded,
    migrations,
    preflight,
    release,
    restore,
    restore_point,
    service_steps,
    tasks,
)
from holdfast.steps.typed import TypedStep, handler

Do = Callable[[Opened, StepContext], None]

TABLE: Mapping[str, tuple[Do, Do | None]] = {
    "migrations.check": (migrations.check, None),
    "migrations.check_loaded": (loaded.check_migrations, None),
    "references.check_loaded": (loaded.check_references, None),
    "migrations.verify": (migrations.verify, None),
    "migrations.apply_compatible": (migrations.apply_compatible, migrations.note_stayed),
    "backup.complete": (last_pass.complete, None),
    "export.write": (export.write, export.discard),
    "export.publish": (export.publish, None),
    "restore.check": (restore.check, None),
    "restore.configuration": (configuration.put_back, configuration.take_away),
    "clone.pin": (restore.pin, restore.unpin),
    "clone.unpin": (restore.unpin, None),
    "database.load": (restore.load_databases, restore.discard),
    "database.prove": (restore.prove, restore.discard),
    "database.prove_new": (restore.prove_new, None),
    "database.swap": (restore.swap_databases, restore.swap_back),
    "files.restore": (restore.restore_files, restore.revert_files),
    "database.hand_over": (restore.hand_over, None),
    "restore.tidy": (restore.tidy, None),
}


TYPED: tuple[type[TypedStep[Any]], ...] = (
    gate.CloseGate,
    gate.OpenGate,
    gate.HoldGate,
    guard.CompareRows,
    guard.CountRows,
    preflight.Preflight,
    tasks.RunTask,
    restore_point.AllowChanges,
    restore_point.CreateRestorePoint,
    restore_point.DropRestorePoint,
    restore_point.WipeData,
    imports.ImportDatabase,
    imports.ImportDataDirectory,
    imports.ImportFiles,
    backup.CopyFiles,
    backup.FinishBackup,
    backup.PruneBackups,
    backup.PublishBackup,
    backup.UnpinBackup,
    last_pass.TakeLastPass,
    service_steps.AdoptServices,
    service_steps.CommandServices,
    service_steps.ResumeServices,
    service_steps.StartServices,
    service_steps.StopServices,
    adopt.AdoptContainers,
    release.BuildPackage,
    release.PruneReleases,
    release.SwitchRelease,
    release.UnpackRelease,
    restore.UnpackBackupCode,
)
"""Steps that are classes; the others follow family by family."""


def functions() -> dict[str, tuple[Callable[..., Any], ...]]:
    """Return the code of each step by its name."""
    found: dict[str, tuple[Callable[..., Any], ...]] = {
        name: tuple(one for one in pair if one is not None) for name, pair in TABLE.items()
    }
    return found | {kind.name: (kind.do, kind.undo) for kind in TYPED}


def handlers(opened: Opened) -> dict[str, Handler]:
    """Return the code of every step, bound to one application."""
    bound = {kind.name: handler(kind, opened) for kind in TYPED}
    for name, (do, undo) in TABLE.items():
        bound[name] = Handler(
            do=partial(do, opened),
            undo=partial(undo, opened) if undo is not None else None,
            describe=partial(_describe, opened, name),
        )
    return bound


def _describe(opened: Opened, name: str, parameters: Mapping[str, Any]) -> list[str]:
    """Return the exact commands of a step, for the dry run."""
    if name == "migrations.apply_compatible":
        return tasks.describe(opened, Release(**parameters["release"]), parameters["task"])
    return []
