"""The files of a release that may set keys, as one text: holdfast.toml, its overlays by type, and composer.json.

A package keeps this text, so that it can be read before the package is unpacked, or even here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from holdfast.config import composer
from holdfast.config.environments import TYPES

FILE_NAME = "holdfast.toml"
NAMES = (FILE_NAME, *(f"holdfast.{kind}.toml" for kind in TYPES), composer.FILE_NAME)
_MARK = "#:file "  # a comment, so the text of a release without overlays is simply its holdfast.toml


def bundled(texts: Mapping[str, str | None]) -> str | None:
    """Return the files as one text; None where there are none."""
    found = {name: text for name, text in texts.items() if text is not None}
    if not found:
        return None
    overlays = [f"{_MARK}{name}\n{text.rstrip()}\n" for name, text in found.items() if name != FILE_NAME]
    return "".join([found.get(FILE_NAME, ""), *(["\n"] if overlays else []), *overlays])


def in_folder(folder: Path) -> str | None:
    """Return the files of an unpacked release."""
    return bundled({name: (folder / name).read_text() if (folder / name).is_file() else None for name in NAMES})


def from_each(read: Callable[[str], str | None], wanted: Sequence[str] = NAMES) -> str | None:
    """Return the files that a function reads by their names."""
    return bundled({name: read(name) for name in wanted})


def split(text: str | None) -> dict[str, str]:
    """Return the files in such a text, by their names."""
    found = {FILE_NAME: ""}
    name = FILE_NAME
    for line in (text or "").splitlines(keepends=True):
        if line.startswith(_MARK) and line[len(_MARK) :].strip() in NAMES:
            name = line[len(_MARK) :].strip()
            found[name] = ""
        else:
            found[name] += line
    return found
