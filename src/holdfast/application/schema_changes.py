"""What the SQL of migrations changes that code from before it does not tolerate.

Proven as harmless is only what adds: tables, columns that may be empty or have a default, indexes, rows. Whatever else
is found is reported by name, and what is not understood is reported too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_ENTITY_FIELDS = "oro_entity_config_field"  # OroPlatform keeps the fields of its entities as rows of this table
_NOT_SQL = "CANNOT BE WRITTEN AS SQL"  # Django's own words where a migration runs code
_NAME = r'((?:[`"\[]?[\w$]+[`"\]]?\.)*[`"\[]?[\w$]+[`"\]]?)'
_IF = r"(?:IF (?:NOT )?EXISTS )?"
_VERBS = (
    "ALTER|BEGIN|CALL|COMMENT|COMMIT|CREATE|DELETE|DO|DROP|EXEC|GRANT|INSERT|LOCK|MERGE|PRAGMA|REINDEX|RELEASE|RENAME|"
    "REPLACE|REVOKE|SAVEPOINT|SELECT|SET|START|TRUNCATE|UPDATE|WITH"
)
_BEGINS = re.compile(rf"^(?:->\s*)?((?:{_VERBS})\b.*)$", re.IGNORECASE)
_HARMLESS = re.compile(
    r"(BEGIN|COMMIT|START TRANSACTION|SAVEPOINT|RELEASE|SET|COMMENT ON|GRANT|LOCK|INSERT INTO|REINDEX|PRAGMA|"
    r"CREATE (?:SEQUENCE|TYPE|EXTENSION|SCHEMA|VIEW|INDEX|FULLTEXT INDEX|SPATIAL INDEX))\b",
    re.IGNORECASE,
)
# A function without a table may do anything, such as PostGIS's DropGeometryColumn.
_READS = re.compile(r"SELECT (?:.* FROM |(?:pg_catalog\.)?(?:setval|set_config) ?\()", re.IGNORECASE)
_REPLACES = re.compile(rf"(?:INSERT|REPLACE) INTO {_NAME}.* (?:DO UPDATE|ON DUPLICATE KEY UPDATE) ", re.IGNORECASE)
_OF_A_TABLE = (
    (re.compile(rf"DROP TABLE {_IF}{_NAME}", re.IGNORECASE), "drops table {0}"),
    (re.compile(rf"DROP (VIEW|MATERIALIZED VIEW|SEQUENCE|TYPE|FUNCTION|INDEX) {_IF}{_NAME}", re.I), "drops {0} {1}"),
    (re.compile(rf"RENAME TABLE {_NAME}", re.IGNORECASE), "renames table {0}"),
    (re.compile(rf"TRUNCATE (?:TABLE )?{_NAME}", re.IGNORECASE), "deletes rows of {0}"),
    (re.compile(rf"CREATE UNIQUE INDEX (?:CONCURRENTLY )?{_IF}{_NAME} ON {_NAME}", re.I), "makes rows of {1} unique"),
)
_ADDED = re.compile(rf"ADD (?:COLUMN )?{_IF}{_NAME} (.+)", re.IGNORECASE)
_CONSTRAINT = re.compile(r"ADD (CONSTRAINT|FOREIGN|UNIQUE|PRIMARY|CHECK|EXCLUDE)\b", re.IGNORECASE)
_FOREIGN = re.compile(r"ADD (?:CONSTRAINT \S+ )?FOREIGN KEY ?\(([^)]*)\)", re.IGNORECASE)
_ALTERATIONS = (
    (re.compile(r"ADD (?:INDEX|KEY)\b", re.IGNORECASE), ""),
    (re.compile(rf"ALTER (?:COLUMN )?{_NAME} (?:SET DEFAULT|DROP NOT NULL)\b", re.IGNORECASE), ""),
    (re.compile(r"(?:VALIDATE CONSTRAINT|OWNER TO|COMMENT)\b", re.IGNORECASE), ""),
    (re.compile(rf"DROP (?:CONSTRAINT|FOREIGN KEY|INDEX|KEY) {_IF}{_NAME}", re.I), "drops constraint {0} of {table}"),
    (re.compile(rf"DROP (?:COLUMN )?{_IF}{_NAME}", re.IGNORECASE), "drops column {table}.{0}"),
    (re.compile(rf"(?:ALTER|MODIFY|CHANGE) (?:COLUMN )?{_NAME}", re.IGNORECASE), "alters column {table}.{0}"),
    (re.compile(r"RENAME TO\b", re.IGNORECASE), "renames table {table}"),
    (re.compile(rf"RENAME (?:COLUMN )?{_NAME}", re.IGNORECASE), "renames column {table}.{0}"),
)
_SHOWN = 60


def intolerable(printed: str) -> list[str]:
    """Return what the SQL that a command printed drops, alters or may do besides, as `drops column users.title`."""
    found: dict[str, None] = {}
    if _NOT_SQL in printed.upper():
        found["runs code whose effect is not known before"] = None
    statements = list(_statements(printed))
    created = {_plain(match[1]) for text in statements if (match := _created(text))}
    columns: set[str] = set()
    for text in statements:
        for change in _changes(text, created, columns):
            found[change] = None
    return list(found)


def _created(text: str) -> re.Match[str] | None:
    return re.match(rf"CREATE (?:TEMPORARY |TEMP |UNLOGGED )?TABLE {_IF}{_NAME}", text, re.IGNORECASE)


def _plain(name: str) -> str:
    """Return a name without quotes and without its schema."""
    return re.sub(r'[`"\[\]]', "", name).rpartition(".")[2]


def _changes(text: str, created: set[str], columns: set[str]) -> Iterator[str]:
    """Yield what a statement changes; note the columns that it adds."""
    if replaced := _REPLACES.match(text):
        if _plain(replaced[1]) not in created:
            yield f"changes rows of {_plain(replaced[1])}"
        return
    if _created(text) or _HARMLESS.match(text) or _READS.match(text):
        return
    if table := re.match(rf"ALTER TABLE (?:ONLY )?{_IF}(?:ONLY )?{_NAME} (.+)", text, re.IGNORECASE):
        name = _plain(table[1])
        if name not in created:
            for action in _split(table[2], ","):
                yield from _alteration(name, action, columns)
        return
    if rows := re.match(rf"(?:DELETE FROM|UPDATE) {_NAME}", text, re.IGNORECASE):
        yield from _rows(_plain(rows[1]), text, created, columns)
        return
    for pattern, what in _OF_A_TABLE:
        if match := pattern.match(text):
            names = [_plain(group) for group in match.groups()]
            if names[-1] not in created:
                yield what.format(
                    *(name.lower() if number < len(names) - 1 else name for number, name in enumerate(names))
                )
            return
    yield f"does what is not understood: {_shortened(text)}"


def _alteration(table: str, action: str, columns: set[str]) -> Iterator[str]:
    if foreign := _FOREIGN.match(action):
        names = [f"{table}.{_plain(name.strip())}" for name in foreign[1].split(",")]
        if not all(name in columns for name in names):
            yield f"constrains {', '.join(names)}"
        return
    if _CONSTRAINT.match(action):
        yield f"constrains rows of {table}"
        return
    for pattern, what in _ALTERATIONS:
        if match := pattern.match(action):
            if what:
                yield what.format(*map(_plain, match.groups()), table=table)
            return
    if added := _ADDED.match(action):
        column, definition = _plain(added[1]), added[2].upper()
        if re.search(r"\b(UNIQUE|PRIMARY|REFERENCES|CHECK)\b", definition):
            yield f"constrains {table}.{column}"
        elif "NOT NULL" in definition and not re.search(r"\b(DEFAULT|GENERATED|SERIAL|AUTO_INCREMENT)\b", definition):
            yield f"adds column {table}.{column}, which needs a value"
        columns.add(f"{table}.{column}")
        return
    yield f"does what is not understood: ALTER TABLE {table} {_shortened(action)}"


def _rows(table: str, text: str, created: set[str], columns: set[str]) -> Iterator[str]:
    """Yield what a statement does to rows that were there; what fills a new column is harmless."""
    if table in created:
        return
    deletes = text[:6].upper() == "DELETE"
    assigned = re.match(r"UPDATE .*? SET (.+?)(?: WHERE .*| FROM .*)?$", text, re.IGNORECASE)
    names = [_plain(part.partition("=")[0].strip()) for part in _split(assigned[1], ",")] if assigned else []
    if names and all(f"{table}.{name}" in columns for name in names):
        return
    if table == _ENTITY_FIELDS:
        field = re.search(r"field_name\W+=\W+(\w+)|field_name = '([^']*)'", text, re.IGNORECASE)
        name = next((group for group in field.groups() if group), "") if field else ""
        yield f"{'drops' if deletes else 'alters'} entity field{f' {name}' if name else 's'}"
    else:
        yield f"{'deletes' if deletes else 'changes'} rows of {table}"


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _statements(printed: str) -> Iterator[str]:
    """Yield the statements among what a command prints, each in one line; other lines are its own words."""
    begun = ""
    for line in printed.splitlines():
        text = re.sub(r"\x1b\[[0-9;]*m", "", line).strip()
        begins = _BEGINS.match(text)
        ends = not text or text.startswith((">", "--"))
        if begun and (ends or (begins and not _is_open(begun))):
            yield from _split(begun, ";")
            begun = ""
        if begun and not ends:
            begun += f" {text}"
        elif begins:
            begun = begins[1]
    if begun:
        yield from _split(begun, ";")


def _is_open(text: str) -> bool:
    """Return whether a statement is not complete yet: a bracket or a text in it has no end."""
    bare = re.sub(r"'(?:[^']|'')*'", "", text)
    return bare.count("(") > bare.count(")") or "'" in bare or bare.count("$$") % 2 == 1


def _split(text: str, separator: str) -> list[str]:
    """Return the parts of a text between separators that are in no bracket and in no quotes, without spaces around."""
    parts, depth, quote, start = [], 0, "", 0
    for index, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"`":
            quote = letter
        elif letter in "()":
            depth += 1 if letter == "(" else -1
        elif letter == separator and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return [re.sub(r"\s+", " ", part).strip() for part in parts if part.strip()]
