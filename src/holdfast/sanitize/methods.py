"""The methods that replace values, one class each: to which columns they fit, and whether they keep values apart."""

from __future__ import annotations

import re
from typing import ClassVar, Literal, TypeAlias

import msgspec

from holdfast.sanitize.schema import Column, Kind

DICTIONARIES = ("first_name", "last_name", "name", "company", "city", "street")
LEAST_WIDTH = 8
_UUID_LENGTH = 36
_IP_LENGTH = 15
_WORDS: frozenset[Kind] = frozenset({"text"})
_NUMBERS: frozenset[Kind] = frozenset({"integer", "number"})
_DATES: frozenset[Kind] = frozenset({"date", "timestamp"})


_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


class Method(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to replace a value. NULL stays NULL, except where a method says otherwise."""

    name: ClassVar[str]
    keeps_apart: ClassVar[bool] = False
    """Whether different values stay different, so that a unique column may have it."""

    def misfit(self, column: Column) -> str:
        """Return why the method cannot be used for a column; empty if it can."""
        return ""


def _only(column: Column, kinds: frozenset[Kind], name: str, *, arrays: bool = False) -> str:
    if column.kind not in kinds:
        return f"{name} is for columns of {_named(kinds)}, not for {column.type}"
    return f"{name} is not for arrays ({column.type})" if column.array and not arrays else ""


def _named(kinds: frozenset[Kind]) -> str:
    return " or ".join(sorted(kinds))


class Keep(Method, frozen=True):
    """Leave the value as it is."""

    name: ClassVar[str] = "keep"
    keeps_apart: ClassVar[bool] = True
    reason: str = ""


class Null(Method, frozen=True):
    """Replace every value by NULL."""

    name: ClassVar[str] = "null"
    keeps_apart: ClassVar[bool] = True

    def misfit(self, column: Column) -> str:
        return "" if column.nullable else "null is not for a column that is NOT NULL"


class Set(Method, frozen=True):
    """Replace every value, and NULL too, by one constant."""

    name: ClassVar[str] = "set"
    value: str | int | float | bool

    def misfit(self, column: Column) -> str:
        if isinstance(self.value, str) and column.kind in _NUMBERS and not _NUMBER.fullmatch(self.value):
            return f"set: {self.value!r} is no number, as {column.type} needs"
        if isinstance(self.value, str) and column.kind == "text" and column.length is not None:
            return "" if len(self.value) <= column.length else f"set: the value is longer than {column.type}"
        return ""


class Hash(Method, frozen=True):
    """Replace a value by digits of a keyed digest; equal values of one domain stay equal in all tables."""

    name: ClassVar[str] = "hash"
    keeps_apart: ClassVar[bool] = True
    width: int = 0
    """Hexadecimal digits; 0 for as many as the number of rows needs."""
    domain: str = "hash"

    def misfit(self, column: Column) -> str:
        return _only(column, _WORDS, self.name, arrays=True)


class Email(Method, frozen=True):
    """Replace a value by an address below the domain for tests."""

    name: ClassVar[str] = "email"
    keeps_apart: ClassVar[bool] = True
    domain: str = "email"

    def misfit(self, column: Column) -> str:
        return _only(column, _WORDS, self.name, arrays=True)


class Pick(Method, frozen=True):
    """Replace a value by one of a dictionary of names, streets and so on; equal values get the same one."""

    name: ClassVar[str] = "pick"
    dictionary: str
    domain: str = ""

    def misfit(self, column: Column) -> str:
        return _only(column, _WORDS, self.dictionary, arrays=True)


class Text(Method, frozen=True):
    """Replace a value by filler text of the same length."""

    name: ClassVar[str] = "text"

    def misfit(self, column: Column) -> str:
        return _only(column, _WORDS, self.name, arrays=True)


class Phone(Method, frozen=True):
    """Replace a value by a number made from a mask, whose `#` become digits of the keyed digest."""

    name: ClassVar[str] = "phone"
    mask: str = ""
    """Empty for the mask of the rules."""
    domain: str = "phone"

    def misfit(self, column: Column) -> str:
        return _only(column, _WORDS, self.name, arrays=True)


class Mask(Method, frozen=True):
    """Replace all characters but some at the ends by `*`; a value of no more than these is replaced as a whole."""

    name: ClassVar[str] = "mask"
    left: int = 0
    right: int = 0

    def misfit(self, column: Column) -> str:
        return _only(column, _WORDS, self.name, arrays=True)


class Date(Method, frozen=True):
    """Cut a date to its year or month, set it to the day of the dump, or shift it by up to some days."""

    name: ClassVar[str] = "date"
    to: Literal["now", "year", "month", "shift"] = "year"
    days: int = 0
    domain: str = "date"

    def misfit(self, column: Column) -> str:
        return _only(column, _DATES, self.name)


class Number(Method, frozen=True):
    """Cut a number to a multiple, or change it by up to some percent."""

    name: ClassVar[str] = "number"
    bucket: int = 0
    noise: int = 0
    domain: str = "number"

    def misfit(self, column: Column) -> str:
        return _only(column, _NUMBERS, self.name)


class Uuid(Method, frozen=True):
    """Replace a value by a UUID made of the keyed digest."""

    name: ClassVar[str] = "uuid"
    keeps_apart: ClassVar[bool] = True
    domain: str = "uuid"

    def misfit(self, column: Column) -> str:
        if column.kind == "text" and column.length is not None and column.length < _UUID_LENGTH:
            return f"uuid needs {_UUID_LENGTH} characters; {column.type} has fewer"
        return _only(column, frozenset({"uuid", "text"}), self.name)


class Ip(Method, frozen=True):
    """Replace a value by an address of the network 10.0.0.0/8."""

    name: ClassVar[str] = "ip"
    domain: str = "ip"

    def misfit(self, column: Column) -> str:
        if column.kind == "text" and column.length is not None and column.length < _IP_LENGTH:
            return f"ip needs {_IP_LENGTH} characters; {column.type} has fewer"
        return _only(column, frozenset({"inet", "text"}), self.name)


class Choice(Method, frozen=True):
    """Replace a value by one of a list, chosen by the keyed digest."""

    name: ClassVar[str] = "choice"
    values: tuple[str, ...]
    domain: str = "choice"

    def misfit(self, column: Column) -> str:
        if not self.values:
            return "choice needs at least one value"
        if column.kind == "enum" and (wrong := [value for value in self.values if value not in column.labels]):
            return f"choice: {column.type} has no value {wrong[0]!r}"
        if column.kind == "integer" and (wrong := [value for value in self.values if not _NUMBER.fullmatch(value)]):
            return f"choice: {wrong[0]!r} is no number, as {column.type} needs"
        if column.length is not None and (longest := max(self.values, key=len)) and len(longest) > column.length:
            return f"choice: {longest!r} is longer than {column.type}"
        return _only(column, frozenset({"text", "enum", "integer"}), self.name)


class File(Method, frozen=True):
    """Replace the content of a file by a blank one."""

    name: ClassVar[str] = "file"
    content: Literal["empty", "png", "pdf"] = "empty"

    def misfit(self, column: Column) -> str:
        return _only(column, frozenset({"binary"}), self.name)


class Json(Method, frozen=True):
    """Replace values inside of JSON, each by a method of its own; all others are dropped, or kept."""

    name: ClassVar[str] = "json"
    paths: dict[str, AnyMethod]
    other: Literal["drop", "keep"] = "drop"

    def names(self, above: tuple[str, ...]) -> list[str]:
        """Return the names in the object under a path, in the order of the rules."""
        split = (tuple(path.split(".")) for path in self.paths)
        return list(dict.fromkeys(parts[len(above)] for parts in split if parts[: len(above)] == above))

    def misfit(self, column: Column) -> str:
        for path, method in self.paths.items():
            if isinstance(method, (Json, Sql, File, Date, Number)):
                return f"json: {method.name} is not for a value inside of JSON ({path})"
            if not path or any(not part for part in path.split(".")):
                return f"json: {path!r} is not a path such as address.street"
        shared = [a for a in self.paths for b in self.paths if b.startswith(f"{a}.")]
        if shared:
            return f"json: {shared[0]} and a path below it cannot both have a rule"
        return _only(column, frozenset({"json"}), self.name)


class Sql(Method, frozen=True):
    """Replace a value by an expression of the engine's own; the operator answers for what it reveals."""

    name: ClassVar[str] = "sql"
    expression: str
    unique: bool = False
    """The operator's promise that different values stay different."""

    def misfit(self, column: Column) -> str:
        if column.unique and not self.unique:
            return "sql needs `unique = true` for a column whose values are unique"
        return "sql: one expression without a semicolon" if ";" in self.expression else ""


AnyMethod: TypeAlias = (
    Keep
    | Null
    | Set
    | Hash
    | Email
    | Pick
    | Text
    | Phone
    | Mask
    | Date
    | Number
    | Uuid
    | Ip
    | Choice
    | File
    | Json
    | Sql
)
