"""The reference of every key, made from the schema: for `config help` and for the documentation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources

import msgspec

from holdfast.config.schema import Configuration, Section
from holdfast.config.similar import no_such
from holdfast.config.validation import description_of, section_in, takes_list, type_name


@dataclass(frozen=True)
class Key:
    path: str
    type: str
    default: str
    description: str


def _default(one: msgspec.structs.FieldInfo) -> str:
    if one.required:
        return "required"
    value = one.default if one.default is not msgspec.NODEFAULT else one.default_factory()
    return json.dumps(value)


def all_keys(section: type[Section] = Configuration, prefix: str = "") -> Iterator[Key]:
    """Return every key with its path; NAME stands for a name of the operator's choice, or for any key with a table."""
    tables: set[type[Section]] = set()
    for one in msgspec.structs.fields(section):
        inner, is_named = section_in(one.type)
        path, description = f"{prefix}{one.name}", description_of(one.type)
        if inner is None or takes_list(one.type):
            yield Key(path, type_name(one.type), _default(one), description)
            tables |= {inner} if inner is not None else set()
        else:
            path = f"{path}.NAME" if is_named else path
            yield Key(path, "section", "", description)
            yield from all_keys(inner, f"{path}.")
    for inner in tables:
        yield Key(f"{prefix}NAME", "section", "", "Instead of a list: a table with more than the commands.")
        yield from all_keys(inner, f"{prefix}NAME.")


def _matches(asked: str, path: str) -> bool:
    wanted, known = asked.split("."), path.split(".")
    return len(wanted) == len(known) and all(two in (one, "NAME") for one, two in zip(wanted, known, strict=True))


def _named_as(asked: str, known: list[Key]) -> list[str]:
    """Return the known keys, with the names that were asked for in the place of NAME, and each without its section."""
    wanted = asked.split(".")
    found = []
    for key in known:
        words = key.path.split(".")
        found.append(
            ".".join(wanted[n] if word == "NAME" and n < len(wanted) else word for n, word in enumerate(words))
        )
    return found


def explain(asked: str | None) -> list[str]:
    """Return lines that explain one key or a section with its keys, or that list all. Raise NotFoundError."""
    known = list(all_keys())
    if asked is not None:
        asked = re.sub(r"\]\[|\[|\]", ".", asked).strip(".").removeprefix("holdfast.")
    if asked is None:
        return [f"{key.path:45} {key.description}" for key in known]
    hits = [key for key in known if _matches(asked, key.path)]
    if not hits:
        raise no_such("key", asked, _named_as(asked, known), next_step="Run `holdfast config help` to list all keys.")
    hit = hits[0]
    lines = [hit.path, f"  {hit.description}"]
    if hit.type != "section":
        return [*lines, f"  type: {hit.type}", f"  default: {hit.default}"]
    below = [key for key in known if key.path.startswith(f"{hit.path}.")]
    return [*lines, *(f"  {key.path:45} {key.description}" for key in below)]


def flatten(value: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            found |= flatten(item, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = item
    return found


def example() -> str:
    """Return the documented example, which has every key and which a test loads."""
    return (resources.files("holdfast.config") / "example.toml").read_text()


def markdown() -> str:
    """Return the reference page."""
    lines = [
        "# Configuration",
        "",
        "Generated from the schema by `make docs`; a test verifies that it is current.",
        "",
        "## Example",
        "",
        "```toml",
        example().rstrip(),
        "```",
        "",
        "## Keys",
        "",
    ]
    for key in all_keys():
        if key.type == "section":
            lines += ["", f"### `{key.path}`", "", key.description, ""]
            continue
        default = (
            ""
            if key.default in ("", '""')
            else f" Default: `{key.default}`."
            if key.default != "required"
            else " Required."
        )
        lines.append(f"- `{key.path}` ({key.type.replace('|', 'or')}): {key.description}{default}")
    return "\n".join(lines) + "\n"
