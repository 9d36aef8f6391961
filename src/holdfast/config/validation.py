"""The conversion of a table of values to a section, which reports every value that the schema does not accept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from holdfast.config.schema import Configuration, Section
from holdfast.config.similar import did_you_mean

_SectionT = TypeVar("_SectionT", bound=Section)


MISSING = "is missing"
"""What is wrong with a key that is needed and not there."""


class InvalidError(Exception):
    """A value that the schema does not accept; `problems` are pairs of a key and what is wrong with it."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{key}: {text}" for key, text in problems))
        self.problems = problems


def validate(value: Mapping[str, object], section: type[_SectionT]) -> _SectionT:
    """Return the section that a table describes. Raise InvalidError with every problem in it."""
    try:
        found = msgspec.convert(value, section)
    except msgspec.ValidationError:
        problems = list(_wrong_section(value, section, ""))
    else:
        problems = list(_problems_of(found))
    if problems:
        raise InvalidError(problems)
    return found


def plain(section: Section, *, defaults: bool = True) -> dict[str, object]:
    """Return a section as a table, without what is unset; without what has its default value, too, if so wanted."""
    found = {}
    for one in msgspec.structs.fields(section):
        value = getattr(section, one.name)
        if value is not None and (defaults or value != _default(one)):
            found[one.name] = _plain(value, defaults)
    return found


def _plain(value: object, defaults: bool) -> object:
    if isinstance(value, Section):
        return plain(value, defaults=defaults)
    if isinstance(value, dict):
        return {key: _plain(item, defaults) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, defaults) for item in value]
    return value


def _default(one: msgspec.structs.FieldInfo) -> object:
    return one.default_factory() if one.default_factory is not msgspec.NODEFAULT else one.default


def cross_problems(configuration: Configuration) -> list[str]:
    """Return problems that only several sections together show, each as `key: problem`."""
    return [
        f"{prefix}{problem}"
        for prefix, name, section in _sections(configuration)
        for problem in section.problems_with(configuration, name)
    ]


def _problems_of(section: Section) -> Iterator[tuple[str, str]]:
    """Return problems that the keys of a section, and of the sections in it, show together."""
    for prefix, _, inner in _sections(section):
        yield from ((f"{prefix}{key}", text) for key, text in _split(inner.problems()))


def _sections(section: Section, prefix: str = "", name: str = "") -> Iterator[tuple[str, str, Section]]:
    """Yield a section and those in it, each with the prefix of its keys and the operator's name for it, if any."""
    yield prefix, name, section
    for key in section.__struct_fields__:
        value: object = getattr(section, key)
        if isinstance(value, Section):
            yield from _sections(value, f"{prefix}{key}.")
        elif isinstance(value, dict):
            for inner, item in value.items():
                if isinstance(item, Section):
                    yield from _sections(item, f"{prefix}{key}.{inner}.", inner)


# --- what is wrong, key by key -------------------------------------------------------------------------


def _wrong(value: object, kind: object, key: str) -> Iterator[tuple[str, str]]:
    """Return the problems of a value that should be of a type."""
    section, is_named = section_in(kind)
    item = get_args(bare(kind))[0] if get_origin(bare(kind)) is list else None
    if isinstance(value, list) and section_in(item)[0] is not None and section is None:
        for number, one in enumerate(value, 1):
            inner = section_in(item)[0] if isinstance(one, Mapping) else None
            if inner is not None:
                yield from _wrong_section(one, inner, f"{key}.{number}.")
            elif not _fits(one, item):
                yield f"{key}.{number}", f"expected a text or a table{_got(key, one, item)}"
    elif section is None or (takes_list(kind) and not isinstance(value, Mapping)):
        if not _fits(value, kind):
            yield key, f"expected {described(kind)}{_got(key, value, kind)}"
    elif not isinstance(value, Mapping):
        yield key, f"expected a table{_got(key, value, kind)}"
    elif is_named:
        (name_type, _) = get_args(bare(kind))
        for name, item in value.items():
            if not _fits(name, name_type):
                yield f"{key}.{name}", f"expected a name of {described(name_type)}"
            yield from _wrong(item, section, f"{key}.{name}")
    else:
        yield from _wrong_section(value, section, f"{key}." if key else "")


