"""The file that holds the decision for each column, so that a new column is noticed and a changed one is looked at."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping

from holdfast.errors import ConfigurationError

Lines = Mapping[str, Mapping[str, str]]
"""Decisions by database, and by table or `table.column`."""
_HEADING = "# What `holdfast sanitize lock` decided for each table and column. Do not edit; keep it with the rules.\n"


def written(lines: Lines) -> str:
    """Return the text of the file."""
    text = [_HEADING]
    for database, found in sorted(lines.items()):
        text.append(f"\n[{json.dumps(database)}]\n")
        text += [
            f"{json.dumps(name)} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in sorted(found.items())
        ]
    return "".join(text)


def read(text: str, name: str) -> Lines:
    """Return the decisions of a file. Raise ConfigurationError."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{name} is not valid TOML", [str(error)]) from None
    for database, lines in found.items():
        if not isinstance(lines, dict) or any(not isinstance(value, str) for value in lines.values()):
            raise ConfigurationError(f"{name} is wrong", [f"{database}: must be a table of texts"])
    return found


def differences(locked: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return what is new, gone or otherwise since the file was written."""
    found = [f"{name}: is new ({value})" for name, value in now.items() if name not in locked]
    found += [f"{name}: is gone" for name in locked if name not in now]
    found += [
        f"{name}: was {locked[name]}, is {value}"
        for name, value in now.items()
        if name in locked and locked[name] != value
    ]
    return sorted(found)
