"""The script of a database's stored objects: routines and triggers, views, and events, each after its heading.

It follows the tables in a dump, and is kept apart when the dump is loaded: in a candidate database no trigger may fire
and no event start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from holdfast.drivers.databases.mariadb import catalogue, rewriting
from holdfast.drivers.databases.mariadb.client import Clients, identifier

_CHANGED = re.compile(rb"^ALTER DATABASE `(?:[^`]|``)+` CHARACTER SET", re.MULTILINE)
HEADING, _VIEWS, _EVENTS, END = (
    b"-- Holdfast: routines and triggers\n",
    b"-- Holdfast: views\n",
    b"-- Holdfast: events\n",
    b"-- Holdfast: end\n",
)
_NO_TABLES = ("--no-data", "--no-create-info", "--skip-opt", "--quick", "--create-options", "--set-charset")


def _is_strict(clients: Clients) -> bool:
    """Return whether sessions of the server are strict unless they say otherwise."""
    with clients.session() as session:
        return "STRICT_" in (session.value("SELECT @@GLOBAL.sql_mode") or "")


def _sequence_defaults(clients: Clients, database: str) -> bytes:
    """Return statements that bind defaults to sequences of the database in which they run.

    So tables may be moved to another database.
    """
    with clients.session() as session:
        found = catalogue.sequence_defaults(session, database)
    if not found:
        return b""
    lines = ["SET system_versioning_alter_history = 'KEEP';"]
    for table, column, default in found:
        unbound = default.replace(f"val({identifier(database)}.", "val(")
        lines.append(f"ALTER TABLE {identifier(table)} ALTER COLUMN {identifier(column)} SET DEFAULT {unbound};")
    return ("\n".join(lines) + "\n").encode()


def programs(
    clients: Clients,
    database: str,
    views: Sequence[str],
    stopped: Callable[[], bool] = lambda: False,
    broken: Sequence[str] = (),
) -> bytes:
    """Return defaults by sequences, routines and triggers, then views, then events, each after its heading.

    MySQL's dump program looks at views in every call, and ends at a broken one.
    """
    found: list[bytes] = []
    no_views = [f"--ignore-table={database}.{view}" for view in (*views, *broken)]

    def part(heading: bytes, *options: str, only: Sequence[str] = (), first: bytes = b"") -> None:
        pieces: list[bytes] = []
        clients.dump(pieces.append, "--skip-lock-tables", *options, names=[database, *only], stopped=stopped)
        text = rewriting.SANDBOX.sub(b"", b"".join(pieces))
        # The dump changes its database's collation, by name, around objects that were created under another one.
        text = rewriting.of_own_tables(text, database)
        found.append(b"\n" + heading + first + _CHANGED.sub(b"ALTER DATABASE CHARACTER SET", text))

    # A MariaDB server that crashes while a trigger is created or dropped can leave its name taken but in no catalogue.
    part(
        HEADING,
        *_NO_TABLES,
        "--routines",
        "--triggers",
        "--add-drop-trigger",
        *no_views,
        first=_sequence_defaults(clients, database),
    )
    if views:
        part(_VIEWS, "--no-data", "--skip-triggers", only=views)
        if _is_strict(clients):
            found[-1] = found[-1].replace(rewriting.MODE, rewriting.STRICT_MODE)
    part(_EVENTS, *_NO_TABLES, "--events", "--skip-triggers", *no_views)
    return b"".join(found) + b"\n" + END


_DEFINER = re.compile(
    rb"^((?:CREATE |/\*!\d{5} )[^\n'\"]*?)DEFINER=`(?:[^`]|``)*`(?:@`(?:[^`]|``)*`)?", re.MULTILINE
)  # a role has no host


def definers(script: bytes) -> set[str]:
    """Return the definers of the objects that a script creates, quoted."""
    found = (match[0].rpartition(b"DEFINER=")[2] for match in _DEFINER.finditer(script))
    return {account.decode(errors="replace") for account in found}


def without_definers(script: bytes) -> bytes:
    """Return the script without definers; its objects belong to the account that runs it."""
    return _DEFINER.sub(rb"\1", script)


_GAP = rb"(?:\s|/\*(?!M?!).*?\*/|/\*M?!\d*|\*/)+"
_NAME = rb"(?:`(?:[^`]|``)+`|[\w$\x80-\xff]+)"
_KIND = rb"\b(?:TRIGGER|PROCEDURE|FUNCTION|EVENT|VIEW)\b"
_BEGIN = rb"^((?:/\*M?!\d* ?)?CREATE\b(?:(?!" + _KIND + rb")[^\n'\"();])*"
_UNLESS = rb"(?:IF" + _GAP + rb"NOT" + _GAP + rb"EXISTS" + _GAP + rb")?"
_QUALIFIER = rb")" + _NAME + rb"\s*\.\s*(?=" + _NAME + rb")"
_HEAD = re.compile(_BEGIN + _KIND + _GAP + _UNLESS + _QUALIFIER, re.MULTILINE | re.IGNORECASE)
_TRIGGER_ON = re.compile(
    _BEGIN
    + rb"TRIGGER"
    + _GAP
    + _UNLESS
    + _NAME
    + _GAP
    + rb"(?:BEFORE|AFTER)"
    + _GAP
    + rb"(?:INSERT|UPDATE|DELETE)"
    + _GAP
    + rb"ON"
    + _GAP
    + _QUALIFIER,
    re.MULTILINE | re.IGNORECASE,
)


def in_no_database(script: bytes) -> bytes:
    """Return the script without database names where objects are created, and in the table of a trigger.

    The dump programs repeat a trigger as it was typed, with `shop.t` in it: a candidate's trigger would be created in
    the live database. A trigger is always in the database of its table, so the name is not needed.
    """
    return _TRIGGER_ON.sub(rb"\1", _HEAD.sub(rb"\1", script))


def without_events(script: bytes) -> bytes:
    return script.partition(b"\n" + _EVENTS)[0]
