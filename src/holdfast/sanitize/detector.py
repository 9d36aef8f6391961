"""Which columns may hold personal data or secrets: by names, types, and counts of what their values look like.

The counts are made by the server. An unknown content, such as that of an empty table, counts as personal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from holdfast.sanitize.schema import Column, Kind

# Words of a name, in the order in which they are looked for, with the method that is proposed.
_NAMES: tuple[tuple[str, str], ...] = (
    (r"e_?mails?|mails?(_?addr(ess)?)?", "email"),
    (r"pass(word|wd|phrase)?|pwd|secret|token|api_?key|private_?key|salt|credential|otp|session|cookie|csrf", "hash"),
    (r"phone|mobile|fax|tel|telephone|cell", "phone"),
    (r"first_?name|given_?name|fore_?name", "first_name"),
    (r"last_?name|sur_?name|family_?name|middle_?name|maiden", "last_name"),
    (r"full_?name|display_?name|real_?name|contact_?name|author|user_?name|nick(_?name)?|login|person", "name"),
    (r"street|address_?(line)?_?\d?|addr", "street"),
    (r"city|town|village", "city"),
    (r"zip|post_?(al)?_?code", "hash"),
    (r"company|organi[sz]ation|employer", "company"),
    (r"birth_?(day|date)?|dob|born", "date"),
    (r"ip|ip_?addr(ess)?|remote_?addr|host_?addr", "ip"),
    (r"ssn|iban|bic|card|account_?number|vat|tax_?(id|number)|passport|licen[cs]e_?plate|license_?number", "hash"),
    (r"lat|lng|lon|latitude|longitude|geo|gps|location", "number"),
    (r"gender|sex|religion|nationality|ethnicity", "choice"),
    (
        r"comment|note|notes|message|body|bio|about|description_?private|subject|search|query|referr?er|user_?agent",
        "text",
    ),
)
_PATTERNS = tuple((re.compile(rf"(^|_)({words})($|_|\d)"), method) for words, method in _NAMES)
_FLAGGED_KINDS: frozenset[Kind] = frozenset({"inet", "json", "binary", "search", "other"})
_COUNTS: frozenset[Kind] = frozenset({"integer", "number"})
_EVERY = frozenset(
    {"email", "hash", "phone", "first_name", "last_name", "name", "street", "city", "company", "date", "ip"}
)
_POSSIBLE: Mapping[Kind, frozenset[str]] = {
    "text": _EVERY | {"number", "choice", "text"},
    "enum": frozenset({"choice"}),
    "date": frozenset({"date"}),
    "timestamp": frozenset({"date"}),
    "integer": frozenset({"phone", "number", "hash", "date"}),
    "number": frozenset({"phone", "number", "date"}),
    "uuid": frozenset({"hash"}),
}
"""What a type can hold of that which names speak of: a date of a login is no login."""
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class Content(msgspec.Struct, frozen=True):
    """Counts of a bounded sample of a column's values; only these leave the server."""

    sampled: int
    """Values that are not NULL."""
    matching: Mapping[str, int] = {}
    """How many look like an address, a phone number and so on, by CONTENT_PATTERNS."""


CONTENT_PATTERNS: Mapping[str, str] = {
    "email": "[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+[.][A-Za-z]",
    "ip": "^[0-9]{1,3}([.][0-9]{1,3}){3}$",
    "phone": "^([+(][0-9][0-9 ()./-]{6,18}|[0-9]{2,3}[ ./-][0-9 ./-]{5,15}|[0-9]{4,6}[ /][0-9 ./-]{4,15})$",
    "secret": "^([$]2[aby][$]|[$]argon2|pbkdf2_|eyJ[A-Za-z0-9_-]+[.]|-----BEGIN )",
    "iban": "^[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}$",
    "url": "://[^/@ ]+:[^/@ ]+@",
}
"""Regular expressions that PostgreSQL, MariaDB, MySQL and Python read alike."""
_METHODS = {"email": "email", "phone": "phone", "ip": "ip", "secret": "hash", "iban": "hash", "url": "hash"}


class Finding(msgspec.Struct, frozen=True):
    why: str
    method: str
    """The method that a first draft of the rules proposes."""


def by_name(column: Column) -> Finding | None:
    """Return what the name of a column says, as far as its type can hold such a thing."""
    name = _WORDS.sub("_", column.name).lower()
    for pattern, method in _PATTERNS:
        if pattern.search(name) and method in _POSSIBLE.get(column.kind, ()):
            if column.kind in ("integer", "uuid") and name.endswith("_id"):
                return None
            return Finding(f"its name, {column.name}", "number" if column.kind in _COUNTS else method)
    return None


def finding(column: Column, content: Content | None) -> Finding | None:
    """Return why a column may hold personal data or secrets; None if nothing says so."""
    if column.kind in _FLAGGED_KINDS:
        return Finding(f"its type, {column.type}", _for_kind(column.kind))
    if (named := by_name(column)) is not None:
        return named
    if column.kind == "text" and (content is None or content.sampled == 0):
        return Finding("no value to look at", "text")
    if content is not None:
        for what, count in content.matching.items():
            if count:
                method = _METHODS[what] if column.kind == "text" else "null"
                return Finding(f"{count} of {content.sampled} values look like {what}", method)
    return None


def _for_kind(kind: Kind) -> str:
    return {"inet": "ip", "json": "json", "binary": "file"}.get(kind, "null")
