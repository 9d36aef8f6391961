"""Where a site keeps its rows: told to Holdfast and the application, looked at, saved and put back."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import secrets
import sqlite3
import subprocess
import tarfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from holdfast.config.schema import Database
from tests.servers import mariadb, mysql, postgresql
from tests.servers.mariadb import MariadbServer
from tests.servers.mysql import MysqlServer

APPLICATIONS = Path(__file__).parent / "applications" / "guestbook"


_ENTRIES = "SELECT id, text FROM entries"


def _numbered(lines: str) -> list[tuple[int, str]]:
    return [(int(number), text) for number, _, text in (line.partition("\t") for line in lines.splitlines())]


class Store(Protocol):
    """`lines` and `environment` go into holdfast.toml, `module` into the application."""

    lines: str
    environment: str
    module: Path | None

    def digest(self) -> str:
        """Of every row of every table, and of its columns."""

    def execute(self, sql: str) -> object:
        """Run a statement, as the application does."""

    def entries(self) -> list[tuple[int, str]]:
        """Return what the guestbook has, by number; nothing before it is installed."""

    def dump(self, target: Path) -> None:
        """A dump by the engine's own tool."""

    def save(self, label: str) -> None:
        """Keep the rows as they are, for `put_back` by the same label."""

    def put_back(self, label: str) -> None: ...

    def remove(self) -> None: ...


class SqliteStore:
    """One file, which lies in the site's folder and is saved with it."""

    lines = 'kind = "sqlite"\npath = "shared/guestbook.sqlite3"'
    environment = ""
    module: Path | None = None

    def __init__(self, path: Path) -> None:
        self.path = path

    def digest(self) -> str:
        if not self.path.exists():
            return ""
        digest = hashlib.sha256()
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            for line in connection.iterdump():
                digest.update(line.encode())
        return digest.hexdigest()

    def execute(self, sql: str) -> None:
        with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(sql)

    def entries(self) -> list[tuple[int, str]]:
        if not self.path.exists():
            return []
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return [(number, text) for number, text in connection.execute(_ENTRIES)]

    def dump(self, target: Path) -> None:
        """As `.backup` of SQLite's own shell does, which not every machine has."""
        with (
            contextlib.closing(sqlite3.connect(self.path)) as source,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)

    def save(self, label: str) -> None:
        pass

    def put_back(self, label: str) -> None:
        pass

    def remove(self) -> None:
        pass


DIGEST_OF_POSTGRESQL = """
SELECT coalesce(string_agg(line, E'\\n' ORDER BY line), '') FROM (
  SELECT table_schema || '.' || table_name || ' ' || md5(query_to_xml(
    format('SELECT * FROM %I.%I ORDER BY 1', table_schema, table_name), true, false, '')::text) AS line
  FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema')
  UNION ALL SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || coalesce(column_default, '')
  FROM information_schema.columns WHERE table_schema NOT IN ('pg_catalog', 'information_schema')
  UNION ALL SELECT sequencename || ' ' || coalesce(last_value, 0) FROM pg_sequences) lines
"""


