"""Placeholders in the commands of holdfast.toml."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from holdfast.application.context import ApplicationContext
from holdfast.config.placeholders import fill
from holdfast.system.child_environment import STANDARD_PATH

_PHP_FPM = re.compile(r"php-fpm([0-9.]*)")


def filled(application: ApplicationContext, argv: Iterable[str], directory: str, port: int | None) -> tuple[str, ...]:
    """Return a command's arguments with a release's values in place of the placeholders."""
    python = Path(directory) / ".venv" / "bin" / "python"
    values = {
        "port": str(port or ""),
        "release": directory,
        "root": str(application.loaded.root),
        "python": str(python) if python.exists() else "python3",
    }
    words = list(argv)
    if any("{php_fpm}" in word for word in words):
        values["php_fpm"] = php_fpm()
    return tuple(fill(argument, values) for argument in words)


def php_fpm(folders: str = STANDARD_PATH) -> str:
    """Return the name of php-fpm, which on some systems contains its version: the plain one, else the newest."""
    found: dict[tuple[int, ...], str] = {}
    for folder in map(Path, folders.split(":")):
        for path in folder.glob("php-fpm*") if folder.is_dir() else ():
            if match := _PHP_FPM.fullmatch(path.name):
                numbers = tuple(int(number) for number in match[1].split(".") if number)
                found[numbers or (1 << 30,)] = path.name
    return found[max(found)] if found else "php-fpm"
