"""Where each key of a configuration is set: the file that each comes from, and the line in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class Places:
    """The files and lines of keys. `texts` are those of origins that are not files below `root`."""

    def __init__(self, origins: Mapping[str, str], root: Path, texts: Mapping[str, str] | None = None) -> None:
        self._origins = origins
        self._root = root
        self._texts = texts or {}
        self._lines: dict[str, dict[str, int]] = {}

    def at(self, key: str) -> tuple[str, int]:
        """Return the origin of a key and its line there: empty if no file has it, 0 if the line is not known."""
        origin = origin_of(self._origins, key)
        if not origin:
            return "", 0
        if origin not in self._lines:
            self._lines[origin] = self._read(origin)
        parts = key.split(".")
        names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        return origin, next((self._lines[origin][name] for name in names if name in self._lines[origin]), 0)

    def of(self, key: str) -> str:
        """Return the place of a key, to go on after a message; empty if no file has it."""
        origin, line = self.at(key)
        if not origin:
            return ""
        return f" ({origin}, line {line})" if line else f" ({origin})"

    def _read(self, origin: str) -> dict[str, int]:
        from holdfast.config.lines import lines_of  # noqa: PLC0415 # only for messages and `config show`

        try:
            text = self._texts[origin] if origin in self._texts else (self._root / origin).read_text()
        except (OSError, ValueError):  # a preset
            return {}
        return lines_of(text)


def origin_of(origins: Mapping[str, str], key: str) -> str:
    """Return the file that a key comes from, or else that of the table around it or of a key below it."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in origins:
            return origins[prefix]
    return next((origin for known, origin in origins.items() if known.startswith(f"{key}.")), "")
