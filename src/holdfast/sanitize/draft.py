"""A first draft of the rules: a table for each table, a proposal for each column that may hold personal data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from holdfast.sanitize import methods
from holdfast.sanitize.deciding import Decided
from holdfast.sanitize.detector import Finding
from holdfast.sanitize.methods import AnyMethod
from holdfast.sanitize.schema import Column, Schema

_HEADING = """\
# Rules of sanitized backups: what happens to each column that may hold personal data or secrets.
# A first draft: read every line. `holdfast sanitize rules` shows what each column becomes, `sanitize preview TABLE`
# some rows as they would leave, and `sanitize lock` keeps the decisions once you have looked at them.
"""
_NO_ROWS = ("session", "django_session", "log", "audit", "cache", "token", "job", "queue", "oauth")
_EXAMPLES: Mapping[str, AnyMethod] = {
    "email": methods.Email(),
    "hash": methods.Hash(),
    "phone": methods.Phone(),
    "date": methods.Date(),
    "ip": methods.Ip(),
    "text": methods.Text(),
    "number": methods.Number(bucket=10),
    "file": methods.File(),
    "uuid": methods.Uuid(),
    "null": methods.Null(),
    **{name: methods.Pick(name, name) for name in methods.DICTIONARIES},
}
_WORDS: Mapping[str, str] = {"number": "{ number = { bucket = 10 } }"}


def draft(found: Mapping[str, Decided], extends: Sequence[str]) -> str:
    """Return the text of the rules for all databases."""
    text = [_HEADING]
    if extends:
        text.append(f"extends = {json.dumps([f'preset:{name}' for name in extends])}\n")
    text.append('email_domain = "example.test"\n')
    several = len(found) > 1
    for name, decided in found.items():
        listed = {one.partition(":")[0] for one in decided.problems if one.endswith("no rules for this table")}
        for table in decided.plan.schema.tables:
            proposals = decided.proposals.get(table.name, {})
            if table.name not in listed and not proposals:
                continue
            key = json.dumps(f"{name}:{table.name}" if several else table.name)
            text.append(f"\n[tables.{key}]\n")
            if any(word in table.own_name.lower() for word in _NO_ROWS):
                text.append('rows = "none"  # a guess by its name\n')
                continue
            if proposals:
                text.append(f"[tables.{key}.columns]\n")
            text += [_line(table.column(column), finding) for column, finding in proposals.items()]
    return "".join(text)


def _line(column: Column | None, finding: Finding) -> str:
    assert column is not None
    name = column.name if column.name.replace("_", "").isalnum() and column.name.isascii() else json.dumps(column.name)
    return f"{f'{name} = {_rule(column, finding.method)}':34} # {finding.why}\n"


def _rule(column: Column, method: str) -> str:
    """Return a rule that fits the column: the proposal, or else the next weaker one."""
    for candidate in (method, "hash", "uuid", "null"):
        found = _EXAMPLES.get(candidate)
        if found is None or found.misfit(column) or ((column.unique or column.in_key) and not found.keeps_apart):
            continue
        return _WORDS.get(candidate, json.dumps(candidate))
    if column.kind == "json":
        return '{ json = {}, other = "drop" }'
    if column.labels:
        return f"{{ choice = {json.dumps(list(column.labels[:1]))} }}"
    return '{ set = "" }' if column.kind == "text" else '{ keep = "WHY?" }'


def fitting_presets(schemas: Sequence[Schema], known: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the presets of whose tables at least half exist in the databases."""
    names = [table.name for schema in schemas for table in schema.tables]
    return [
        preset for preset, tables in sorted(known.items()) if tables and 2 * _existing(tables, names) >= len(tables)
    ]


def _existing(tables: Sequence[str], names: Sequence[str]) -> int:
    return sum(1 for pattern in tables if any(fnmatchcase(name, pattern) for name in names))
