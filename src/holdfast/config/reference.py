"""The reference of every key, made from the schema: for `config help` and for the documentation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from holdfast.config.schema import Configuration
from holdfast.errors import NotFoundError


@dataclass(frozen=True)
class Key:
    path: str
    type: str
    default: str
    description: str


def _type_name(annotation: Any) -> str:
    text = str(annotation)
    for long, short in (("typing.", ""), ("<class '", ""), ("'>", "")):
        text = text.replace(long, short)
    if "Literal[" in text:
        start = text.index("Literal[") + 8
        return " | ".join(word.strip().strip("'") for word in text[start : text.index("]", start)].split(","))
    if text.startswith(("Annotated[list", "list")):
        return "list of lists of words" if "list[Annotated" in text[4:] or "list[list" in text else "list of words"
    if text.startswith("dict"):
        return "table of words"
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true | false"}.get(
        text.partition(",")[0].replace("Annotated[", ""), "text"
    )


def _model_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section behind an annotation, and whether it is a table of named ones."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for argument in get_args(annotation):
        if isinstance(argument, type) and issubclass(argument, BaseModel):
            return argument, get_origin(annotation) is dict
    return None, False


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    return json.dumps(value) if not isinstance(value, BaseModel) else ""


def all_keys(model: type[BaseModel] = Configuration, prefix: str = "") -> Iterator[Key]:
    """Every key with its path; NAME stands for a name of the operator's choice."""
    for name, field in model.model_fields.items():
        section, named = _model_in(field.annotation)
        path = f"{prefix}{name}"
        if section is None:
            yield Key(path, _type_name(field.annotation), _default(field), field.description or "")
        else:
            path = f"{path}.NAME" if named else path
            yield Key(path, "section", "", field.description or "")
            yield from all_keys(section, f"{path}.")


def _matches(asked: str, path: str) -> bool:
    wanted, known = asked.split("."), path.split(".")
    return len(wanted) == len(known) and all(two in (one, "NAME") for one, two in zip(wanted, known, strict=True))


def explain(asked: str | None) -> list[str]:
    """Lines that explain one key, a section with its keys, or list all. Raises NotFoundError."""
    known = list(all_keys())
    if asked is None:
        return [f"{key.path:45} {key.description}" for key in known]
    hits = [key for key in known if _matches(asked, key.path)]
    if not hits:
        near = [key.path for key in known if asked.split(".")[-1] in key.path][:5]
        raise NotFoundError(
            f"there is no key {asked!r}",
            next_step=f"Did you mean {', '.join(near)}?" if near else "`holdfast config help` lists all.",
        )
    hit = hits[0]
    lines = [hit.path, f"  {hit.description}"]
    if hit.type != "section":
        return [*lines, f"  type: {hit.type}", f"  default: {hit.default}"]
    below = [key for key in known if key.path.startswith(f"{hit.path}.")]
    return [*lines, *(f"  {key.path:45} {key.description}" for key in below)]


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            found |= flatten(item, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = item
    return found


def example() -> str:
    """The documented example: every key, loaded by a test."""
    return (resources.files("holdfast.config") / "example.toml").read_text()


def markdown() -> str:
    """The reference page."""
    lines = ["# Configuration", "", "Made from the schema by `make docs`; a test keeps it current.", "", "## Example", "",
             "```toml", example().rstrip(), "```", "", "## Keys", ""]  # fmt: skip
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
