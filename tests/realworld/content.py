"""The content of a site's datasets, so that two moments can be compared."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import sqlite3
import stat
import subprocess
from pathlib import Path

from holdfast.config.load import ResolvedConfig


def of(loaded: ResolvedConfig, volatile: tuple[str, ...], volatile_files: tuple[str, ...]) -> dict[str, str]:
    """Return digests by table and by file; names say what differs."""
    found: dict[str, str] = {}
    for name, database in loaded.configuration.databases.items():
        if database.kind == "sqlite":
            lines = _sqlite(loaded.path(database.path), volatile)
        elif database.kind == "postgresql":
            lines = _postgresql(database.name, database.host, database.user, volatile)
        else:
            lines = _mariadb(database.name, database.host, database.user, volatile)
        for table, content in lines.items():
            found[f"{name}.{table}"] = hashlib.sha256("\n".join(sorted(content)).encode()).hexdigest()
    for name, tree in loaded.configuration.files.items():
        top = loaded.path(tree.path)
        for path in sorted(top.rglob("*")):
            inside = str(path.relative_to(top))
            names = [inside, *path.relative_to(top).parts]
            skipped = any(fnmatch.fnmatch(name, one) for name in names for one in (*volatile_files, *tree.exclude))
            if inside.split("/")[0] == ".holdfast" or skipped:
                continue
            found[f"{name}/{inside}"] = _file(path)
    return found


def _file(path: Path) -> str:
    status = path.lstat()
    about = f"{stat.filemode(status.st_mode)} {status.st_uid} {status.st_gid}"
    if path.is_symlink():
        return f"{about} -> {os.readlink(path)}"
    return f"{about} {hashlib.sha256(path.read_bytes()).hexdigest()}" if path.is_file() else about


def _sqlite(path: Path, volatile: tuple[str, ...]) -> dict[str, list[str]]:
    connection = sqlite3.connect(path)
    connection.text_factory = bytes
    try:
        tables = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
        found = {"schema": [repr(row) for row in connection.execute("SELECT type, name, sql FROM sqlite_master")]}
        for name, _ in tables:
            table = name.decode()
            if table not in volatile and not table.startswith("holdfast"):
                found[table] = [repr(row) for row in connection.execute(f'SELECT * FROM "{table}"')]
        return found
    finally:
        connection.close()


def _postgresql(name: str, host: str, user: str, volatile: tuple[str, ...]) -> dict[str, list[str]]:
    skipped = [f"--exclude-table-data={table}" for table in volatile]
    argv = ["pg_dump", "-h", host, "-U", user, "-d", name, "--column-inserts", *skipped]
    lines = [line for line in _output(argv).splitlines() if not line.startswith(("\\restrict", "\\unrestrict", "--"))]
    return _by_table(lines, "INSERT INTO public.")


def _mariadb(name: str, host: str, user: str, volatile: tuple[str, ...]) -> dict[str, list[str]]:
    options = ["--no-defaults", f"--socket={host}", f"--user={user}", "--skip-comments", "--skip-extended-insert"]
    skipped = [f"--ignore-table-data={name}.{table}" for table in volatile]
    lines = _output(["mariadb-dump", *options, *skipped, name]).splitlines()
    return _by_table(lines, "INSERT INTO `")


def _by_table(lines: list[str], prefix: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"schema": []}
    for line in lines:
        table = line.removeprefix(prefix).split(" ", 1)[0].strip("`") if line.startswith(prefix) else "schema"
        found.setdefault(table, []).append(line)
    return found


def _output(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout
