"""The search path with which a dump of PostgreSQL is loaded.

Facts from pg_dump's source and measured on 15: every dump empties the search path, because it names everything with its
schema. The bodies of functions are not changed by pg_dump, so an index over a function that calls another one without
its schema is not loaded. pg_restore runs the statement that empties the path as the dump has it, near its beginning.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import IO

from holdfast.drivers.databases.postgresql.client import Session

_EMPTIED = b"SELECT pg_catalog.set_config('search_path', '', false);"
_OWN = b"RESET search_path;".ljust(len(_EMPTIED))
"""The replacement has the same length as the original, because archives store offsets."""
_HEADING_BYTES = 1 << 16
_NAME = rb"""(?:[\w$\x80-\xff]+|"(?:[^"]|"")+")"""
_REFERENCE = re.compile(_NAME + rb"\." + _NAME + rb" ?\(|OPERATOR\([^)]*\)")


def search_path(session: Session) -> str:
    """Return the schemas in which the session's role finds names in its database.

    The server's own schema is searched first where the path does not name it. A dump relies on that.
    """
    return (
        session.value(
            "SELECT string_agg(quote_ident(name), ', ' ORDER BY place)"
            " FROM unnest(current_schemas(false)) WITH ORDINALITY found (name, place) WHERE name !~ '^pg_'"
        )
        or ""
    )


def with_search_path(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a dump that leaves the session its search path instead of emptying it. Its length does not change."""
    heading = b""
    remaining = iter(chunks)
    for chunk in remaining:
        heading += chunk
        if len(heading) >= _HEADING_BYTES:
            break
    yield heading.replace(_EMPTIED, _OWN, 1)
    yield from remaining


def references(sql: IO[bytes]) -> Counter[bytes]:
    """Return how often definitions use each function and operator that is not the server's own.

    With a search path, a name of the server's own may resolve to one of the application's that fits better.
    """
    found: Counter[bytes] = Counter()
    for line in sql:
        found.update(_REFERENCE.findall(line))
    return found
