"""`backup restore ID`: the whole application, or some of its datasets, as they were at an instant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from holdfast.app import App
from holdfast.errors import RefusedError
from holdfast.model import Backup, Outcome, Plan, Release, Step
from holdfast.operations import backup as backups
from holdfast.operations import parts

_RELEASE_FIELDS = ("id", "package", "label", "commit", "path", "deployed_at", "operation")


def plan(
    app: App, reference: str, *, only: Sequence[str] = (), except_: Sequence[str] = (), safety: bool = True
) -> Plan:
    """The plan of a restore. Raises NotFoundError, UsageError, RefusedError or DamagedError; nothing is changed."""
    found = backups.find(app, reference)
    backups.vault(app).open_set(found.id)
    chosen = parts.choose(app, only, except_)
    datasets = parts.Datasets(
        tuple(name for name in chosen.databases if name in found.datasets or name in only),
        tuple(name for name in chosen.files if name in found.datasets or name in only),
        chosen.code,
    )
    release = _release(app, found, datasets.code)
    supersedes = _stuck(app)
    safety = safety and supersedes is None
    steps = _steps(app, found, datasets, release, safety)
    notes = [
        f"{', '.join((*datasets.databases, *datasets.files)) or 'no data'}: back to {found.instant}; what was written since is"
        f" {'kept in a safety backup made first' if safety else 'lost: no safety backup is made'}"
    ]
    if release is not None and release != app.opened.current_release():
        notes.append(f"the code goes to release {release.label}")
    missing = [name for name in (*chosen.databases, *chosen.files) if name not in found.datasets and name not in only]
    if missing:
        notes.append(f"not in this backup and left as they are: {', '.join(missing)}")
    after = (
        Step("services.adopt", "keep what was started"), Step("gate.open", "open the gate"),
        Step("backup.unpin", "unpin the safety backup"),
        Step("restore.tidy", "drop what was replaced", {"keep_replaced": not safety}),
    )  # fmt: skip
    return Plan(
        kind="backup.restore", title=f"restore backup {found.id}", steps=tuple(steps), after_commit=after,
        also_locks=("backup",), notes=tuple(notes), barrier_paths=tuple(app.opened.barrier_paths()),
        parameters=parts.parameters(app, release, set=found.id, supersedes=supersedes),
    )  # fmt: skip


def _stuck(app: App) -> str | None:
    """A stuck operation that this restore ends."""
    for record in app.journal.interrupted():
        if record.outcome is Outcome.STUCK:
            return record.id
    return None


def _release(app: App, found: Backup, code: bool) -> Release | None:
    """The release to run afterwards: the set's own, or the present one."""
    if code and all(field in found.release for field in ("id", "commit", "path")):
        release = Release(**{field: found.release.get(field, "") for field in _RELEASE_FIELDS})
        current = app.opened.current_release()
        return current if current is not None and current.id == release.id else release
    return app.opened.current_release()


def _steps(app: App, found: Backup, datasets: parts.Datasets, release: Release | None, safety: bool) -> list[Step]:
    both = {"set": found.id, "databases": list(datasets.databases), "files": list(datasets.files)}
    value = asdict(release) if release is not None else None
    present = parts.existing(app, parts.choose(app))
    steps = [
        parts.preflight(app, parts.Datasets((), (), False), with_backup=False),
        Step("restore.check", "check the backup", {**both, "release": value}),
    ]
    if release is not None:
        steps.append(Step("restore.unpack_code", "make the release present", {**both, "release": value}))
    if datasets.databases:
        steps.append(Step("database.load", "load databases beside the live ones", both))
    if safety:
        if not app.loaded.configuration.vaults:
            raise RefusedError("no vault is configured for the safety backup", next_step="Use --no-safety.")
        steps.append(parts.backup_copy(present))
    steps += [parts.gate_close(f"restore of {found.id}"), Step("services.stop", "stop services in order")]
    if safety:
        steps += [
            parts.backup_finish(present, "quiesce", f"before the restore of {found.id}"),
            parts.backup_publish(pin=True),
        ]
    if datasets.databases:
        steps.append(Step("database.swap", "put the restored databases in place", both))
    if datasets.files:
        steps.append(Step("files.restore", "restore files by difference", both))
    if release is not None:
        steps += [
            parts.switch(release),
            *parts.tasks(app, release, "after_restore"),
            parts.start(release, parts.WEB, "start and verify the web"),
            parts.start(release, parts.BEHIND, "start and verify workers and schedulers"),
        ]
    return steps