class PostgresqlStore:
    """A database of the shared server, owned by a role that is no superuser."""

    module: Path | None = APPLICATIONS / "postgresql.py"

    def __init__(self, folder: str, name: str) -> None:
        self._folder = folder
        self.name = name
        self.lines = f'kind = "postgresql"\nname = "{name}"\nhost = "{folder}"\nuser = "{postgresql.ROLE}"'
        self.environment = f'DATABASE_URL = "{self.dsn}"'

    @property
    def place(self) -> dict[str, str]:
        return {"NAME": self.name, "HOST": self._folder, "USER": postgresql.ROLE}

    @property
    def dsn(self) -> str:
        return f"host={self._folder} dbname={self.name} user={postgresql.ROLE}"

    def execute(self, sql: str) -> str:
        """As the application, which owns what it makes."""
        return postgresql.psql(self._folder, self.name, sql, postgresql.ROLE)

    def entries(self) -> list[tuple[int, str]]:
        known = self.execute("SELECT to_regclass('entries') IS NOT NULL") == "t"
        return _numbered(self.execute(f"COPY ({_ENTRIES}) TO STDOUT")) if known else []

    @classmethod
    def create(cls) -> PostgresqlStore:
        with postgresql.shared() as server:
            name = f"g{os.getpid()}x{secrets.token_hex(3)}"
            server.create_if_missing(name)
            return cls(str(server.folder), name)

    def digest(self) -> str:
        text = postgresql.psql(self._folder, self.name, DIGEST_OF_POSTGRESQL)
        return hashlib.sha256(text.encode()).hexdigest()

    def dump(self, target: Path) -> None:
        arguments = [
            "pg_dump",
            "-h",
            self._folder,
            "-p",
            str(postgresql.PostgresqlServer.port),
            "-U",
            "postgres",
            "-Fc",
        ]
        target.write_bytes(
            gzip.compress(subprocess.run([*arguments, self.name], capture_output=True, check=True).stdout)
        )

    def cold(self, target: Path, *, running: bool = False) -> None:
        """Return a tar of the data directory of another server with these rows, shut down before or `running`."""
        server = postgresql.PostgresqlServer()
        try:
            server.create_if_missing(self.name)
            arguments = ["-h", self._folder, "-p", str(server.port), "-U", "postgres"]
            text = subprocess.run(["pg_dump", *arguments, self.name], capture_output=True, check=True).stdout
            arguments = [
                "-X",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                str(server.folder),
                "-p",
                str(server.port),
                "-U",
                "postgres",
            ]
            subprocess.run(["psql", *arguments, "-d", self.name], input=text, stdout=subprocess.DEVNULL, check=True)
            if not running:
                server.stop()
            with tarfile.open(target, "w:gz", compresslevel=1) as archive:
                archive.add(server.folder / "data", "./database")
        finally:
            server.remove()

    def _beside(self) -> list[str]:
        """Databases of Holdfast's beside this one: the names carry its digest."""
        prefix = f"hf-{hashlib.sha256(self.name.encode()).hexdigest()[:6]}-"
        names = postgresql.psql(self._folder, "postgres", "SELECT datname FROM pg_database").split("\n")
        return [name for name in names if name.startswith(prefix)]

    def _drop(self, *names: str) -> None:
        for name in names:
            postgresql.psql(self._folder, "postgres", f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _copy(self, source: str, target: str) -> None:
        self._drop(target)
        postgresql.psql(
            self._folder,
            "postgres",
            f'CREATE DATABASE "{target}" TEMPLATE "{source}" OWNER {postgresql.ROLE} STRATEGY FILE_COPY',
        )

    def save(self, label: str) -> None:
        self._copy(self.name, f"{self.name}{label}")

    def put_back(self, label: str) -> None:
        self._drop(*self._beside())
        self._copy(f"{self.name}{label}", self.name)

    def remove(self) -> None:
        names = postgresql.psql(self._folder, "postgres", "SELECT datname FROM pg_database").split("\n")
        self._drop(*(name for name in names if name.startswith(self.name)), *self._beside())


class MariadbStore:
    """A database of the shared server, whose account has every right on it and no other."""

    module: Path | None = APPLICATIONS / "mariadb.py"
    kind = "mariadb"
    server: type[MariadbServer] = MariadbServer
    dump_options: tuple[str, ...] = ()

    @staticmethod
    def shared() -> AbstractContextManager[MariadbServer]:
        return mariadb.shared()

    def __init__(self, socket: str, name: str) -> None:
        self._socket = socket
        self.name = name
        self.lines = f'kind = "{self.kind}"\nname = "{name}"\nhost = "{socket}"\nuser = "{mariadb.USER}"'
        self.environment = f'DATABASE_URL = "{self.dsn}"'

    @property
    def place(self) -> dict[str, str]:
        return {"NAME": self.name, "HOST": self._socket, "USER": mariadb.USER}

    @property
    def dsn(self) -> str:
        return f"socket={self._socket} dbname={self.name} user={mariadb.USER}"

    def execute(self, sql: str) -> str:
        """As the application."""
        return self._run(self.name, sql, mariadb.USER)

    def entries(self) -> list[tuple[int, str]]:
        return _numbered(self.execute(_ENTRIES)) if self.execute("SHOW TABLES LIKE 'entries'") else []

    def _run(self, database: str, sql: str, user: str = mariadb.ADMINISTRATOR) -> str:
        return mariadb.mariadb(self._socket, database, sql, user, self.server.client)

    @classmethod
    def create(cls) -> MariadbStore:
        with cls.shared() as server:
            name = f"g{os.getpid()}x{secrets.token_hex(3)}"
            server.create_if_missing(name)
            return cls(server.socket, name)

    def _dumped(self, *arguments: str) -> bytes:
        argv = [
            self.server.dumper,
            "--no-defaults",
            f"--socket={self._socket}",
            "--user=root",
            "--routines",
            "--events",
            *self.dump_options,
            *arguments,
            self.name,
        ]
        return subprocess.run(argv, capture_output=True, check=True).stdout

    def digest(self) -> str:
        return hashlib.sha256(self._dumped("--skip-comments", "--order-by-primary")).hexdigest()

    def dump(self, target: Path) -> None:
        target.write_bytes(gzip.compress(self._dumped("--single-transaction")))

    def _beside(self) -> list[str]:
        """Databases of Holdfast's beside this one: the names carry its digest."""
        prefix = f"hf-{hashlib.sha256(self.name.encode()).hexdigest()[:6]}"
        names = self._run("", "SELECT schema_name FROM information_schema.schemata").split("\n")
        return [name for name in names if name.startswith(prefix)]

    def _drop(self, *names: str) -> None:
        for name in names:
            self._run("", f"DROP DATABASE IF EXISTS `{name}`")

    def _saved(self, label: str) -> Path:
        return Path(self._socket).parent / f"{self.name}.{label}.sql"

    def save(self, label: str) -> None:
        self._saved(label).write_bytes(self._dumped())

    def put_back(self, label: str) -> None:
        self._drop(self.name, *self._beside())
        self._run("", f"CREATE DATABASE `{self.name}` CHARACTER SET utf8mb4")
        self._run(self.name, self._saved(label).read_text())

    def remove(self) -> None:
        self._drop(self.name, *self._beside())
        for path in Path(self._socket).parent.glob(f"{self.name}.*.sql"):
            path.unlink()


class EnclosedPostgresqlStore(PostgresqlStore):
    """In a container; the application reaches it through a socket in a folder that both see, Holdfast inside alone."""

    def __init__(self, folder: str, name: str) -> None:
        super().__init__(folder, name)
        with postgresql.shared_enclosed() as server:
            self.lines = self.lines.replace(folder, str(server.place)) + f'\ncontainer = "{server.container}"'

    @classmethod
    def create(cls) -> EnclosedPostgresqlStore:
        with postgresql.shared_enclosed() as server:
            name = f"g{os.getpid()}x{secrets.token_hex(3)}"
            server.create_if_missing(name)
            return cls(str(server.folder), name)


class LogPostgresqlStore(EnclosedPostgresqlStore):
    """The only database of a server in a container that Holdfast may stop; the application's role is its superuser."""

    def __init__(self, folder: str, name: str) -> None:
        PostgresqlStore.__init__(self, folder, name)
        with postgresql.shared_own_container() as server:
            place, container = str(server.place), server.container
        lines = self.lines.replace(folder, place).replace(f'"{postgresql.ROLE}"', f'"{postgresql.SUPERUSER}"')
        self.lines = f'{lines}\ncontainer = "{container}"\nrestore_point = "log"'

    @classmethod
    def create(cls) -> LogPostgresqlStore:
        with postgresql.shared_own_container() as server:
            name = f"g{os.getpid()}x{secrets.token_hex(3)}"
            server.create_if_missing(name)
            return cls(str(server.folder), name)

    def _saved(self, label: str) -> Path:
        return Path(self._folder) / f"{self.name}.{label}.dump"

    def save(self, label: str) -> None:
        arguments = ["-h", self._folder, "-p", str(postgresql.PostgresqlServer.port), "-U", "postgres", "-Fc"]
        self._saved(label).write_bytes(
            subprocess.run(["pg_dump", *arguments, self.name], capture_output=True, check=True).stdout
        )

    def put_back(self, label: str) -> None:
        with postgresql.shared_own_container() as server:
            server.start()
            server.tidy()
        self._drop(self.name, *self._beside())
        psql = ["-h", self._folder, "-p", str(postgresql.PostgresqlServer.port), "-U", "postgres"]
        postgresql.psql(self._folder, "postgres", f'CREATE DATABASE "{self.name}" OWNER {postgresql.ROLE}')
        with open(self._saved(label), "rb") as saved:
            subprocess.run(["pg_restore", *psql, "-d", self.name], stdin=saved, capture_output=True, check=True)

    def remove(self) -> None:
        with postgresql.shared_own_container() as server:
            server.start()
            server.tidy()
        super().remove()
        for path in Path(self._folder).glob(f"{self.name}.*.dump"):
            path.unlink()


class EnclosedMariadbStore(MariadbStore):
    @staticmethod
    def shared() -> AbstractContextManager[MariadbServer]:
        return mariadb.shared_enclosed()

    def __init__(self, socket: str, name: str) -> None:
        super().__init__(socket, name)
        with mariadb.shared_enclosed() as server:
            place = str(server.place / "socket")
            self.lines = self.lines.replace(socket, place) + f'\ncontainer = "{server.container}"'


class MysqlStore(MariadbStore):
    kind = "mysql"
    server = MysqlServer
    dump_options = ("--set-gtid-purged=OFF",)

    @staticmethod
    def shared() -> AbstractContextManager[MariadbServer]:
        return mysql.shared()


_SERVED: dict[str, type[PostgresqlStore] | type[MariadbStore]] = {
    "postgresql": PostgresqlStore,
    "mariadb": MariadbStore,
    "mysql": MysqlStore,
    "postgresql-inside": EnclosedPostgresqlStore,
    "postgresql-log-inside": LogPostgresqlStore,
    "mariadb-inside": EnclosedMariadbStore,
}


def create(engine: str, sqlite_path: Path) -> Store:
    return SqliteStore(sqlite_path) if engine == "sqlite" else _SERVED[engine].create()


def existing(configured: Database, environment: Mapping[str, str], sqlite_path: Path) -> Store:
    """The store of a site that was made before, by what its holdfast.toml says."""
    if configured.kind == "sqlite":
        return SqliteStore(sqlite_path)
    # Where the application finds it is where tests do, also when Holdfast looks from inside a container.
    place = environment["DATABASE_URL"].split()[0].partition("=")[2]
    return _SERVED[configured.kind](place, configured.name)
