"""The table of all steps. Their names are in journals and are never renamed, only added."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from holdfast.application.context import ApplicationContext
from holdfast.engine.handlers import Handler
from holdfast.steps import (
    adopt,
    backup,
    closing,
    configuration,
    export,
    gate,
    guard,
    hooks,
    imports,
    index_snapshots,
    indices,
    last_pass,
    loaded,
    media,
    migrate,
    package_use,
    packages,
    preflight,
    proof,
    release,
    restore,
    restore_paths,
    restore_point,
    sanitizing,
    secrets,
    service_preparation,
    service_steps,
    swap,
    tasks,
)
from holdfast.steps.typed import AnyStep, handler

STEPS: tuple[type[AnyStep], ...] = (
    adopt.AdoptContainers,
    backup.CopyFiles,
    backup.FinishBackup,
    backup.CheckPrune,
    backup.PruneBackups,
    backup.PublishBackup,
    backup.UnpinBackup,
    closing.CompleteBackup,
    closing.TidyReplaced,
    configuration.RestoreConfiguration,
    export.PublishExport,
    export.WriteExport,
    gate.Announce,
    gate.CloseGate,
    gate.HoldGate,
    gate.OpenGate,
    guard.CompareRows,
    guard.CountRows,
    hooks.NoteHook,
    hooks.RunHook,
    imports.ImportDatabase,
    imports.ImportDataDirectory,
    imports.ImportFiles,
    index_snapshots.DropSnapshots,
    index_snapshots.SnapshotIndices,
    indices.DropIndexCopies,
    indices.LoadIndices,
    indices.ProtectIndices,
    indices.RebuildIndices,
    indices.SwapIndices,
    last_pass.TakeLastPass,
    loaded.CheckLoadedMigrations,
    loaded.CheckReferences,
    media.DeleteFiles,
    media.UploadFiles,
    migrate.CheckMigrations,
    migrate.MigrateWhileServing,
    migrate.VerifyMigrations,
    migrate.VerifyNonePending,
    package_use.RecordUse,
    packages.CarryPatches,
    packages.FetchPackage,
    packages.PatchPackage,
    packages.PushPackage,
    preflight.Preflight,
    proof.ProveDatabases,
    proof.ProveNewDatabases,
    release.BuildPackage,
    release.PruneReleases,
    release.SwitchRelease,
    release.UnpackRelease,
    restore.CheckBackup,
    restore.HandOver,
    restore.LoadDatabases,
    restore.PinSource,
    restore.RestoreFiles,
    swap.SwapDatabases,
    restore.UnpackBackupCode,
    restore.UnpinSource,
    restore_paths.RestorePaths,
    restore_point.AllowChanges,
    restore_point.CreateRestorePoint,
    restore_point.DropRestorePoint,
    restore_point.PrepareRestorePoint,
    restore_point.WipeData,
    sanitizing.DeleteSanitized,
    sanitizing.PublishSanitized,
    sanitizing.WriteSanitized,
    secrets.StartUsers,
    secrets.StopUsers,
    secrets.SwitchSecrets,
    service_preparation.PrepareServices,
    service_preparation.RemoveStopped,
    service_steps.AdoptServices,
    service_steps.CommandServices,
    service_steps.ResumeServices,
    service_steps.StartServices,
    service_steps.StopServices,
    tasks.RunTask,
    tasks.RunTaskAfterStart,
)

TABLE: Mapping[str, type[AnyStep]] = {kind.name: kind for kind in STEPS}
"""The class of each step by its name in journals."""


def functions() -> dict[str, tuple[Callable[..., object], ...]]:
    """Return the code of each step by its name."""
    return {name: (kind.do, kind.undo) for name, kind in TABLE.items()}


def handlers(application: ApplicationContext) -> dict[str, Handler]:
    """Return the code of every step for the engine, bound to one application."""
    return {name: handler(kind, application) for name, kind in TABLE.items()}
