"""The plan of `backup export`: databases, files, code and configuration of a backup as plain files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from holdfast.application.application import App
from holdfast.config.similar import no_such
from holdfast.errors import DamagedError, NotFoundError, RefusedError
from holdfast.model import Backup, Plan, PlanParameters
from holdfast.operations import backup as backups
from holdfast.steps import export
from holdfast.steps.export import ChosenSet, ExportedSet, Format, PublishExport, WriteExport

_STORED = {"code": ("code.tar.zst", "code.json"), "config": ("config.tar.zst",)}


def plan(
    app: App,
    reference: str | None,
    folder: str,
    *,
    only: Sequence[str] = (),
    format: Format = "tar.gz",
    decompresses: bool = False,
    reason: str = "",
) -> Plan:
    """Return the plan of an export; without a reference, of all backups. `decompresses`: dumps that are compressed.

    Raise NotFoundError, UsageError, RefusedError or DamagedError; nothing is changed.
    """
    target = _folder(app, folder)
    sets = _sets(app, reference, only)
    chosen = [_chosen(item, only) for item in sets]
    for item in sets:
        if (target / item.id).exists() or (target / item.id).is_symlink():
            raise export.taken(target / item.id)
    stored = sum(
        facts["size_bytes"]
        for item, names in zip(sets, chosen, strict=True)
        for name, facts in item.files.items()
        if name.partition("/")[0] in names.stored
    )
    files = sum(
        item.datasets[name]["size_bytes"] for item, names in zip(sets, chosen, strict=True) for name in names.files
    )
    leaves = [*_leaves(app, sets, chosen), *([f"Reason: {reason}"] if reason else [])]
    title = f"export backup {sets[0].id}" if len(sets) == 1 else f"export {len(sets)} backups"
    return Plan(
        kind="backup.export",
        title=f"{title} to {target}",
        lock="backup",
        steps=(
            WriteExport(
                folder=str(target),
                sets=tuple(chosen),
                format=format,
                size_bytes=stored + files,
                leaves=tuple(leaves),
                # The size of exported files is not known yet: they are compressed, or have holes and hard links.
                need_bytes={str(target): stored + (1 << 20)},
                decompresses=decompresses,
            ),
        ),
        after_commit=(PublishExport(str(target), tuple(ExportedSet(item.id) for item in sets)),),
        notes=(*leaves, *_left_out(sets, only)),
        barrier_paths=(str(app.loaded.state),),
        parameters=PlanParameters(reason=reason or None),
    )


def plan_backup(app: App, folder: str) -> Plan:
    """Return the plan of the backup that an export of all databases begins with.

    Raise RefusedError or NotFoundError, also where the export could not write its folder.
    """
    _folder(app, folder)
    if not app.loaded.configuration.databases:
        raise RefusedError("the application has no databases", next_step="See: holdfast config help databases")
    return backups.plan(app, only=tuple(app.loaded.configuration.databases), comment="for an export of the databases")


def takes_data(app: App, only: Sequence[str]) -> bool:
    """Return whether an export of these parts contains data, and not only code and configuration."""
    return not only or bool({*only} - {*_STORED})


def is_reference(app: App, text: str) -> bool:
    """Return whether a word can only mean a backup."""
    return text == "latest" or any(item.id.startswith(text) for item in backups.vault(app).backups())


def _folder(app: App, folder: str) -> Path:
    """Return the target folder, absolute and without links. Raise RefusedError or NotFoundError."""
    target = Path(folder).resolve()
    configuration = app.loaded.configuration
    places = {f"dataset {name}": app.loaded.path(item.path) for name, item in configuration.files.items()}
    if (vault := backups.vault(app).capabilities.folder) is not None:
        places["vault"] = vault
    places |= {"state directory": app.loaded.state, "folder of releases": app.context.releases}
    for what, place in places.items():
        if target.is_relative_to(place.resolve()):
            raise RefusedError(
                f"{target} is inside the {what} ({place})",
                state="Nothing was changed.",
                next_step="Name a folder elsewhere.",
            )
    if target.exists() and not target.is_dir():
        raise RefusedError(f"{target} is not a folder", state="Nothing was changed.", next_step="Name a folder.")
    if not target.parent.is_dir():
        raise NotFoundError(
            f"there is no folder {target.parent}",
            state="Nothing was changed.",
            next_step="Mount the disk or make that folder, then run the command again.",
        )
    return target


def _sets(app: App, reference: str | None, only: Sequence[str]) -> list[Backup]:
    """Return the backups that contain what is asked for."""
    configuration = app.loaded.configuration
    if reference is not None:
        found = [backups.find(app, reference, only or (*configuration.databases, *configuration.files))]
    else:
        broken = backups.vault(app).damaged()
        if broken:
            raise DamagedError(
                f"some backups are damaged and cannot be exported: {', '.join(broken)}",
                state="Nothing was changed.",
                next_step="Run `holdfast backup verify` to see what is wrong; export the whole backups by their ids.",
            )
        found = backups.vault(app).backups()
        if not found:
            raise NotFoundError("there is no backup yet", next_step="Run: holdfast backup create")
    known = sorted({name for item in found for name in _names(item)})
    for name in only:
        if name not in known:
            raise no_such(f"dataset in backup {found[0].id}" if len(found) == 1 else "dataset", name, known)
    return [item for item in found if not only or {*only} & _names(item)]


def _names(item: Backup) -> set[str]:
    return {*item.datasets, *(part for part, names in _STORED.items() if any(name in item.files for name in names))}


def _chosen(item: Backup, only: Sequence[str]) -> ChosenSet:
    """Return what to write of one backup: files as the vault stores them, and datasets of files."""
    wanted = {name for name in _names(item) if not only or name in only}
    stored = [facts["file"] for name, facts in item.datasets.items() if name in wanted and facts["kind"] != "files"]
    stored += [name for part, names in _STORED.items() if part in wanted for name in names if name in item.files]
    files = [name for name, facts in item.datasets.items() if name in wanted and facts["kind"] == "files"]
    return ChosenSet(item.id, tuple(sorted(stored)), tuple(sorted(files)))


def _leaves(app: App, sets: Sequence[Backup], chosen: Sequence[ChosenSet]) -> list[str]:
    """Return warnings about data that leaves the vault; the operation's record keeps them."""
    found = []
    data = [item.id for item, names in zip(sets, chosen, strict=True) if names.names - _code()]
    if app.loaded.environment_type == "prod" and data:
        found.append(f"Production data leaves the vault without being sanitized: {', '.join(data)}")
    config = [
        item.id
        for item, names in zip(sets, chosen, strict=True)
        if item.secrets_inside and "config.tar.zst" in names.stored
    ]
    if config:
        found.append(f"config.tar.zst contains secrets: {', '.join(config)}")
    return found


def _code() -> set[str]:
    return {name for names in _STORED.values() for name in names}


def _left_out(sets: Sequence[Backup], only: Sequence[str]) -> list[str]:
    return [f"{item.id} has no {name}" for item in sets for name in only if name not in _names(item)]
