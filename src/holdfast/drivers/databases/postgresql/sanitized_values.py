"""The methods that replace values as expressions of PostgreSQL; `sanitize.values` gives the same values in Python.

The key is a setting of the session, so that it is in no statement.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from holdfast.drivers.databases.postgresql.client import identifier, literal
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
from holdfast.sanitize.schema import Column, Table
from holdfast.sanitize.values import INSIDE, PHONE_DIGEST_DIGITS, PHONE_DIGITS, PICK_DIGITS, mask_parts

KEY = "holdfast.key"
_DIGEST_DIGITS = 64
_DIGESTS = (Hash, Email, Uuid, Ip, Phone, Pick, Choice)
_NAME_BYTES = 63
_FILLER_REPEATS = 8


def place(table: Table) -> str:
    return f"{identifier(table.schema)}.{identifier(table.own_name)}"


def matchable(column: Column) -> str:
    """Return a text for regular expressions, which a collation of the column's own may not allow."""
    return f'{identifier(column.name)}::text COLLATE "default"'


def selection(
    plan: DatabasePlan,
    table: TablePlan,
    *,
    pages: str = "",
    limit: int | None = None,
    repeated: Collection[tuple[str, str, str]] = (),
) -> str:
    """Return the SELECT that makes the rows of a table, or those in a range of its pages.

    The new values of `repeated` columns (schema, table and column) are made once for each distinct value, and joined:
    a digest takes five times as long as a look into a small hash table.
    """
    only = "" if table.table.virtual == "partitioned" else "ONLY "
    source = f"{only}{place(table.table)}"
    columns, joins = [], ""
    for number, one in enumerate(table.columns):
        name = identifier(one.column.name)
        made = ""
        if (table.table.schema, table.table.own_name, one.column.name) in repeated and _is_digest(one):
            there = f"{source} AS {identifier(table.table.own_name)}" + (f" WHERE {pages}" if pages else "")
            made, join = _joined(plan, one, there, f"{identifier(table.table.own_name)}.{name}", f"holdfast_{number}")
            joins += join
        columns.append(f"{value(plan, table, one, made)} AS {name}")
    found = f"SELECT {', '.join(columns)} FROM {source} AS {identifier(table.table.own_name)}{joins}"
    conditions = [f"({one})" for one in (pages, table.selected.condition) if one]
    if conditions:
        found += f" WHERE {' AND '.join(conditions)}"
    return found if limit is None else f"{found} LIMIT {limit}"


def _is_digest(one: Decision) -> bool:
    return one.column.kind == "text" and not one.column.array and isinstance(one.method, _DIGESTS)


def _joined(plan: DatabasePlan, one: Decision, rows: str, name: str, alias: str) -> tuple[str, str]:
    """Return the expression of a column whose values repeat, and the join with its distinct values.

    They are compared byte by byte, because the digest of each is another one, whatever the collation holds equal.
    """
    distinct = f'SELECT DISTINCT {name}::text COLLATE "C" AS holdfast_raw FROM {rows} OFFSET 0'
    made = of_text(plan, one.column, one.method, "holdfast_raw")
    values = f"SELECT holdfast_raw, {made} AS holdfast_made FROM ({distinct}) AS holdfast_values"
    join = f' LEFT JOIN ({values}) AS {alias} ON {alias}.holdfast_raw = {name}::text COLLATE "C"'
    return f"{alias}.holdfast_made", join


def value(plan: DatabasePlan, table: TablePlan, one: Decision, made: str = "") -> str:
    """Return the expression of one column; `made` is that of its new value where it is known already."""
    name = identifier(one.column.name)
    found = name
    if not isinstance(one.method, Keep):
        found = f"({made or _value(plan, one.column, one.method, name)})::{one.column.type}"
    return table.guarded(one.column.name, name, found)