def _wrong_section(value: Mapping[str, object], section: type[Section], prefix: str) -> Iterator[tuple[str, str]]:
    known = {one.name: one for one in msgspec.structs.fields(section)}
    yield from ((f"{prefix}{name}", _unknown_key(name, known)) for name in value if name not in known)
    problems: list[tuple[str, str]] = []
    for name, one in known.items():
        if name in value:
            problems += _wrong(value[name], one.type, f"{prefix}{name}")
        elif one.required:
            problems.append((f"{prefix}{name}", MISSING))
    yield from problems
    if not problems:
        found = msgspec.convert({name: item for name, item in value.items() if name in known}, section)
        yield from ((f"{prefix}{key}", text) for key, text in _split(found.problems()))


def _unknown_key(name: str, known: Iterable[str]) -> str:
    return f"unknown key. {did_you_mean(name, known)}".rstrip()


def _got(key: str, value: object, kind: object) -> str:
    """Return what stands in the place of a value that was expected, but nothing that may be a secret."""
    if isinstance(value, Mapping):
        return ", got a table"
    if isinstance(value, list):
        return ", got a list"
    if isinstance(value, str) and (_SECRET.search(key) or "env:" in _expected(kind)):
        return ", got another text"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return f", got {text}" if len(text) <= _LONGEST_SHOWN else ", got a longer text"


_SECRET = re.compile(r"password|secret|token|credential|key", re.IGNORECASE)
_LONGEST_SHOWN = 60


def _split(problems: list[str]) -> Iterator[tuple[str, str]]:
    for problem in problems:
        key, _, text = problem.partition(": ")
        yield key, text


def _fits(value: object, kind: object) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


# --- types, for messages and for the reference ---------------------------------------------------------


def bare(kind: object) -> object:
    """Return a type without its description and limits."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return kind


def section_in(kind: object) -> tuple[type[Section] | None, bool]:
    """Return the section that a type holds, if any, and whether it is a table of named ones."""
    inner = bare(kind)
    candidates = [inner, *(bare(one) for one in get_args(inner))]
    found = next((one for one in candidates if isinstance(one, type) and issubclass(one, Section)), None)
    return found, get_origin(inner) is dict


def takes_list(kind: object) -> bool:
    """Return whether a key takes a list instead of its table."""
    return any(get_origin(bare(one)) is list for one in get_args(bare(kind)))


def limits_of(kind: object) -> dict[str, object]:
    """Return the limits of a type: `ge`, `gt`, `le`, `pattern`, `min_length`."""
    found: dict[str, object] = {}
    while get_origin(kind) is Annotated:
        kind, *metas = get_args(kind)
        for meta in metas:
            found |= {name: getattr(meta, name) for name in _LIMITS if getattr(meta, name) is not None}
    return found


_LIMITS = ("ge", "gt", "le", "pattern", "min_length")


def description_of(kind: object) -> str:
    """Return what a key is for."""
    metas = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    return next((meta.description for meta in metas if meta.description), "")


def _expected(kind: object) -> str:
    """Return a pattern in words, where it has some."""
    while get_origin(kind) is Annotated:
        kind, *metas = get_args(kind)
        for meta in metas:
            if meta.extra:
                return str(meta.extra["expected"])
    return ""


def type_name(kind: object) -> str:
    """Return a type as the documentation calls it."""
    inner = bare(kind)
    if get_origin(inner) in (Union, UnionType):
        inner = bare(next(one for one in get_args(inner) if one is not type(None)))
    origin = get_origin(inner)
    if origin is Literal:
        return " | ".join(get_args(inner))
    if origin is list:
        item = bare(get_args(inner)[0])
        if get_origin(item) in (Union, UnionType):
            if section_in(item)[0] is not None:
                return "list of texts or of tables"
            return "list of texts or of lists of texts"
        return "list of texts" if item is str else "list of lists of texts"
    if origin is dict:
        return "table of texts"
    return _TYPE_NAMES[inner]


_TYPE_NAMES: dict[object, str] = {str: "text", int: "whole number", float: "number", bool: "true | false"}


def described(kind: object) -> str:
    """Return what a value of a type must be, to go on after `expected`."""
    name, limits = type_name(kind), limits_of(kind)
    if " | " in name:
        return "one of " + name.replace(" | ", ", ")
    text = name if name == "text" else f"a {name}"
    text += "".join(f" {word} {limits[key]:g}" for key, word in _LIMITS_AS_TEXT.items() if key in limits)
    if limits.get("min_length"):
        text += ", not an empty one"
    if expected := _expected(kind):
        return expected
    return f"{text} that matches {limits['pattern']}" if "pattern" in limits else text


_LIMITS_AS_TEXT = {"ge": "of at least", "gt": "above", "le": "of at most"}
