"""The plan of `backup prune`: the retention rules decide here which whole backups are removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from holdfast.application import whole_backups
from holdfast.application.application import App
from holdfast.errors import DamagedError
from holdfast.model import Backup, Plan, PlanParameters, Release
from holdfast.operations import backup as backups
from holdfast.steps import release as releases
from holdfast.steps.backup import CheckPrune, PruneBackups
from holdfast.steps.index_snapshots import DropSnapshots

LEAST_WHOLE = 3
"""The number of whole backups that always stay: the newest may contain data that was already damaged."""

_PERIODS = {
    "hourly": "%Y-%m-%d %H",
    "daily": "%Y-%m-%d",
    "weekly": "%G-%V",
    "monthly": "%Y-%m",
    "yearly": "%Y",
}


def kept(sets: Sequence[Backup], keep: Mapping[str, int], least: int = 1) -> dict[str, list[str]]:
    """Return why a backup is kept, by id.

    The newest of each period counts; pinned backups and the `least` newest are always kept.
    """
    reasons: dict[str, list[str]] = {backup.id: [] for backup in sets}
    newest_first = sorted(sets, key=lambda backup: backup.sequence, reverse=True)
    for backup in newest_first[: max(least, keep.get("last", 1))]:
        reasons[backup.id].append("last")
    for name, pattern in _PERIODS.items():
        seen: set[str] = set()
        for backup in newest_first:
            period = datetime.fromisoformat(backup.created_at).strftime(pattern)
            if period not in seen and len(seen) < keep.get(name, 0):
                seen.add(period)
                reasons[backup.id].append(name)
    for backup in sets:
        if backup.pinned:
            reasons[backup.id].append("pinned")
    return {id: why for id, why in reasons.items() if why}


def plan(app: App) -> Plan:
    """Return the plan of a prune. Raise DamagedError while a backup is damaged: nothing is removed then."""
    vault = backups.vault(app)
    broken = vault.damaged()
    if broken:
        raise DamagedError(
            f"pruning is refused while a backup is damaged: {', '.join(broken)}",
            state="Nothing was changed.",
            next_step="Run `holdfast backup verify` to see what is wrong; move the damaged folder out of the vault to"
            " go on.",
        )
    sets = vault.backups()
    keep = msgspec.structs.asdict(app.loaded.configuration.backup.keep)
    # Whole backups are counted separately, so that a partial one, such as a safety backup, never displaces one.
    whole = [backup for backup in whole_backups.whole(app.loaded, sets) if not backup.safety]
    stay = {**kept(sets, keep), **kept(whole, keep, LEAST_WHOLE)}
    for release, backup in ways_back(app, sets):
        stay.setdefault(backup.id, []).append(f"the data for a rollback to {release.label}")
    remove = [backup.id for backup in sets if backup.id not in stay]
    notes = [f"keeps {id} ({', '.join(why)})" for id, why in sorted(stay.items())]
    notes += [f"removes {id}" for id in remove]
    has_snapshots = any(item.content == "snapshot" for item in app.loaded.configuration.indices.values())
    drop = [DropSnapshots()] if has_snapshots else []
    return Plan(
        kind="backup.prune",
        title=f"prune {len(remove)} of {len(sets)} backups",
        steps=(CheckPrune(tuple(remove)),),
        lock="backup",
        after_commit=(PruneBackups(tuple(remove)), *drop),
        notes=tuple(notes),
        barrier_paths=(str(app.loaded.state),),
        parameters=PlanParameters(remove=tuple(remove)),
    )


def ways_back(app: App, sets: Sequence[Backup]) -> list[tuple[Release, Backup]]:
    """Return the kept earlier releases, each with the backup of its data, if there is one."""
    found = []
    for release in releases.known_releases(app.context)[1 : max(app.loaded.configuration.releases.keep, 2)]:
        backup = releases.data_of(app.context, release, sets)
        if backup is not None:
            found.append((release, backup))
    return found
