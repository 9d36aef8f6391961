"""The schema of a MariaDB or MySQL database, as rules see it, and counts of what its texts look like."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from holdfast.drivers.databases.mariadb import catalogue
from holdfast.drivers.databases.mariadb.client import Session, identifier, literal
from holdfast.sanitize.deciding import EMAIL_PREFIX, DatabasePlan, width_for
from holdfast.sanitize.detector import CONTENT_PATTERNS, Content
from holdfast.sanitize.methods import Email, Hash, Uuid
from holdfast.sanitize.schema import Check, Column, Kind, Reference, Schema, Table

_SAMPLE = 5000
_LOOKED_AT = 2000  # characters of each value: a regular expression has little time in MySQL
_LABEL = re.compile(r"'((?:[^']|'')*)'")
_QUOTED = re.compile(r"`((?:[^`]|``)+)`")
_JSON_VALID = re.compile(r"json_valid\(`((?:[^`]|``)+)`\)", re.IGNORECASE)
_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("char", "varchar", "tinytext", "text", "mediumtext", "longtext"), "text"),
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint", "year"), "integer"),
    **dict.fromkeys(("decimal", "float", "double"), "number"),
    **dict.fromkeys(("enum", "set"), "enum"),
    **dict.fromkeys(("datetime", "timestamp"), "timestamp"),
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), "binary"),
    **dict.fromkeys(("inet4", "inet6"), "inet"),
    "date": "date",
    "time": "time",
    "json": "json",
    "uuid": "uuid",
    "bit": "boolean",
}


def read_schema(session: Session, database: str) -> Schema:
    """Return the tables of a database."""
    here = literal(database)
    keys: dict[tuple[str, str], list[str]] = defaultdict(list)
    for table, index, column in session.rows(
        "SELECT table_name, index_name, column_name FROM information_schema.statistics"
        f" WHERE table_schema = {here} AND non_unique = 0 AND column_name IS NOT NULL"
        " ORDER BY table_name, index_name, seq_in_index"
    ):
        keys[str(table), str(index)].append(str(column))
    for table, index, names in _of_expressions(session, here):
        keys[table, index] += names
    alone = {(table, found[0]) for (table, _), found in keys.items() if len(found) == 1}
    together = {(table, column) for (table, _), found in keys.items() if len(found) > 1 for column in found}
    checks = _checks(session, here)
    is_json = {
        (table, found[1].replace("``", "`"))
        for table, conditions in checks.items()
        for one in conditions
        if (found := _JSON_VALID.search(one.condition))
    }
    columns: dict[str, list[Column]] = defaultdict(list)
    for table, name, type_, data_type, length, nullable, generated in session.rows(
        "SELECT table_name, column_name, column_type, data_type, character_maximum_length, is_nullable,"
        " COALESCE(generation_expression, '') <> '' FROM information_schema.columns"
        f" WHERE table_schema = {here} ORDER BY table_name, ordinal_position"
    ):
        place = (str(table), str(name))
        kind = "json" if place in is_json else _KINDS.get(str(data_type), "other")
        columns[str(table)].append(
            Column(
                name=str(name),
                type=str(type_),
                kind=kind,
                length=int(length) if length is not None and kind in ("text", "binary") else None,
                nullable=nullable == "YES",
                unique=place in alone,
                in_key=place in together,
                generated=generated == "1",
                labels=tuple(one.replace("''", "'") for one in _LABEL.findall(str(type_))) if kind == "enum" else (),
            )
        )
    references = _references(session, here)
    amounts = {
        str(table): (int(rows or 0), int(size or 0))
        for table, rows, size in session.rows(
            f"SELECT table_name, table_rows, data_length FROM information_schema.tables WHERE table_schema = {here}"
        )
    }
    return Schema(
        "mariadb",
        tuple(
            Table(
                name=name,
                schema="",
                own_name=name,
                columns=tuple(columns[name]),
                references=references.get(name, ()),
                checks=tuple(checks.get(name, ())),
                rows=amounts[name][0],
                size_bytes=amounts[name][1],
            )
            for name in sorted(catalogue.base_tables(session, database))
        ),
    )


def _of_expressions(session: Session, here: str) -> list[tuple[str, str, list[str]]]:
    """Return table, index and columns of expressions whose values are unique, which MySQL has in its indexes."""
    if "MariaDB" in (session.value("SELECT VERSION()") or ""):
        return []
    rows = session.rows(
        "SELECT table_name, index_name, expression FROM information_schema.statistics"
        f" WHERE table_schema = {here} AND non_unique = 0 AND expression IS NOT NULL"
    )
    return [
        (str(table), str(index), [name.replace("``", "`") for name in _QUOTED.findall(str(expression))])
        for table, index, expression in rows
    ]


def unlike_keys(session: Session, database: str, plan: DatabasePlan) -> list[str]:
    """Return the problems of unique keys over the beginning of a column, which has too few digits of a digest."""
    rows = session.rows(
        "SELECT DISTINCT table_name, column_name, sub_part FROM information_schema.statistics"
        f" WHERE table_schema = {literal(database)} AND non_unique = 0 AND sub_part IS NOT NULL ORDER BY 1, 2"
    )
    begins = {(str(table), str(column)): int(width or 0) for table, column, width in rows}
    found = []
    for table in plan.tables:
        for one in table.changed if not table.empty else ():
            width = begins.get((table.table.name, one.column.name))
            if width is None or not isinstance(one.method, (Email, Hash, Uuid)):
                continue
            # A UUID has digits that are the same in all, and hyphens.
            digits = width - (len(EMAIL_PREFIX) if isinstance(one.method, Email) else 6)
            if isinstance(one.method, Hash):
                digits = min(width, plan.width(one.column, one.method))
            if digits < (needed := width_for(table.table.rows)):
                found.append(
                    f"{table.table.name}.{one.column.name}: the first {width} characters are unique by an index; with"
                    f" {one.method.name} they have {max(digits, 0)} digits, and {needed} are needed"
                )
    return found


def _checks(session: Session, here: str) -> dict[str, list[Check]]:
    """Return the checks of each table, where the server says to which one a check belongs."""
    found: dict[str, list[Check]] = defaultdict(list)
    for table, name, condition in session.rows(
        "SELECT t.table_name, c.constraint_name, c.check_clause FROM information_schema.check_constraints c"
        " JOIN information_schema.table_constraints t ON t.constraint_schema = c.constraint_schema"
        f" AND t.constraint_name = c.constraint_name WHERE c.constraint_schema = {here} AND"
        " t.constraint_type = 'CHECK' ORDER BY 1, 2"
    ):
        found[str(table)].append(Check(str(name), str(condition)))
    return found


def _references(session: Session, here: str) -> dict[str, tuple[Reference, ...]]:
    parts: dict[tuple[str, str], list[tuple[str, str, str]]] = defaultdict(list)
    for table, name, column, parent, there in session.rows(
        "SELECT table_name, constraint_name, column_name, referenced_table_name, referenced_column_name"
        f" FROM information_schema.key_column_usage WHERE table_schema = {here} AND referenced_table_name IS NOT NULL"
        f" AND referenced_table_schema = {here} ORDER BY 1, 2, ordinal_position"
    ):
        parts[str(table), str(name)].append((str(column), str(parent), str(there)))
    found: dict[str, tuple[Reference, ...]] = {}
    for (table, _), columns in parts.items():
        made = Reference(tuple(one[0] for one in columns), columns[0][1], tuple(one[2] for one in columns))
        found[table] = (*found.get(table, ()), made)
    return found


def read_contents(session: Session, table: Table, columns: Sequence[Column]) -> dict[str, Content]:
    """Return counts of a bounded sample of some columns; only the counts leave the server."""
    counts = []
    for column in columns:
        name = f"CONVERT(LEFT({identifier(column.name)}, {_LOOKED_AT}) USING utf8mb4) COLLATE utf8mb4_bin"
        counts.append(f"COUNT({identifier(column.name)})")
        counts += [f"SUM({name} REGEXP {literal(pattern)})" for pattern in CONTENT_PATTERNS.values()]
    names = ", ".join(identifier(column.name) for column in columns)
    sample = f"(SELECT {names} FROM {identifier(table.own_name)} LIMIT {_SAMPLE}) AS sample"
    row = session.rows(f"SELECT {', '.join(counts)} FROM {sample}")[0]
    step = 1 + len(CONTENT_PATTERNS)
    return {
        f"{table.name}.{column.name}": Content(
            int(row[number * step] or 0),
            {what: int(row[number * step + 1 + place] or 0) for place, what in enumerate(CONTENT_PATTERNS)},
        )
        for number, column in enumerate(columns)
    }
