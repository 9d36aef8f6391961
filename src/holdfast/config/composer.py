"""The `scripts` of a release's composer.json as tasks, as Composer runs them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping

from holdfast.errors import ConfigurationError

FILE_NAME = "composer.json"
_CALLBACK = re.compile(r"^[\w\\]+::\w+$")
_OF_A_SHELL = re.compile(r"[|&;<>()$`*?~#!\[\]{}\n]")


def tasks(text: str, chosen: Mapping[str, str], origin: str) -> dict[str, list[list[str]]]:
    """Return the commands of the chosen tasks whose script the file has. Raise ConfigurationError."""
    if not chosen or not text:
        return {}
    try:
        found = json.loads(text)
        scripts = found.get("scripts", {})
        named = {name: _entries(scripts[name]) for name in scripts}
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigurationError(f"{origin} cannot be read", [f"scripts: {error}"]) from error
    return {task: _commands(name, named, origin, ()) for task, name in chosen.items() if name in named}


def _entries(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return value
    raise TypeError(f"{value!r} is neither a command nor a list of them")


def _commands(name: str, scripts: Mapping[str, list[str]], origin: str, above: tuple[str, ...]) -> list[list[str]]:
    """Return the commands of a script, with those of the scripts that it names.

    A script that calls a class of PHP, or sets a variable, is left to Composer.
    """
    if name in above:
        raise ConfigurationError(f"{origin} cannot be used", [f"scripts.{name}: it names itself"])
    entries = scripts[name]
    if any(_CALLBACK.match(entry) or entry.startswith("@putenv") for entry in entries):
        return [["composer", "run-script", "--no-interaction", name]]
    found: list[list[str]] = []
    for entry in entries:
        if entry.startswith("@") and entry[1:] in scripts:
            found += _commands(entry[1:], scripts, origin, (*above, name))
        elif entry.startswith(("@php ", "@composer ")):
            found.append(_argv(entry[1:]))
        elif entry.startswith("@"):
            raise ConfigurationError(f"{origin} cannot be used", [f"scripts.{name}: there is no script {entry[1:]!r}"])
        else:
            found.append(_argv(entry))
    return found


def _argv(command: str) -> list[str]:
    """Return a command's words, or a shell that runs it if it needs one."""
    return ["sh", "-c", command] if _OF_A_SHELL.search(command) else shlex.split(command)