def _value(plan: DatabasePlan, column: Column, method: AnyMethod, name: str) -> str:
    if isinstance(method, Null):
        return "NULL"
    if isinstance(method, Set):
        return literal(method.value) if isinstance(method.value, str) else str(method.value)
    if isinstance(method, Sql):
        return method.expression
    if column.array:
        each = of_text(plan, column, method, "holdfast_each.one::text")
        elements = f"SELECT {each} FROM unnest({name}) WITH ORDINALITY AS holdfast_each(one, place) ORDER BY place"
        return f"CASE WHEN {name} IS NOT NULL THEN ARRAY({elements}) END"
    if isinstance(method, File):
        return f"CASE WHEN {name} IS NOT NULL THEN '\\x{dictionaries.FILES[method.content].hex()}'::bytea END"
    if isinstance(method, Date):
        return _date(column, method, name)
    if isinstance(method, Number):
        return _number(method, name)
    if isinstance(method, Json):
        return _json(plan, method, f"{name}::jsonb")
    return of_text(plan, column, method, f"host({name})" if column.kind == "inet" else f"{name}::text")


def digest(domain: str, text: str, digits: int = _DIGEST_DIGITS) -> str:
    """Return the first digits of the keyed digest of a text in hexadecimal.

    The subquery is evaluated once in a statement, and only the bytes that are shown become digits: measured on 15, that
    takes less than half of the time. `textsend` gives the bytes in the encoding of the client, which is UTF-8.
    """
    prefix = f"(SELECT current_setting({literal(KEY)}) || {literal(f':{domain}:')})"
    found = f"sha256(textsend({prefix} || {text}))"
    if digits == _DIGEST_DIGITS:
        return f"encode({found}, 'hex')"
    shown = f"encode(substr({found}, 1, {(digits + 1) // 2}), 'hex')"
    return f"left({shown}, {digits})" if digits % 2 else shown


def _number_of(domain: str, text: str, digits: int) -> str:
    """Return the first digits of the digest as a whole number."""
    return f"('x' || {digest(domain, text, digits)})::bit({digits * 4})::bigint"


def _picked(domain: str, text: str, number: int) -> str:
    return f"{_number_of(domain, text, PICK_DIGITS)} % {number}"


def of_text(plan: DatabasePlan, column: Column, method: AnyMethod, text: str) -> str:
    """Return the expression that replaces a text."""
    if isinstance(method, Null):
        return "NULL"
    if isinstance(method, Keep):
        return text
    if isinstance(method, Set):
        return literal(str(method.value))
    if isinstance(method, Text):
        return _filler(text)
    if isinstance(method, Mask):
        hidden = f"length({text}) - {method.left + method.right}"
        ends = f"left({text}, {method.left}) || repeat('*', {hidden}) || right({text}, {method.right})"
        return f"CASE WHEN {hidden} > 0 THEN {ends} ELSE repeat('*', length({text})) END"
    if isinstance(method, Hash):
        return digest(method.domain, text, plan.width(column, method))
    if isinstance(method, Email):
        found = digest(method.domain, text, plan.width(column, method))
        return f"{literal(EMAIL_PREFIX)} || {found} || {literal(f'@{plan.email_domain}')}"
    if isinstance(method, Uuid):
        parts = "'\\1-\\2-4\\3-8\\4-\\5'"
        pattern = "'^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*$'"
        return f"regexp_replace({digest(method.domain, text)}, {pattern}, {parts})"
    if isinstance(method, Ip):
        bytes_ = f"decode({digest(method.domain, text, 6)}, 'hex')"
        # The digest is computed once, in a row of its own.
        octets = " || '.' || ".join(f"get_byte(holdfast_ip.bytes, {number})" for number in range(3))
        return f"(SELECT '10.' || {octets} FROM (SELECT {bytes_} AS bytes OFFSET 0) AS holdfast_ip)"
    if isinstance(method, Phone):
        return _phone(method.mask or plan.phone_mask, _number_of(method.domain, text, PHONE_DIGEST_DIGITS))
    if isinstance(method, Pick):
        return _word(dictionaries.WORDS[method.dictionary], method.domain, text, column.length)
    if isinstance(method, Choice):
        return _word(method.values, method.domain, text, column.length)
    raise TypeError(method.name)


