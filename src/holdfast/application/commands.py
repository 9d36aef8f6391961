"""Placeholders in the commands of holdfast.toml."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from holdfast.application.context import ApplicationContext


def filled(application: ApplicationContext, words: Iterable[str], directory: str, port: int | None) -> tuple[str, ...]:
    """Return a command's words with a release's values in place of {port}, {release}, {root} and {python}."""
    python = Path(directory) / ".venv" / "bin" / "python"
    values = {
        "port": str(port or ""),
        "release": directory,
        "root": str(application.loaded.root),
        "python": str(python) if python.exists() else "python3",
    }
    found = []
    for word in words:
        for name, value in values.items():
            word = word.replace("{" + name + "}", value)
        found.append(word)
    return tuple(found)
