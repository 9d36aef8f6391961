"""What `holdfast sanitize` shows: the draft of rules, the decisions, the statements, and rows as they would leave."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

import msgspec

from holdfast.application import sanitizing
from holdfast.application.context import ApplicationContext
from holdfast.config.load import sanitizing_presets
from holdfast.config.similar import no_such
from holdfast.drivers.protocols.sanitizing import Query
from holdfast.sanitize import deciding, rules
from holdfast.sanitize import draft as drafts
from holdfast.sanitize.deciding import described


class Decided(msgspec.Struct, frozen=True):
    place: str
    type: str
    becomes: str
    why: str


def draft(context: ApplicationContext) -> str:
    """Return a first draft of the rules, with the presets that fit."""
    known = {name: list(tomllib.loads(text).get("tables", {})) for name, text in sanitizing_presets().items()}
    schemas = [context.sanitizers[name].schema() for name in sanitizing.databases(context)]
    extends = drafts.fitting_presets(schemas, known)
    text = f"extends = {[f'preset:{name}' for name in extends]!r}".replace("'", '"')
    found = rules.parse(text, sanitizing.rules_path(context).name, sanitizing.preset)
    return drafts.draft(sanitizing.decisions(context, found), extends)


def rows(context: ApplicationContext, table: str | None) -> list[Decided]:
    """Return the decisions, of one table or of all. Raise NotFoundError."""
    made = sanitizing.decisions(context, sanitizing.read_rules(context))
    found = []
    for name, decided in made.items():
        prefix = f"{name}: " if len(made) > 1 else ""
        for plan in decided.plan.tables:
            if table is not None and plan.table.name != table:
                continue
            found.append(Decided(f"{prefix}{plan.table.name}", "", plan.selected.described(), ""))
            if plan.empty:
                continue
            found += [
                Decided(f"{prefix}{plan.table.name}.{one.column.name}", one.column.type, described(one.method), one.why)
                for one in plan.columns
            ]
    if table is not None and not found:
        raise no_such("table", table, _tables(made))
    return found


def _tables(made: Mapping[str, deciding.Decided]) -> list[str]:
    return [plan.table.name for decided in made.values() for plan in decided.plan.tables]


def queries(context: ApplicationContext) -> list[tuple[str, Query]]:
    """Return the statements of all databases, each with its database."""
    made = sanitizing.decisions(context, sanitizing.read_rules(context))
    return [(name, query) for name, decided in made.items() for query in context.sanitizers[name].queries(decided.plan)]


def preview(context: ApplicationContext, table: str, count: int) -> tuple[list[str], list[tuple[str | None, ...]]]:
    """Return the columns of a table and some of its rows as they would leave; no column for a table without rows.

    Raise NotFoundError, ConfigurationError where the table has columns that are undecided.
    """
    found = sanitizing.read_rules(context)
    made = sanitizing.decisions(context, found)
    for name, decided in made.items():
        for plan in decided.plan.tables:
            if plan.table.name == table:
                sanitizing.refuse_undecided(decided, table)
                if plan.empty:
                    return [], []
                key = sanitizing.key_of(context, found)
                names = [one.column.name for one in plan.columns]
                return names, context.sanitizers[name].preview(decided.plan, table, count, key)
    raise no_such("table", table, _tables(made))