def _filler(text: str) -> str:
    """Return the filler in the length of a text.

    The filler is ASCII, so most texts take their part of a constant as bytes: measured on 15, that takes two thirds of
    the time of `rpad`, which counts characters.
    """
    ready = (dictionaries.FILLER * _FILLER_REPEATS).encode()
    part = f"encode(substr('\\x{ready.hex()}'::bytea, 1, length({text})), 'escape')"
    longer = f"rpad('', length({text}), {literal(dictionaries.FILLER)})"
    return f"CASE WHEN octet_length({text}) <= {len(ready)} THEN {part} ELSE {longer} END"


def _word(words: Sequence[str], domain: str, text: str, room: int | None) -> str:
    """Return one of the words. Names all take the same room, so in an array of them the server counts to none."""
    cut = [word[:room] for word in words]
    known = f"ARRAY[{', '.join(literal(word) for word in cut)}]"
    if max(len(word.encode()) for word in cut) <= _NAME_BYTES:
        return f"({known}::name[])[1 + {_picked(domain, text, len(words))}]::text"
    return f"({known})[1 + {_picked(domain, text, len(words))}]"


def _phone(mask: str, number: str) -> str:
    count = mask.count("#")
    digits = f"lpad(({number} % {10 ** min(count, PHONE_DIGITS)})::text, {count}, '0')"
    runs = mask_parts(mask)
    if sum(isinstance(part, int) for part in runs) == 1:
        return " || ".join(literal(part) if isinstance(part, str) else digits for part in runs)
    parts, position = [], 1
    for part in runs:
        if isinstance(part, str):
            parts.append(literal(part))
        else:
            parts.append(f"substr(holdfast_phone.digits, {position}, {part})")
            position += part
    # The digest is computed once, in a row of its own.
    return f"(SELECT {' || '.join(parts)} FROM (SELECT {digits} AS digits OFFSET 0) AS holdfast_phone)"


def _date(column: Column, method: Date, name: str) -> str:
    if method.to == "now":
        return f"CASE WHEN {name} IS NOT NULL THEN current_date END"
    if method.to in ("year", "month"):
        return f"date_trunc('{method.to}', {name})"
    days = f"{_picked(method.domain, f'{name}::text', 2 * method.days + 1)} - {method.days}"
    return f"{name} + ({days}) * interval '1 day'"


def _number(method: Number, name: str) -> str:
    if method.bucket:
        return f"floor({name} / {method.bucket}) * {method.bucket}"
    share = f"(({_picked(method.domain, f'{name}::text', 2001)}) - 1000)"
    return f"{name} * (1 + {share} * {method.noise} / 100000.0)"


def _json(plan: DatabasePlan, method: Json, source: str) -> str:
    if method.other == "keep":
        found = source
        for path, one in method.paths.items():
            inside = _path(path)
            text = f"({source} #>> {inside})"
            new = f"coalesce(to_jsonb(({of_text(plan, INSIDE, one, text)})::text), 'null'::jsonb)"
            found = f"jsonb_set({found}, {inside}, {new}, false)"
        return found
    kept = f"jsonb_strip_nulls({_object(plan, method, source, ())})"
    return f"CASE WHEN {source} IS NOT NULL THEN {kept} END"


def _object(plan: DatabasePlan, method: Json, source: str, above: tuple[str, ...]) -> str:
    """Return the object of the paths that begin with those above."""
    pairs = []
    for name in method.names(above):
        path = ".".join((*above, name))
        if path in method.paths:
            inside = f"({source} #>> {_path(path)})"
            found = f"to_jsonb(({of_text(plan, INSIDE, method.paths[path], inside)})::text)"
        else:
            inner = _object(plan, method, source, (*above, name))
            found = f"CASE WHEN jsonb_typeof({source} #> {_path(path)}) = 'object' THEN {inner} END"
        pairs.append(f"{literal(name)}, {found}")
    return f"jsonb_build_object({', '.join(pairs)})"


def _path(path: str) -> str:
    return f"ARRAY[{', '.join(literal(part) for part in path.split('.'))}]"
