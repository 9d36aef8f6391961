"""The schema of a PostgreSQL database, as rules see it, and counts of what its texts look like."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from holdfast.drivers.databases.postgresql import sanitized_values as values
from holdfast.drivers.databases.postgresql.catalogue import OWN_TABLES
from holdfast.drivers.databases.postgresql.client import Session, identifier, literal, table_name
from holdfast.sanitize.detector import CONTENT_PATTERNS, Content
from holdfast.sanitize.schema import Check, Column, Kind, Reference, Schema, Table

_SAMPLE = 5000
_KINDS: Mapping[str, Kind] = {
    "text": "text",
    "character varying": "text",
    "character": "text",
    "citext": "text",
    "name": "text",
    "smallint": "integer",
    "integer": "integer",
    "bigint": "integer",
    "numeric": "number",
    "real": "number",
    "double precision": "number",
    "money": "number",
    "boolean": "boolean",
    "date": "date",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamp",
    "time without time zone": "time",
    "time with time zone": "time",
    "interval": "time",
    "uuid": "uuid",
    "inet": "inet",
    "cidr": "inet",
    "json": "json",
    "jsonb": "json",
    "bytea": "binary",
    "tsvector": "search",
}
# The base of a domain, or the element of an array, says what a column holds.
_COLUMNS = """
WITH RECURSIVE base(oid, type, typmod) AS (
  SELECT oid, oid, -1 FROM pg_type WHERE typtype <> 'd'
  UNION ALL
  SELECT d.oid, b.type, CASE WHEN d.typtypmod >= 0 THEN d.typtypmod ELSE b.typmod END
  FROM pg_type d JOIN base b ON b.oid = d.typbasetype WHERE d.typtype = 'd')
SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
  format_type(coalesce(nullif(e.typelem, 0), b.type), NULL), e.typelem <> 0,
  CASE WHEN e.typname IN ('varchar', 'bpchar', '_varchar', '_bpchar')
    THEN nullif(greatest(a.atttypmod, b.typmod), -1) - 4 END,
  NOT a.attnotnull AND NOT t.typnotnull,
  EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indnkeyatts = 1
    AND (i.indkey[0] = a.attnum OR i.indexprs IS NOT NULL AND EXISTS (SELECT 1 FROM pg_depend d
      WHERE d.objid = i.indexrelid AND d.refobjid = c.oid AND d.refobjsubid = a.attnum))),
  EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indnkeyatts > 1
    AND a.attnum = ANY (i.indkey)),
  a.attgenerated <> '',
  CASE WHEN e.typtype = 'e' THEN
    (SELECT json_agg(enumlabel ORDER BY enumsortorder)::text FROM pg_enum WHERE enumtypid = e.oid) END
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_type t ON t.oid = a.atttypid JOIN base b ON b.oid = t.oid JOIN pg_type e ON e.oid = b.type
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p') AND NOT c.relispartition
ORDER BY 1, 2, a.attnum"""
_REFERENCES = """
SELECT n.nspname, c.relname, m.nspname, p.relname,
  (SELECT json_agg(a.attname ORDER BY k.place)::text FROM unnest(f.conkey) WITH ORDINALITY AS k(number, place)
    JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.number),
  (SELECT json_agg(a.attname ORDER BY k.place)::text FROM unnest(f.confkey) WITH ORDINALITY AS k(number, place)
    JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.number)
FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class p ON p.oid = f.confrelid JOIN pg_namespace m ON m.oid = p.relnamespace
WHERE f.contype = 'f' AND NOT c.relispartition AND f.conparentid = 0 ORDER BY 1, 2, f.conname"""
_CHECKS = """
SELECT n.nspname, c.relname, k.conname, pg_get_expr(k.conbin, k.conrelid)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'c' AND NOT c.relispartition ORDER BY 1, 2, 3"""


def read_schema(session: Session) -> Schema:
    """Return the tables of the session's database."""
    columns: dict[str, list[Column]] = {}
    for schema, table, name, type_, base, array, length, nullable, unique, in_key, generated, labels in session.rows(
        _COLUMNS
    ):
        kind: Kind = "enum" if labels is not None else _KINDS.get(str(base), "other")
        columns.setdefault(f"{schema}.{table}", []).append(
            Column(
                name=str(name),
                type=str(type_),
                kind=kind,
                array=array == "t",
                length=int(length) if length is not None else None,
                nullable=nullable == "t",
                unique=unique == "t",
                in_key=in_key == "t",
                generated=generated == "t",
                labels=tuple(json.loads(labels)) if labels is not None else (),
            )
        )
    references: dict[str, list[Reference]] = {}
    for schema, table, parents, parent, here, there in session.rows(_REFERENCES):
        found = Reference(
            tuple(json.loads(str(here))), table_name(str(parents), str(parent)), tuple(json.loads(str(there)))
        )
        references.setdefault(f"{schema}.{table}", []).append(found)
    checks: dict[str, list[Check]] = {}
    for schema, table, name, condition in session.rows(_CHECKS):
        checks.setdefault(f"{schema}.{table}", []).append(Check(str(name), str(condition)))
    tables = []
    for schema, table, rows, size, partitioned in session.rows(OWN_TABLES):
        place = f"{schema}.{table}"
        tables.append(
            Table(
                name=table_name(str(schema), str(table)),
                schema=str(schema),
                own_name=str(table),
                columns=tuple(columns.get(place, ())),
                references=tuple(references.get(place, ())),
                checks=tuple(checks.get(place, ())),
                rows=max(0, int(rows or 0)),
                size_bytes=int(size or 0),
                virtual="partitioned" if partitioned == "t" else "",
            )
        )
    return Schema("postgresql", tuple(tables))


def read_contents(session: Session, table: Table, columns: Sequence[Column]) -> dict[str, Content]:
    """Return counts of a bounded sample of some columns; only the counts leave the server."""
    counts = []
    for column in columns:
        counts.append(f"count({identifier(column.name)})")
        text = values.matchable(column)
        counts += [f"count(*) FILTER (WHERE {text} ~ {literal(one)})" for one in CONTENT_PATTERNS.values()]
    names = ", ".join(identifier(column.name) for column in columns)
    found = session.rows(
        f"SELECT {', '.join(counts)} FROM (SELECT {names} FROM {values.place(table)} LIMIT {_SAMPLE}) AS sample"
    )[0]
    step = 1 + len(CONTENT_PATTERNS)
    return {
        f"{table.name}.{column.name}": Content(
            int(found[number * step] or 0),
            {what: int(found[number * step + 1 + place] or 0) for place, what in enumerate(CONTENT_PATTERNS)},
        )
        for number, column in enumerate(columns)
    }
