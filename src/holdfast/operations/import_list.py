"""The list of `import list`: dumps that the application's own scripts wrote into the folders of `import_from`."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from holdfast.application.application import App
from holdfast.config.similar import no_such
from holdfast.drivers.interchange import dump_source
from holdfast.errors import DamagedError, HoldfastError, NotFoundError

_ENDINGS = (".sql", ".sql.gz", ".sql.zst", ".dump")
_IN_NAME = re.compile(r"(\d{4})_(\d\d)_(\d\d)T(\d\d)_(\d\d)_(\d\d)")


@dataclass(frozen=True)
class Importable:
    """One dump. `at` is the time in its name, else that of its last change; an empty `state` means no problem."""

    name: str
    path: str
    database: str
    at: str
    size_bytes: int
    format: str
    state: str


def folders(app: App, database: str) -> list[Path]:
    """Return the configured folders of one database."""
    loaded = app.loaded
    return [loaded.path(folder) for folder in loaded.configuration.databases[database].import_from]


def found(app: App, database: str | None = None, *, test: bool = False) -> list[Importable]:
    """Return dumps by time, oldest first. `test`: read each to its end. Raise NotFoundError."""
    known = app.loaded.configuration.databases
    if database is not None and database not in known:
        raise no_such("database", database, known)
    listed = [
        _looked_at(path, name, test)
        for name in ([database] if database is not None else known)
        for folder in folders(app, name)
        if folder.is_dir()
        for path in folder.iterdir()
        if path.name.endswith(_ENDINGS) and path.is_file()
    ]
    return sorted(listed, key=lambda item: (item.at, item.path))


def chosen(app: App, database: str, source: str) -> str:
    """Return the file that a name means: an existing path, else a file of that name in a folder of the database.

    Raise NotFoundError where several folders contain it.
    """
    if "/" in source or Path(source).exists():
        return source
    places = [folder / source for folder in folders(app, database) if (folder / source).exists()]
    if len(places) > 1:
        raise NotFoundError(
            f"several folders contain {source}: {', '.join(map(str, places))}",
            next_step="Give its path with the folder.",
        )
    return str(places[0]) if places else source


def _looked_at(path: Path, database: str, test: bool) -> Importable:
    status = path.stat()
    shape, state = "-", ""
    try:
        with dump_source.opened(str(path)) as dump:
            shape = dump.format
            if test:
                for _ in dump.chunks():
                    pass
    except (HoldfastError, OSError) as error:
        state = "damaged" if isinstance(error, DamagedError) else "cannot be read as a dump"
    return Importable(
        path.name, str(path), database, _time_of(path.name, status.st_mtime), status.st_size, shape, state
    )


def _time_of(name: str, changed_at: float) -> str:
    in_name = _IN_NAME.search(name)
    if in_name is not None:
        year, month, day, hour, minute, second = in_name.groups()
        return f"{year}-{month}-{day} {hour}:{minute}:{second}"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(changed_at))
