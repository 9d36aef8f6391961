"""The content of a PostgreSQL database: its tables, their columns and rows."""

from __future__ import annotations

import time

from holdfast.drivers.databases.postgresql.client import Session, SqlError, identifier, table_name
from holdfast.model import Facts

_FOUND = (
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace{more}"
    " WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname <> 'information_schema'"
    " AND n.nspname !~ '^pg_' ORDER BY "
)
TABLES = f"SELECT n.nspname, c.relname{_FOUND.format(more='')}1, 2"
"""Schema and name of each table; a partitioned one counts as a whole."""
OWN_TABLES = (
    "SELECT n.nspname, c.relname, c.reltuples::bigint, pg_table_size(c.oid), c.relkind = 'p'"
    f"{_FOUND.format(more='').partition(' ORDER BY')[0]}"
    " AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e') ORDER BY 1, 2"
)
"""The tables of the application, without those of extensions: schema, name, rows as estimated, bytes, partitioned."""
# By the pages that the catalogue knows, because asking a table itself would wait for sessions that have locked it.
_BY_SIZE = f"SELECT n.nspname, c.relname{_FOUND.format(more='')}c.relkind = 'p', c.relpages"
_ATTRIBUTES = " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
_COLUMNS = f"SELECT n.nspname, c.relname, a.attname{_FOUND.format(more=_ATTRIBUTES)}1, 2, a.attnum"
_TIMED_OUT, _NO_RIGHT = "57014", "42501"


def counted(session: Session, budget_seconds: float) -> dict[str, Facts]:
    """Return columns and exact rows per table; rows not counted within the budget, or not readable, are None."""
    found: dict[str, Facts] = {}
    for schema, table in session.rows(TABLES):
        found[table_name(str(schema), str(table))] = {"rows": None, "columns": []}
    for schema, table, column in session.rows(_COLUMNS):
        found[table_name(str(schema), str(table))]["columns"].append(column)
    deadline = time.monotonic() + budget_seconds
    for schema, table in list(session.rows(_BY_SIZE)) if budget_seconds > 0 else []:
        name, place = table_name(str(schema), str(table)), f"{identifier(str(schema))}.{identifier(str(table))}"
        left = int((deadline - time.monotonic()) * 1000)
        if left <= 0:
            break
        session.run(f"SET statement_timeout = {left}")
        try:
            found[name]["rows"] = int(session.value(f"SELECT count(*) FROM {place}") or 0)
        except SqlError as error:
            if error.sql_state in (_TIMED_OUT, _NO_RIGHT):
                return found  # the error has ended the session
            raise
    session.run("SET statement_timeout = 0")
    return found
