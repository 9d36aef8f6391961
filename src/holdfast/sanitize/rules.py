"""The rules of sanitize.toml: read with all problems at once, presets first, and looked up for a column."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Literal, TypeVar

import msgspec

from holdfast.config.similar import did_you_mean
from holdfast.errors import ConfigurationError
from holdfast.sanitize import methods
from holdfast.sanitize.forms import NEEDS_MORE, READERS, SIMPLE, known
from holdfast.sanitize.methods import AnyMethod

_WordT = TypeVar("_WordT", bound=str)
_SETTINGS = (
    "extends",
    "unlisted_tables",
    "unlisted_columns",
    "consistency",
    "email_domain",
    "allowed_email_domains",
    "phone_mask",
    "columns",
    "tables",
)
_TABLE_KEYS = ("rows", "where", "last", "by", "cascade", "exempt", "columns")
_MAIL_DOMAIN = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")


class TableRules(msgspec.Struct, frozen=True):
    """What is taken of a table, and the rules of its columns."""

    rows: Literal["all", "none"] = "all"
    where: str = ""
    """A condition of the rows that are taken."""
    last: int = 0
    """Only that many rows with the greatest values of `by`; 0 for all."""
    by: str = ""
    cascade: bool = False
    """Whether tables that refer to a table without rows are emptied too."""
    exempt: str = ""
    """A condition of rows that are not changed."""
    columns: dict[str, AnyMethod | None] = {}
    """None where a rule of a preset was removed."""


class Rules(msgspec.Struct, frozen=True):
    unlisted_tables: Literal["error", "empty", "keep"] = "error"
    unlisted_columns: Literal["error", "flagged", "keep"] = "flagged"
    consistency: Literal["project", "run"] = "project"
    email_domain: str = "example.test"
    allowed_email_domains: tuple[str, ...] = ()
    """Domains of addresses that may stay, besides `email_domain`."""
    phone_mask: str = "+1555#######"
    columns: dict[str, AnyMethod | None] = {}
    """By a pattern of the name, for columns of all tables."""
    tables: dict[str, TableRules] = {}
    of_presets: frozenset[str] = frozenset()
    """Tables and `table.column` that only presets name: they need not exist in this version of the application."""

    def of_table(self, name: str) -> TableRules | None:
        """Return the rules of a table: its own, or of the longest pattern that fits."""
        if name in self.tables:
            return self.tables[name]
        fitting = [pattern for pattern in self.tables if fnmatchcase(name, pattern)]
        return self.tables[max(fitting, key=len)] if fitting else None

    def by_name(self, column: str) -> AnyMethod | None:
        """Return the rule of the longest pattern that fits the name of a column."""
        fitting = [pattern for pattern in self.columns if fnmatchcase(column.lower(), pattern.lower())]
        return self.columns[max(fitting, key=len)] if fitting else None


def parse(text: str, source: str, preset: Callable[[str], str]) -> Rules:
    """Return the rules of a file and of the presets that it extends; `preset` returns the text of one.

    Raise ConfigurationError with all problems.
    """
    problems: list[str] = []
    merged: dict[str, object] = {}
    named: list[set[str]] = []
    for name, content in _layers(text, source, preset):
        try:
            layer = tomllib.loads(content)
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{name} is not valid TOML", [str(error)]) from None
        _merge(merged, layer)
        named.append(_names(layer))
    found = _Reader(problems).rules(merged)
    if problems:
        raise ConfigurationError(f"{source} is wrong", problems)
    return msgspec.structs.replace(found, of_presets=frozenset(set().union(*named[:-1]) - named[-1]))


def _names(layer: Mapping[str, object]) -> set[str]:
    """Return the tables of a file and their columns, as `table.column`."""
    tables = layer.get("tables")
    found: set[str] = set()
    for table, value in tables.items() if isinstance(tables, dict) else ():
        columns = value.get("columns") if isinstance(value, dict) else None
        found |= {table, *(f"{table}.{column}" for column in (columns if isinstance(columns, dict) else ()))}
    return found


def _layers(text: str, source: str, preset: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    try:
        extended = tomllib.loads(text).get("extends", [])
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{source} is not valid TOML", [str(error)]) from None
    for name in extended if isinstance(extended, list) else [extended]:
        if not isinstance(name, str) or not name.startswith("preset:"):
            raise ConfigurationError(f"{source} is wrong", [f"extends: {name!r} is not preset:NAME"])
        yield name, preset(name.removeprefix("preset:"))
    yield source, text


def _merge(merged: dict[str, object], layer: Mapping[str, object], depth: str = "") -> None:
    """Add a later file: it replaces settings and rules one by one."""
    for key, value in layer.items():
        inner = {"": {"columns": "columns", "tables": "tables"}.get(key, ""), "tables": "table"}.get(depth, "")
        inner = "columns" if depth == "table" and key == "columns" else inner
        if inner and isinstance(value, dict):
            present = merged.get(key)
            merged[key] = below = dict(present) if isinstance(present, dict) else {}
            _merge(below, value, inner)
        else:
            merged[key] = value


class _Reader:
    """Turns tables of TOML into rules; what is wrong is collected."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems

    def rules(self, value: Mapping[str, object]) -> Rules:
        self._unknown(value, _SETTINGS, "")
        domain = self._text(value, "email_domain", "example.test")
        if not _MAIL_DOMAIN.fullmatch(domain):
            self._problems.append(f"email_domain: {domain!r} is not a domain in lower case, such as example.test")
        for one in (allowed := self._texts(value, "allowed_email_domains")):
            if not _MAIL_DOMAIN.fullmatch(one):
                self._problems.append(
                    f"allowed_email_domains: {one!r} is not a domain in lower case, such as example.test"
                )
        mask = self._text(value, "phone_mask", "+1555#######")
        if "#" not in mask or not re.fullmatch(r"[-+#0-9 ().]+", mask):
            self._problems.append(f"phone_mask: {mask!r} needs `#` for digits, and nothing but digits and +-(). beside")
        return Rules(
            unlisted_tables=self._one_of(value, "unlisted_tables", ("error", "empty", "keep")),
            unlisted_columns=self._one_of(value, "unlisted_columns", ("flagged", "error", "keep")),
            consistency=self._one_of(value, "consistency", ("project", "run")),
            email_domain=domain,
            allowed_email_domains=tuple(allowed),
            phone_mask=mask,
            columns=self._columns(self._table(value, "columns", ""), "columns"),
            tables={
                name: self._table_rules(item, f'tables."{name}"')
                for name, item in self._table(value, "tables", "").items()
                if item is not False
            },
        )

    def _table_rules(self, value: object, place: str) -> TableRules:
        if not isinstance(value, dict):
            self._problems.append(f"{place}: must be a table")
            return TableRules()
        self._unknown(value, _TABLE_KEYS, f"{place}.")
        last = value.get("last", 0)
        if not isinstance(last, int) or isinstance(last, bool) or last < 0:
            self._problems.append(f"{place}.last: must be a number of rows")
            last = 0
        found = TableRules(
            rows=self._one_of(value, "rows", ("all", "none"), f"{place}."),
            where=self._sql(value, "where", place),
            last=last,
            by=self._text(value, "by", "", f"{place}."),
            cascade=self._flag(value, "cascade", f"{place}."),
            exempt=self._sql(value, "exempt", place),
            columns=self._columns(self._table(value, "columns", f"{place}."), f"{place}.columns"),
        )
        if bool(found.last) != bool(found.by):
            self._problems.append(f"{place}: `last` and `by` go together: how many rows, and by which column")
        if found.cascade and found.rows != "none":
            self._problems.append(f'{place}.cascade: is only for rows = "none"')
        return found

    def _columns(self, value: Mapping[str, object], place: str) -> dict[str, AnyMethod | None]:
        return {name: self.method(item, f"{place}.{name}") for name, item in value.items()}

    def method(self, value: object, place: str) -> AnyMethod | None:
        """Return the method of a rule; None for one that was removed, or that is wrong."""
        if value is False:
            return None
        if isinstance(value, str):
            if value in SIMPLE:
                return READERS[value](value, {value: None})
            self._problems.append(
                f"{place}: {value} needs more, as a table such as {NEEDS_MORE[value]}"
                if value in NEEDS_MORE
                else f"{place}: there is no method {value!r}. {did_you_mean(value, READERS)}".strip()
            )
            return None
        if not isinstance(value, dict):
            self._problems.append(f"{place}: must be the name of a method, or a table with one")
            return None
        named = [key for key in value if key in READERS]
        if len(named) != 1:
            known = "" if named else "; known are " + ", ".join(sorted(READERS))
            self._problems.append(f"{place}: needs one method, not {len(named)}{known}")
            return None
        try:
            if named[0] == "json":
                return self._json(value, place)
            return READERS[named[0]](named[0], value)
        except (ValueError, msgspec.ValidationError) as error:
            self._problems.append(f"{place}: {error}")
            return None

    def _json(self, value: Mapping[str, object], place: str) -> methods.Json:
        paths = value["json"]
        if not isinstance(paths, dict):
            raise ValueError('json: must be a table of paths, such as { "address.street" = "street" }')
        known(value, ("json", "other"))
        found = {path: self.method(item, f"{place}.{path}") for path, item in paths.items()}
        other = value.get("other", "drop")
        if other not in ("drop", "keep"):
            raise ValueError("other: must be drop or keep")
        return methods.Json(
            {path: method for path, method in found.items() if method is not None},
            "drop" if other == "drop" else "keep",
        )

    # --- values ------------------------------------------------------------------------------------

    def _unknown(self, value: Mapping[str, object], known: tuple[str, ...], place: str) -> None:
        for key in value:
            if key not in known:
                self._problems.append(f"{place}{key}: is not known. {did_you_mean(key, known)}".strip())

    def _text(self, value: Mapping[str, object], key: str, default: str, place: str = "") -> str:
        found = value.get(key, default)
        if not isinstance(found, str):
            self._problems.append(f"{place}{key}: must be text")
            return default
        return found

    def _texts(self, value: Mapping[str, object], key: str) -> list[str]:
        found = value.get(key, [])
        if not isinstance(found, list) or any(not isinstance(one, str) for one in found):
            self._problems.append(f"{key}: must be a list of texts")
            return []
        return found

    def _flag(self, value: Mapping[str, object], key: str, place: str) -> bool:
        found = value.get(key, False)
        if not isinstance(found, bool):
            self._problems.append(f"{place}{key}: must be true or false")
        return found is True

    def _sql(self, value: Mapping[str, object], key: str, place: str) -> str:
        found = self._text(value, key, "", f"{place}.")
        if ";" in found:
            self._problems.append(f"{place}.{key}: is one condition, without a semicolon")
        return found

    def _one_of(self, value: Mapping[str, object], key: str, known: tuple[_WordT, ...], place: str = "") -> _WordT:
        """Return the chosen word; the first of them is the default."""
        wanted = value.get(key, known[0])
        found = next((one for one in known if one == wanted), None)
        if found is None:
            self._problems.append(f"{place}{key}: must be one of {', '.join(known)}")
        return found or known[0]

    def _table(self, value: Mapping[str, object], key: str, place: str) -> Mapping[str, object]:
        found = value.get(key, {})
        if not isinstance(found, dict):
            self._problems.append(f"{place}{key}: must be a table")
            return {}
        return found
