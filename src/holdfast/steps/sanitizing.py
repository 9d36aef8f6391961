"""The steps of sanitized backups: written in a hidden folder of the vault, and listed after the commit."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from holdfast.application import sanitizing
from holdfast.application.context import ApplicationContext
from holdfast.drivers.interchange.compressed import ERRORS, peeled
from holdfast.errors import DamagedError, NoSpaceError
from holdfast.sanitize import output
from holdfast.sanitize.deciding import DatabasePlan
from holdfast.sanitize.store import SanitizedBackup, SanitizedBackups, SanitizedFile
from holdfast.steps.backup import vault_of
from holdfast.steps.typed import Context, StepFacts, TypedStep
from holdfast.system import durable

_LEAST_FREE_BYTES = 64 << 20
_BLOCK_BYTES = 1 << 20


class WrittenFacts(StepFacts):
    rows: int | None = None
    size_bytes: int | None = None


class WriteSanitized(TypedStep[WrittenFacts], frozen=True):
    """Write the dumps of all databases and what they are, durably; nothing is listed yet."""

    name = "sanitized.write"
    is_undone = True

    id: str
    comment: str = ""

    @property
    def title(self) -> str:
        return "write sanitized dumps"

    def do(self, application: ApplicationContext, context: Context[WrittenFacts]) -> None:
        rules, plans = sanitizing.ready(application)
        store = sanitizing.store(application)
        vault_of(application).create_or_open()
        folder = store.begin(self.id)
        if durable.free_bytes(folder) < _LEAST_FREE_BYTES:
            raise NoSpaceError(f"{folder.parent} has less than {_LEAST_FREE_BYTES >> 20} MiB free")
        key = sanitizing.key_of(application, rules)
        files = _Dumps(application, context, folder, self.id, key).write(plans)
        release = application.current_release()
        store.finish(
            SanitizedBackup(
                id=self.id,
                owner=application.loaded.owner,
                instant=datetime.now(UTC).isoformat(timespec="seconds"),
                release=release.label if release is not None else "",
                rules=sanitizing.digest(application, plans),
                key=sanitizing.key_id(key),
                encrypted_to=tuple(application.loaded.configuration.sanitize.encrypt_to),
                files=files,
                exempt=tuple(
                    f"{name}: {one.table.name}" for name, plan in plans.items() for one in plan.tables if one.exempt
                ),
                comment=self.comment,
            )
        )
        context.facts.rows = sum(sum(one.rows.values()) for one in files.values())
        context.facts.size_bytes = sum(one.size_bytes for one in files.values())
        context.record()

    def undo(self, application: ApplicationContext, context: Context[WrittenFacts]) -> None:
        sanitizing.store(application).abandon(self.id)


class _Dumps:
    """Writes the dump of each database into the folder."""

    def __init__(
        self, application: ApplicationContext, context: Context[WrittenFacts], folder: Path, id: str, key: str
    ) -> None:
        self._application = application
        self._context = context
        self._folder = folder
        self._id = id
        self._key = key
        self._done = 0

    def write(self, plans: Mapping[str, DatabasePlan]) -> dict[str, SanitizedFile]:
        found = {}
        total = sum(one.table.size_bytes for plan in plans.values() for one in plan.tables if not one.empty)

        def passed(size_bytes: int) -> None:
            self._done += size_bytes
            self._context.check_cancelled()
            self._context.progress(self._done, max(total, self._done), "bytes")

        for name, plan in plans.items():
            file = f"{self._id}-sanitized-{'db' if len(plans) == 1 else name}"
            settings = self._application.loaded.configuration.sanitize
            sanitizer = self._application.sanitizers[name]
            dump = sanitizer.write(plan, self._key, self._folder, settings.compression, passed, settings.jobs)
            plain = self._folder / f"{file}.{sanitizer.extension}.{settings.compression}"
            digest = output.join(dump.parts, plain)
            _verify(plain, dump.size_bytes)
            written = plain
            if settings.encrypt_to:
                written = plain.with_name(f"{plain.name}.age")
                digest = output.encrypt(plain, written, settings.encrypt_to)
            found[written.name] = SanitizedFile(
                database=name,
                kind=self._application.loaded.configuration.databases[name].kind,
                size_bytes=written.stat().st_size,
                sha256=digest,
                rows=dump.rows,
                schema=plan.schema.fingerprint(),
                load=sanitizer.load_command(written.name),
            )
        return found


def _verify(path: Path, size_bytes: int) -> None:
    """Raise DamagedError unless the file is unpacked to the bytes that went in."""
    found = 0
    try:
        with peeled(str(path)) as (stream, _):
            while block := stream.read(_BLOCK_BYTES):
                found += len(block)
    except ERRORS as error:
        raise DamagedError(f"{path.name} cannot be read again: {error}") from error
    if found != size_bytes:
        raise DamagedError(f"{path.name} has {found} bytes instead of {size_bytes}")


class PublishSanitized(TypedStep[StepFacts], frozen=True):
    """List the backup. This is a closing step."""

    name = "sanitized.publish"

    id: str

    @property
    def title(self) -> str:
        return "list the sanitized backup"

    def do(self, application: ApplicationContext, context: Context[StepFacts]) -> None:
        sanitizing.store(application).publish(self.id)


class DeleteSanitized(TypedStep[StepFacts], frozen=True):
    """Remove a sanitized backup. This is a closing step."""

    name = "sanitized.delete"

    id: str

    @property
    def title(self) -> str:
        return f"delete the sanitized backup {self.id}"

    def do(self, application: ApplicationContext, context: Context[StepFacts]) -> None:
        store: SanitizedBackups = sanitizing.store(application)
        store.remove(self.id)
