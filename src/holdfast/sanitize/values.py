"""The methods in Python, for engines that have no digest of their own. SQL of other engines gives the same values."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Callable
from typing import TypeAlias

from holdfast.sanitize import dictionaries
from holdfast.sanitize.deciding import EMAIL_PREFIX, DatabasePlan
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
from holdfast.sanitize.schema import Column

Value: TypeAlias = str | int | float | bytes | None
Replace: TypeAlias = Callable[[Value], Value]

PICK_DIGITS = 8
"""Hexadecimal digits of the digest that choose a word, a shift or a number."""
PHONE_DIGEST_DIGITS = 15
PHONE_DIGITS = 18
_TIME = re.compile(r"([T ]\d\d:\d\d(:\d\d([.,]\d+)?)?\s?(Z|UTC|[+-]\d\d(:?\d\d)?)?)?")
_HALVES = re.compile("[\ud800-\udfff]")
INSIDE = Column("", "text", "text")
"""A value inside of JSON."""


class Values:
    """Functions that replace values. The key is part of them."""

    def __init__(self, plan: DatabasePlan, key: str) -> None:
        self._plan = plan
        self._key = key.encode()

    def function(self, column: Column, method: AnyMethod) -> Replace:
        """Return the function for a column, which is not called with NULL."""
        if isinstance(method, Keep):
            return lambda value: value
        if isinstance(method, Null):
            return lambda value: None
        if isinstance(method, Set):
            constant = method.value
            return lambda value: constant
        if isinstance(method, File):
            return lambda value: dictionaries.FILES[method.content]
        if isinstance(method, Date):
            return self._date(method)
        if isinstance(method, Number):
            return self._number(column, method)
        if isinstance(method, Json):
            return self._json(method)
        if isinstance(method, Sql):
            raise TypeError("an expression is evaluated by the engine")
        of_text = self._of_text(column, method)
        return lambda value: of_text(as_text(value))

    def digest(self, domain: str) -> Callable[[str], str]:
        """Return the keyed digest of a domain, in hexadecimal."""
        started = hashlib.sha256(self._key + f":{domain}:".encode())

        def digest(text: str) -> str:
            found = started.copy()
            found.update(text.encode("utf-8", "surrogatepass"))  # JSON may have halves of a pair
            return found.hexdigest()

        return digest

    def _of_text(
        self, column: Column, method: Hash | Email | Pick | Text | Phone | Mask | Uuid | Ip | Choice
    ) -> Callable[[str], Value]:
        if isinstance(method, Text):
            return lambda text: filler(len(text))
        if isinstance(method, Mask):
            return lambda text: masked(text, method.left, method.right)
        digest = self.digest(method.domain)
        if isinstance(method, Hash):
            width = self._plan.width(column, method)
            return lambda text: digest(text)[:width]
        if isinstance(method, Email):
            width, domain = self._plan.width(column, method), self._plan.email_domain
            return lambda text: f"{EMAIL_PREFIX}{digest(text)[:width]}@{domain}"
        if isinstance(method, Uuid):
            return lambda text: _uuid(digest(text))
        if isinstance(method, Ip):
            return lambda text: _ip(digest(text))
        if isinstance(method, Phone):
            mask = method.mask or self._plan.phone_mask
            return lambda text: phone(mask, digest(text))
        words = method.values if isinstance(method, Choice) else dictionaries.WORDS[method.dictionary]
        room = column.length
        return lambda text: words[picked(digest(text), len(words))][:room]

    def _date(self, method: Date) -> Replace:
        if method.to == "now":
            today = datetime.datetime.now(datetime.UTC).date()
            return lambda value: _dated(as_text(value), lambda _: today)
        if method.to == "year":
            return lambda value: _dated(as_text(value), lambda day: day.replace(month=1, day=1), cut=True)
        if method.to == "month":
            return lambda value: _dated(as_text(value), lambda day: day.replace(day=1), cut=True)
        digest, span = self.digest(method.domain), 2 * method.days + 1

        def shifted(value: Value) -> Value:
            text = as_text(value)
            days = picked(digest(text), span) - method.days
            return _dated(text, lambda day: day + datetime.timedelta(days))

        return shifted

    def _number(self, column: Column, method: Number) -> Replace:
        if method.bucket:
            size = method.bucket
            return lambda value: value // size * size if isinstance(value, (int, float)) else None
        digest, percent = self.digest(method.domain), method.noise

        def changed(value: Value) -> Value:
            if not isinstance(value, (int, float)):
                return None
            share = (picked(digest(as_text(value)), 2001) - 1000) / 1000 * percent / 100
            return round(value * (1 + share)) if column.kind == "integer" else value * (1 + share)

        return changed

    def _json(self, method: Json) -> Replace:
        functions = {tuple(path.split(".")): self.function(INSIDE, one) for path, one in method.paths.items()}
        keep = method.other == "keep"

        def replaced(value: Value) -> Value:
            try:
                source = json.loads(as_text(value))
            except ValueError:
                return None
            found = source if keep else {}
            for path, function in functions.items():
                _put(source, found, path, function)
            text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
            return text if not _HALVES.search(text) else json.dumps(found, separators=(",", ":"))

        return replaced


def _put(source: object, target: object, path: tuple[str, ...], function: Replace) -> None:
    """Replace the value at a path, if there is one; what is not text is replaced by the digest of its JSON."""
    for part in path[:-1]:
        if not isinstance(source, dict) or part not in source or not isinstance(target, dict):
            return
        below = source[part]
        target = below if target is source else target.setdefault(part, {})
        source = below
    name = path[-1]
    if isinstance(source, dict) and name in source and isinstance(target, dict):
        value = source[name]
        text = value if isinstance(value, str) or value is None else json.dumps(value)
        target[name] = None if text is None else function(text)


def as_text(value: Value) -> str:
    """Return a value as its engine prints it."""
    return value if isinstance(value, str) else value.hex() if isinstance(value, bytes) else str(value)


def picked(digest: str, number: int) -> int:
    """Return a number below another one, by the digest."""
    return int(digest[:PICK_DIGITS], 16) % number


def filler(length: int) -> str:
    text = dictionaries.FILLER
    return (text * (length // len(text) + 1))[:length]


def masked(text: str, left: int, right: int) -> str:
    hidden = len(text) - left - right
    if hidden <= 0:
        return "*" * len(text)
    return text[:left] + "*" * hidden + text[len(text) - right :]


def phone(mask: str, digest: str) -> str:
    """Return the mask with digits in the places of `#`; the first ones are 0 where a digest does not give as many."""
    count = mask.count("#")
    given = min(count, PHONE_DIGITS)
    digits = iter(str(int(digest[:PHONE_DIGEST_DIGITS], 16) % 10**given).zfill(count))
    return "".join(next(digits) if sign == "#" else sign for sign in mask)


def mask_parts(mask: str) -> list[str | int]:
    """Return the parts of a mask: its text, and the numbers of digits between."""
    found = re.findall(r"#+|[^#]+", mask)
    return [len(part) if part[0] == "#" else part for part in found]


def _uuid(digest: str) -> str:
    return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}"


def _ip(digest: str) -> str:
    return f"10.{int(digest[:2], 16)}.{int(digest[2:4], 16)}.{int(digest[4:6], 16)}"


def _dated(text: str, change: Callable[[datetime.date], datetime.date], *, cut: bool = False) -> str | None:
    """Change the date at the beginning of a text; with `cut`, a time becomes midnight. None for what is no date."""
    try:
        day = change(datetime.date.fromisoformat(text[:10]))
    except (ValueError, OverflowError):
        return None
    rest = text[10:]
    if not _TIME.fullmatch(rest):  # an engine may keep any text in a column of dates
        return None
    if cut and rest:
        rest = rest[0] + "".join("0" if sign.isdigit() else sign for sign in rest[1:].split("+")[0])
    return day.isoformat() + rest
