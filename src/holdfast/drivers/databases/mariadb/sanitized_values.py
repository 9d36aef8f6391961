"""The methods that replace values as expressions of MariaDB and MySQL; `sanitize.values` gives the same in Python.

The key is a variable of the session. Each digest is in an expression once, because the server does not see that two are
the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.drivers.databases.mariadb.client import identifier, literal
from holdfast.sanitize import dictionaries
from holdfast.sanitize.deciding import EMAIL_PREFIX, DatabasePlan, Decision, TablePlan
from holdfast.sanitize.methods import (
    AnyMethod,
    Choice,
    Date,
    Email,
    File,
    Hash,
    Ip,
    Json,
    Keep,
    Mask,
    Null,
    Number,
    Phone,
    Pick,
    Set,
    Sql,
    Text,
    Uuid,
)
from holdfast.sanitize.schema import Column, Kind, Table
from holdfast.sanitize.values import INSIDE, PHONE_DIGEST_DIGITS, PHONE_DIGITS, PICK_DIGITS, mask_parts

KEY = "@holdfast_key"
_BARE: frozenset[Kind] = frozenset({"integer", "number"})
_NET_TEN = 10 << 24
_PLAIN = (Email, Hash, Ip, Phone, Pick, Text, Uuid)
"""Their values have no quotes, backslashes or line breaks."""
_FILLER = dictionaries.FILLER * 14


def selection(plan: DatabasePlan, table: TablePlan, *, limit: int | None = None) -> str:
    """Return the SELECT that makes the rows of a table, each as one text with the values of an INSERT."""
    texts = [
        _bare(value(plan, table, one))
        if isinstance(one.method, _PLAIN) and not table.exempt
        else _text(one.column, value(plan, table, one))
        for one in table.columns
    ]
    return _from(table, f"CONCAT('(', {', '.join(_joined(texts))}, ')')", limit)


def preview(plan: DatabasePlan, table: TablePlan, limit: int) -> str:
    """Return the SELECT that makes some rows of a table, each as an array of JSON."""
    shown = [_shown(one.column, value(plan, table, one)) for one in table.columns]
    return _from(table, f"JSON_ARRAY({', '.join(shown)})", limit)


def _shown(column: Column, found: str) -> str:
    if column.type.startswith("bit"):
        return f"BIN({found})"
    if column.kind in ("binary", "other"):
        return f"CONCAT(LENGTH({found}), ' bytes')"
    return f"CONVERT({found} USING utf8mb4)"


def _from(table: TablePlan, columns: str, limit: int | None) -> str:
    name = identifier(table.table.own_name)
    found = f"SELECT {columns} FROM {name}"
    if table.selected.condition:
        found += f" WHERE {table.selected.condition}"
    return found if limit is None else f"{found} LIMIT {limit}"


def _joined(texts: Sequence[str]) -> list[str]:
    found: list[str] = []
    for text in texts:
        found += ["','", text] if found else [text]
    return found


def _bare(found: str) -> str:
    return f"IFNULL(CONCAT('''', {found}, ''''), 'NULL')"


def _text(column: Column, found: str) -> str:
    """Return the text of a value as an INSERT has it, without a line break in it."""
    if column.kind in _BARE and not column.array:
        return f"IFNULL({found}, 'NULL')"
    if column.type.startswith("bit"):
        return f"IFNULL(CONCAT('b''', BIN({found}), ''''), 'NULL')"
    if column.kind in ("binary", "other"):
        # What is too long for the server is NULL too, and must not pass for a value that is.
        return f"IFNULL(CONCAT('x''', HEX({found}), ''''), IF({found} IS NULL, 'NULL', NULL))"
    quoted = f"QUOTE(CONVERT({found} USING utf8mb4))"
    if column.kind not in ("text", "json", "enum"):
        return quoted
    # Under a binary collation, a replacement takes a third of the time.
    quoted += " COLLATE utf8mb4_bin"
    return f"REPLACE(REPLACE({quoted}, CHAR(10), '\\\\n'), CHAR(13), '\\\\r')"


def value(plan: DatabasePlan, table: TablePlan, one: Decision) -> str:
    """Return the expression of one column."""
    name = identifier(one.column.name)
    if isinstance(one.method, (Hash, Email, Uuid)) and one.column.kind == "text":
        text = _referred(plan, table.table, one.column.name, identifier(table.table.own_name), frozenset())
        found = of_text(plan, one.column, one.method, f"CONVERT({text or name} USING utf8mb4)")
    else:
        found = _value(plan, one.column, one.method, name)
    return table.guarded(one.column.name, name, found)


def _referred(plan: DatabasePlan, table: Table, column: str, here: str, seen: frozenset[tuple[str, str]]) -> str:
    """Return the text to which a foreign key refers, written as its own row has it; empty for a column without one.

    To most collations `Ann` is `ann` and `ann ` too, and a row may refer to another one so. Digests see the difference.
    """
    seen |= {(table.name, column)}
    own = f"{here}.{identifier(column)}"
    for reference in table.references:
        parent = plan.schema.table(reference.parent)
        pairs = dict(zip(reference.columns, reference.parent_columns, strict=True))
        if parent is None or column not in pairs or (parent.name, pairs[column]) in seen:
            continue
        there = identifier(f"holdfast_{len(seen)}")
        above = _referred(plan, parent, pairs[column], there, seen) or f"{there}.{identifier(pairs[column])}"
        joined = " AND ".join(f"{there}.{identifier(two)} = {here}.{identifier(one)}" for one, two in pairs.items())
        return f"IFNULL((SELECT {above} FROM {identifier(parent.own_name)} AS {there} WHERE {joined} LIMIT 1), {own})"
    return ""


def _value(plan: DatabasePlan, column: Column, method: AnyMethod, name: str) -> str:
    if isinstance(method, Keep):
        return name
    if isinstance(method, Null):
        return "NULL"
    if isinstance(method, Set):
        return _constant(method.value)
    if isinstance(method, Sql):
        return f"({method.expression})"
    if isinstance(method, File):
        return f"IF({name} IS NULL, NULL, x'{dictionaries.FILES[method.content].hex()}')"
    if isinstance(method, Date):
        return _date(column, method, name)
    if isinstance(method, Number):
        return _number(column, method, name)
    if isinstance(method, Json):
        return _json(plan, column, method, name)
    return of_text(plan, column, method, name if isinstance(method, Text) else f"CONVERT({name} USING utf8mb4)")


def _constant(constant: str | float) -> str:
    if isinstance(constant, str):
        return literal(constant)
    return f"{constant:d}" if isinstance(constant, bool) else f"{constant}"


def digest(domain: str, text: str) -> str:
    """Return the keyed digest of a text in hexadecimal."""
    return f"SHA2(CONCAT({KEY}, {literal(f':{domain}:')}, {text}), 256)"


def _picked(domain: str, text: str, number: int) -> str:
    return f"(CAST(CONV(LEFT({digest(domain, text)}, {PICK_DIGITS}), 16, 10) AS UNSIGNED) % {number})"


def of_text(plan: DatabasePlan, column: Column, method: AnyMethod, text: str) -> str:
    """Return the expression that replaces a text."""
    if isinstance(method, Keep):
        return text
    if isinstance(method, Null):
        return "NULL"
    if isinstance(method, Set):
        return literal(str(method.value))
    if isinstance(method, Text):
        # Repeating is slow, and so is a character set whose characters have several bytes.
        filler, length = f"_latin1{literal(_FILLER)}", f"CHAR_LENGTH({text})"
        if column.length is not None and column.length <= len(_FILLER):
            return f"LEFT({filler}, {length})"
        more = f"LEFT(REPEAT({filler}, {length} DIV {len(_FILLER)} + 1), {length})"
        return f"IF({length} <= {len(_FILLER)}, LEFT({filler}, {length}), {more})"
    if isinstance(method, Mask):
        length, shown = f"CHAR_LENGTH({text})", method.left + method.right
        hidden = f"REPEAT('*', {length} - {shown})"
        ends = f"CONCAT(LEFT({text}, {method.left}), {hidden}, RIGHT({text}, {method.right}))"
        return f"IF({length} > {shown}, {ends}, REPEAT('*', {length}))"
    if isinstance(method, Hash):
        return f"LEFT({digest(method.domain, text)}, {plan.width(column, method)})"
    if isinstance(method, Email):
        found = f"LEFT({digest(method.domain, text)}, {plan.width(column, method)})"
        return f"CONCAT({literal(EMAIL_PREFIX)}, {found}, {literal(f'@{plan.email_domain}')})"
    if isinstance(method, Uuid):
        found = f"LEFT({digest(method.domain, text)}, 32)"
        for place, width, sign in (
            (13, 1, "4"),
            (17, 1, "8"),
            (21, 0, "-"),
            (17, 0, "-"),
            (13, 0, "-"),
            (9, 0, "-"),
        ):
            found = f"INSERT({found}, {place}, {width}, '{sign}')"
        return found
    if isinstance(method, Ip):
        number = f"CAST(CONV(LEFT({digest(method.domain, text)}, 6), 16, 10) AS UNSIGNED)"
        return f"INET_NTOA({_NET_TEN} + {number})"
    if isinstance(method, Phone):
        return _phone(method.mask or plan.phone_mask, digest(method.domain, text))
    if isinstance(method, Pick):
        return _word(dictionaries.WORDS[method.dictionary], method.domain, text, column.length)
    if isinstance(method, Choice):
        return _word(method.values, method.domain, text, column.length)
    raise TypeError(method.name)


def _word(words: Sequence[str], domain: str, text: str, room: int | None) -> str:
    known = ", ".join(literal(word[:room]) for word in words)
    return f"ELT(1 + {_picked(domain, text, len(words))}, {known})"


def _phone(mask: str, found: str) -> str:
    count = mask.count("#")
    number = f"CAST(CONV(LEFT({found}, {PHONE_DIGEST_DIGITS}), 16, 10) AS UNSIGNED)"
    made = f"LPAD({number} % {10 ** min(count, PHONE_DIGITS)}, {count}, '0')"
    parts = mask_parts(mask)
    if sum(isinstance(part, int) for part in parts) == 1:
        return f"CONCAT({', '.join(made if isinstance(part, int) else literal(part) for part in parts)})"
    position = 1
    for part in parts[:-1]:
        if isinstance(part, str):
            made = f"INSERT({made}, {position}, 0, {literal(part)})"
        position += part if isinstance(part, int) else len(part)
    last = parts[-1]
    return f"CONCAT({made}, {literal(last)})" if isinstance(last, str) else made


def _date(column: Column, method: Date, name: str) -> str:
    if method.to == "now":
        return f"IF({name} IS NULL, NULL, CURRENT_DATE)"
    midnight = "" if column.kind == "date" else " 00:00:00"
    if method.to == "shift":
        picked = _picked(method.domain, f"CAST({name} AS CHAR)", 2 * method.days + 1)
        found = f"DATE_ADD({name}, INTERVAL (CAST({picked} AS SIGNED) - {method.days}) DAY)"
    else:
        found = f"DATE_FORMAT({name}, '%Y-{'01' if method.to == 'year' else '%m'}-01{midnight}')"
    none = f"'0000-00-00{midnight}'"
    if not column.nullable:  # a day after the last one of all is NULL
        found = f"IFNULL({found}, {none})"
    # TO_DAYS has no number for a date without month or day, which is no date.
    return f"CASE WHEN TO_DAYS({name}) IS NOT NULL THEN {found} WHEN {name} IS NOT NULL THEN {none} END"


def _number(column: Column, method: Number, name: str) -> str:
    if method.bucket:
        return f"FLOOR({name} / {method.bucket}) * {method.bucket}"
    share = f"(CAST({_picked(method.domain, f'CAST({name} AS CHAR)', 2001)} AS SIGNED) - 1000)"
    found = f"{name} * (1 + {share} * {method.noise} / 100000.0)"
    return f"ROUND({found})" if column.kind == "integer" else found


def _json(plan: DatabasePlan, column: Column, method: Json, name: str) -> str:
    if method.other == "keep":
        pairs = [f"{_path(path)}, {_inside(plan, one, name, path)}" for path, one in method.paths.items()]
        if not pairs:
            return name
        found = f"JSON_REPLACE({name}, {', '.join(pairs)})"
        return found if column.type == "json" else f"IF({_repeats(method, name)}, '{{}}', {found})"
    return f"IF({name} IS NULL, NULL, JSON_MERGE_PATCH('{{}}', {_object(plan, method, name, ())}))"


def _repeats(method: Json, name: str) -> str:
    """Return the condition that an object has a name of the paths twice, of which only one value would be replaced.

    MariaDB keeps JSON as text, and JSON_REMOVE removes the first of them, however the name is written. A repeated name
    is found by removing it once more, for each depth of the paths by itself.
    """
    split = [path.split(".") for path in method.paths]
    found = []
    for depth in range(1, max(map(len, split)) + 1):
        here = dict.fromkeys(_path(".".join(parts[:depth])) for parts in split if len(parts) >= depth)
        once = f"JSON_REMOVE({name}, {', '.join(here)})"
        found.append(f"LENGTH(JSON_REMOVE({once}, {', '.join(here)})) <> LENGTH({once})")
    return " OR ".join(found)


def _object(plan: DatabasePlan, method: Json, name: str, above: tuple[str, ...]) -> str:
    """Return the object of the paths that begin with those above."""
    pairs = []
    for key in method.names(above):
        path = ".".join((*above, key))
        if path in method.paths:
            found = _inside(plan, method.paths[path], name, path)
        else:
            inner = _object(plan, method, name, (*above, key))
            found = f"IF(JSON_TYPE(JSON_EXTRACT({name}, {_path(path)})) = 'OBJECT', {inner}, NULL)"
        pairs.append(f"{literal(key)}, {found}")
    return f"JSON_OBJECT({', '.join(pairs)})"


def _inside(plan: DatabasePlan, method: AnyMethod, name: str, path: str) -> str:
    found = f"JSON_EXTRACT({name}, {_path(path)})"
    # Unquoted, a null of JSON would be a word.
    return of_text(plan, INSIDE, method, f"IF(JSON_TYPE({found}) = 'NULL', NULL, JSON_UNQUOTE({found}))")


def _path(path: str) -> str:
    quoted = ".".join('"' + part.replace('"', '\\"') + '"' for part in path.split("."))
    return literal(f"$.{quoted}")
