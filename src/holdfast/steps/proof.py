"""The steps that prove that databases of a backup can be restored: they are loaded as candidates, and dropped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial

from holdfast.application.context import ApplicationContext
from holdfast.drivers.protocols.vaults import StoredBackup
from holdfast.errors import CancelledError, DamagedError, HoldfastError
from holdfast.model import Backup
from holdfast.steps import backup, vault_files
from holdfast.steps.restore import OfBackup, engine_facts
from holdfast.steps.typed import Context, NoFacts, TypedStep, WarningFacts
from holdfast.system import durable

_SLACK_BYTES = 4 << 20


class ProveDatabases(OfBackup[NoFacts], frozen=True):
    """Load each database of a backup as a candidate database, compare it and drop it."""

    name = "database.prove"
    is_undone = True

    @property
    def title(self) -> str:
        return f"load candidate databases of {', '.join(self.databases)}, compare and drop them"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        _prove(application, context.operation, self.set, self.databases, partial(self.open_set_of, application))

    def undo(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        for database in application.databases.values():
            database.discard(context.operation)
        vault_files.remove_copies(application, context.operation)


def _prove(
    application: ApplicationContext,
    operation: str,
    set_id: str,
    databases: Sequence[str],
    open_set: Callable[[str], StoredBackup],
) -> None:
    """Prove databases. Raise DamagedError naming each that cannot be loaded, once all were tried."""
    failed: list[str] = []
    advice: list[str] = []
    for name in databases:
        try:
            source = open_set(name)
            with vault_files.dump_of(application, source, name, operation) as dump:
                application.databases[name].prepare(operation, dump, engine_facts(source.manifest, name))
        except CancelledError:
            raise
        except HoldfastError as error:
            failed.append(f"{name}: {error.what}")
            advice += [error.next_step] if error.next_step else []
        finally:
            application.databases[name].discard(operation)
    if failed:
        raise DamagedError(
            f"backup {set_id} cannot be restored: {'; '.join(failed)}",
            next_step="\n".join(advice)
            or "The server's message says what is missing: a right of this account, an extension, a name without its"
            " schema. Fix it in the live database, then make a new backup.",
        )


class ProveNewDatabases(TypedStep[WarningFacts], frozen=True):
    """Prove a backup whose databases, engine or schema differ from the last proven ones. This is a closing step.

    A failure is a warning: the backup exists, and the operator must know its worth.
    """

    name = "database.prove_new"

    databases: tuple[str, ...]

    @property
    def title(self) -> str:
        return "prove that new databases can be restored"

    def do(self, application: ApplicationContext, context: Context[WarningFacts]) -> None:
        published = context.facts_of(backup.PublishBackup)
        set_id = context.commit_facts.set_id or (published.set_id if published is not None else None)
        if set_id is None or not application.loaded.configuration.backup.prove:
            return
        source = backup.vault_of(application).open_set(set_id)
        path = application.loaded.state / "proven.json"
        known = durable.read_json(path, dict[str, str]) if path.exists() else {}
        for name in self.databases:
            digest = _what_decides(source.manifest, name)
            if known.get(name) == digest or not _has_room(application, source.manifest, name):
                continue
            try:
                _prove(application, context.operation, set_id, [name], lambda _: source)
            except HoldfastError as error:  # even errors of the server: after the commit nothing here is a failure
                application.host.warn(f"{error.what}\n{error.next_step}".rstrip())
                context.facts.warnings = [error.what]
                context.record()
            else:
                known[name] = digest
                durable.write_file(path, json.dumps(known))


def _what_decides(found: Backup, name: str) -> str:
    """Return a digest of what decides whether a dump can be loaded: engine, extensions, tables, migrations."""
    facts = found.datasets[name]
    decisive = [
        facts["kind"],
        facts["tool"],
        sorted(facts.get("rows", {})),
        facts.get("engine", {}).get("extensions"),
        found.release.get("migrations"),
        found.release.get("schema"),
    ]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _has_room(application: ApplicationContext, found: Backup, name: str) -> bool:
    """Return whether a candidate leaves as much space as it takes, as far as that can be seen from here."""
    private = application.databases[name].private_folder
    return private is None or durable.free_bytes(private.parent) > 2 * found.datasets[name]["size_bytes"] + _SLACK_BYTES
