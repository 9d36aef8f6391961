"""Placeholders in the commands of holdfast.toml."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from holdfast.application.context import ApplicationContext
from holdfast.config.placeholders import fill


def filled(application: ApplicationContext, argv: Iterable[str], directory: str, port: int | None) -> tuple[str, ...]:
    """Return a command's arguments with a release's values in place of {port}, {release}, {root} and {python}."""
    python = Path(directory) / ".venv" / "bin" / "python"
    values = {
        "port": str(port or ""),
        "release": directory,
        "root": str(application.loaded.root),
        "python": str(python) if python.exists() else "python3",
    }
    return tuple(fill(argument, values) for argument in argv)
