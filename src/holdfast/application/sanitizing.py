"""The rules, the decisions and the key of sanitized backups of one application."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path

import msgspec

from holdfast.application.context import ApplicationContext
from holdfast.config.load import sanitizing_presets
from holdfast.config.similar import no_such
from holdfast.errors import ConfigurationError, NotFoundError, RefusedError
from holdfast.sanitize import lock, rules
from holdfast.sanitize.deciding import DatabasePlan, Decided, decide
from holdfast.sanitize.rules import Rules
from holdfast.sanitize.store import SanitizedBackups
from holdfast.system import durable

_KEY_FILE = "sanitize.key"
_KEY_BYTES = 32
_KEY_ID_DIGITS = 12


def rules_path(context: ApplicationContext) -> Path:
    return context.loaded.path(context.loaded.configuration.sanitize.rules)


def lock_path(context: ApplicationContext) -> Path:
    return rules_path(context).with_suffix(".lock")


def read_rules(context: ApplicationContext) -> Rules:
    """Return the rules. Raise NotFoundError, ConfigurationError with all problems."""
    path = rules_path(context)
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise NotFoundError(
            f"there are no rules for sanitized backups: {path} does not exist",
            next_step="Write a first draft of them: holdfast sanitize init",
        ) from None
    return rules.parse(text, path.name, preset)


def preset(name: str) -> str:
    """Return the text of a packaged file of rules. Raise NotFoundError."""
    known = sanitizing_presets()
    if name not in known:
        raise no_such("preset of rules", name, known)
    return known[name]


def databases(context: ApplicationContext) -> list[str]:
    """Return the databases of a sanitized backup. Raise RefusedError where one cannot be sanitized."""
    wrong = [name for name in context.databases if name not in context.sanitizers]
    if wrong:
        kinds = {context.loaded.configuration.databases[name].kind for name in wrong}
        raise RefusedError(f"databases of kind {', '.join(sorted(kinds))} cannot be sanitized yet ({', '.join(wrong)})")
    if not context.databases:
        raise RefusedError("there is no database in [databases]")
    return list(context.databases)


def decisions(context: ApplicationContext, found: Rules) -> dict[str, Decided]:
    """Return what happens to each column of each database. Nothing is written."""
    made = {}
    for name in databases(context):
        sanitizer = context.sanitizers[name]
        schema = sanitizer.schema()
        made[name] = decide(schema, _of_database(found, name), sanitizer.contents(schema), sanitizer.quote)
    return _without_unused(made, found)


def _of_database(found: Rules, name: str) -> Rules:
    """Return the rules for one database: `tables."NAME:TABLE"` is only for that one."""
    tables = {
        table.removeprefix(f"{name}:"): value
        for table, value in found.tables.items()
        if ":" not in table or table.startswith(f"{name}:")
    }
    return msgspec.structs.replace(found, tables=tables)


def _without_unused(made: dict[str, Decided], found: Rules) -> dict[str, Decided]:
    """Leave out the problem of a table that is missing in one of several databases, if another one has it."""
    if len(made) < 2:
        return made
    missing = "no table of that name"
    per_database = [{one for one in decided.problems if missing in one} for decided in made.values()]
    everywhere = set.intersection(*per_database)
    return {
        name: msgspec.structs.replace(
            decided, problems=tuple(one for one in decided.problems if missing not in one or one in everywhere)
        )
        for name, decided in made.items()
    }


def problems(context: ApplicationContext, made: Mapping[str, Decided], *, locked: bool = True) -> list[str]:
    """Return what keeps a sanitized backup from being made, each with its database if there are several."""
    found: list[str] = []
    for name, decided in made.items():
        prefix = f"{name}: " if len(made) > 1 else ""
        own = list(decided.problems) or context.sanitizers[name].problems(decided.plan)
        found += [f"{prefix}{one}" for one in own]
    if locked and not found:
        found += _unlocked(context, made)
    return found


def _unlocked(context: ApplicationContext, made: Mapping[str, Decided]) -> list[str]:
    path = lock_path(context)
    try:
        known = lock.read(path.read_text(), path.name)
    except FileNotFoundError:
        return [f"{path.name} does not exist: no decision was looked at yet"]
    found = []
    for name, decided in made.items():
        prefix = f"{name}: " if len(made) > 1 else ""
        found += [f"{prefix}{one}" for one in lock.differences(known.get(name, {}), decided.plan.lines())]
    return found


def ready(context: ApplicationContext) -> tuple[Rules, dict[str, DatabasePlan]]:
    """Return rules and plans. Raise ConfigurationError that names everything that is undecided or not looked at."""
    found = read_rules(context)
    made = decisions(context, found)
    if wrong := problems(context, made):
        raise ConfigurationError(
            "the rules of sanitized backups do not cover everything",
            wrong,
            next_step="Decide about these, look at `holdfast sanitize rules`, then run: holdfast sanitize lock",
        )
    return found, {name: decided.plan for name, decided in made.items()}


def refuse_undecided(decided: Decided, table: str) -> None:
    """Raise ConfigurationError where columns of a table are undecided, because their raw values would be shown."""
    if wrong := [one for one in decided.problems if one.startswith((f"{table}.", f"{table}:"))]:
        raise ConfigurationError(f"the rules do not cover all of {table}", wrong)


def write_lock(context: ApplicationContext, made: Mapping[str, Decided]) -> None:
    text = lock.written({name: decided.plan.lines() for name, decided in made.items()})
    durable.write_file(lock_path(context), text, 0o644)


def digest(context: ApplicationContext, plans: Mapping[str, DatabasePlan]) -> str:
    """Return the digest of the rules and of the decisions."""
    text = lock.written({name: plan.lines() for name, plan in plans.items()})
    return hashlib.sha256(rules_path(context).read_bytes() + text.encode()).hexdigest()


def key_of(context: ApplicationContext, found: Rules) -> str:
    """Return the key, which is redacted from now on: of the project, or a new one for one backup alone."""
    if found.consistency == "run":
        key = secrets.token_hex(_KEY_BYTES)
    elif context.loaded.configuration.sanitize.key:
        key = context.host.resolve_secret(context.loaded.configuration.sanitize.key)
        if len(key) < _KEY_BYTES or not key.isalnum():
            raise RefusedError(
                f"sanitize.key has to have at least {_KEY_BYTES} letters and digits, and nothing else",
                next_step="Make one, for example with: openssl rand -hex 32",
            )
    else:
        path = context.loaded.state / _KEY_FILE
        if not path.exists():
            durable.write_file(path, secrets.token_hex(_KEY_BYTES))
        key = path.read_text().strip()
    context.host.redactor.add(key)
    return key


def key_id(key: str) -> str:
    """Return a name of the key that does not reveal it."""
    return hashlib.sha256(f"holdfast key id:{key}".encode()).hexdigest()[:_KEY_ID_DIGITS]


def store(context: ApplicationContext) -> SanitizedBackups:
    """Return the sanitized backups of the vault. Raise RefusedError where there is none that can hold them."""
    if context.vault is None:
        raise RefusedError("no vault is configured", next_step='Add [vaults.local] with `kind = "local"` and a `path`.')
    folder = context.vault.capabilities.folder
    if folder is None:
        raise RefusedError(f"a vault of kind {context.vault.kind} does not hold sanitized backups")
    return SanitizedBackups(folder, context.loaded.owner)
