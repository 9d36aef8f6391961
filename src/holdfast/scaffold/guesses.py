"""The lines of a proposed holdfast.toml that are guesses, marked with `# ?`, and the answers of a person to them."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Callable

import msgspec

_HEADER = re.compile(r"\[([^\[\]]+)\]\s*")
_GUESS = re.compile(r"(?P<key>[A-Za-z0-9_.-]+) = (?P<value>.*?)\s+# \? ?(?P<why>.*)")


class Guess(msgspec.Struct, frozen=True):
    """A guess: the key, what was guessed as somebody would type it, and what to think about."""

    key: str
    value: str
    why: str


def answered(text: str, ask: Callable[[Guess], str]) -> str:
    """Return a text with the answers to its guesses in place of them, which are then no longer marked."""
    lines, table = [], ""
    for line in text.split("\n"):
        header = _HEADER.fullmatch(line)
        table = f"{header[1]}." if header is not None else table
        found = _GUESS.fullmatch(line)
        value: object = tomllib.loads(f"x = {found['value']}")["x"] if found is not None else None
        shown = _shown(value)
        if found is not None and shown is not None:
            answer = ask(Guess(f"{table}{found['key']}", shown, found["why"]))
            typed = answer if isinstance(value, str) else shlex.split(answer)
            line = f"{found['key']} = {json.dumps(typed, ensure_ascii=False)}"
        lines.append(line)
    return "\n".join(lines)


def _shown(value: object) -> str | None:
    """Return a text or a command as somebody would type it; None for any other value."""
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return shlex.join(value)
    return value if isinstance(value, str) else None
