"""`python -m tests.bench.databases`: PostgreSQL and MariaDB backed up, restored and undone, next to the engines' tools.

Every tool works on one server of its own with safe settings; what it writes is on the disk when its figure ends. Only
figures of one run may be compared.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from holdfast.drivers.databases.mariadb.driver import MariadbDatabase
from holdfast.drivers.databases.postgresql.driver import PostgresqlDatabase
from holdfast.drivers.protocols.databases import Database
from holdfast.model import Facts, Server
from holdfast.system.host import Host
from tests.bench import by_log, window
from tests.bench.bench import Row, table
from tests.bench.peers import version
from tests.servers.mariadb import ADMINISTRATOR, MariadbServer
from tests.servers.postgresql import SUPERUSER, PostgresqlServer

DOCS = Path(__file__).parents[2] / "docs"
OPERATION = "20260101-000000-bench-ab12"
_ROWS_A_GB = 6_000_000
_MEMORY_MB = 200
_HOLD_SECONDS = 5.0
_AT_REST_SECONDS = 15.0  # after which MariaDB's driver can know that nobody writes to a table
_TIMES = 3  # Holdfast's backup and the engine's own, in turns: the middle one of each counts


def timed(action: Callable[[], object]) -> float:
    os.sync()
    began = time.monotonic()
    action()
    os.sync()
    return time.monotonic() - began


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


class Bench:
    """One engine at one size; what the engines differ in is below."""

    engine: str
    dump_name: str
    database: Database

    def __init__(self, folder: Path, gigabytes: float, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.title = f"{self.engine}, {gigabytes:g} GB"
        self.environment: dict[str, str] = {}
        self.restored: tuple[str, float] | None = None
        self._say = say
        say(f"{self.title}: making the database")
        self.fill(int(gigabytes * _ROWS_A_GB))

    def fill(self, rows: int) -> None:
        raise NotImplementedError

    def sql(self, statement: str, database: str = "app") -> str:
        raise NotImplementedError

    def dumps(self) -> dict[str, str]:
        """The engine's own ways to dump: what it is called, what is typed; the first is what Holdfast ran too."""
        raise NotImplementedError

    def load(self) -> tuple[str, str]:
        """The engine's own way to load its first dump into a database `other`."""
        raise NotImplementedError

    def hook(self) -> str:
        """What borgmatic has to know of the database."""
        raise NotImplementedError

    def remove(self) -> None:
        raise NotImplementedError

    def tool(self, command: str, timeout_seconds: float = 1800) -> float:
        """A peer's own command line; the shell is the operator's, who would type it."""
        self._say(f"{self.title}: {command.split()[0]} {' '.join(command.split()[1:4])}")
        argv = ["timeout", "--kill-after=5", str(timeout_seconds), "bash", "-o", "pipefail", "-c", command]
        environment = {**os.environ, **self.environment}
        return timed(lambda: subprocess.run(argv, env=environment, cwd=self.folder, check=True, stdout=sys.stderr))

    def run(self, *, points_only: bool = False) -> list[Row]:
        size = Row(f"{self.title}: size of the database", f"{self.database.inspect()['size_bytes'] / 1e9:.2f} GB")
        if points_only:
            return [*self._restore_points(), *self._going_back(), size]
        return [*self._backups(), *self._restores(), *self._restore_points(), *self._going_back(), size]

    def _dump(self) -> Facts:
        with self.database.freeze_writes(_HOLD_SECONDS) as fix:  # as `pause` does, which is the default
            taken = fix(self.folder / "holdfast.dump", [], 60)()
        return {**taken.facts, "rows": {name: facts["rows"] for name, facts in taken.tables.items()}}

    def _borgmatic(self) -> float | None:
        if shutil.which("borgmatic") is None:
            return None
        (self.folder / "nothing").mkdir()
        (self.folder / "borgmatic.yaml").write_text(
            f"location:\n  source_directories: [{self.folder}/nothing]\n  repositories: [{self.folder}/borg]\n"
            f"storage:\n  encryption_passphrase: bench\nhooks:\n{self.hook()}"
        )
        self.environment |= {"BORG_PASSPHRASE": "bench", "BORG_BASE_DIR": str(self.folder / "borg-own")}
        self.tool("borg init --encryption=repokey borg 2> /dev/null")
        try:
            return self.tool("borgmatic create --config borgmatic.yaml --verbosity 2 > borgmatic.log 2>&1", 120)
        except subprocess.CalledProcessError:
            self._say(f"{self.title}: borgmatic did not end; see {self.folder / 'borgmatic.log'}")
            return None

    def _backups(self) -> list[Row]:
        facts: list[Facts] = []
        self.sql(self.digest)  # else the first who reads everything pays for it
        ours, theirs, own = [], [], ""
        for _ in range(_TIMES):
            self._say(f"{self.title}: Holdfast, backup")
            _remove(self.folder / "holdfast.dump")
            ours.append(timed(lambda: facts.append(self._dump())))
            own, command = next(iter(self.dumps().items()))
            for name in ("custom.dump", "folder", "plain.sql"):
                _remove(self.folder / name)
            theirs.append(self.tool(command))
        self.facts = facts[-1]
        others: dict[str, float | None] = {own: statistics.median(theirs)}
        others |= {name: self.tool(command) for name, command in self.dumps().items() if name != own}
        others["borgmatic with borg, first backup"] = self._borgmatic()
        return [
            Row(
                f"{self.title}: backup, rows counted and dump looked at",
                f"{statistics.median(ours):.2f} s",
                f"{name} {seconds:.2f} s",
                statistics.median(ours) / seconds,
                1.1 if name == own else None,
            )
            for name, seconds in others.items()
            if seconds is not None
        ]

    def _restores(self) -> list[Row]:
        self.sql("CREATE DATABASE other")
        name, command = self.load()
        theirs = self.tool(command)
        self.sql("DROP DATABASE other")
        self._say(f"{self.title}: Holdfast, restore")

        def restore() -> None:
            candidate = self.database.prepare(OPERATION, self.folder / "holdfast.dump", self.facts)
            self.database.swap(OPERATION, candidate, f"{OPERATION}.replaced")

        ours = timed(restore)
        self.database.discard(OPERATION)
        self.restored = (name, theirs)
        return [
            Row(
                f"{self.title}: restore, rows compared, swapped",
                f"{ours:.2f} s",
                f"{name} {theirs:.2f} s",
                ours / theirs,
            )
        ]

    def _restore_points(self) -> list[Row]:
        """All of a restore point in the window, and the window's part of one that was begun before."""
        self._say(f"{self.title}: Holdfast, restore points")
        point: list[str] = []

        def make(ahead: Facts) -> float:
            return timed(lambda: point.append(self.database.prepare(OPERATION, None, ahead)))

        self.sql(self.five_percent)
        copied = make({})
        self.database.discard(OPERATION)
        time.sleep(_AT_REST_SECONDS)
        ahead, ahead_seconds = self._ahead()
        at_rest = make(ahead)
        self.database.discard(OPERATION)
        ahead, _ = self._ahead(self.five_percent)
        completed = make(ahead)
        self.point = point[-1]
        whole = f"all of it in the window {copied:.2f} s"
        of_rest = f"nothing written since it was begun {ahead_seconds:.2f} s before"
        return [
            Row(f"{self.title}: making all of the restore point in the window", f"{copied:.2f} s"),
            Row(f"{self.title}: the window's part, {of_rest}", f"{at_rest:.2f} s", whole, at_rest / copied),
            Row(
                f"{self.title}: the window's part, 5 % of the rows written meanwhile",
                f"{completed:.2f} s",
                whole,
                completed / copied,
            ),
        ]

    def _going_back(self) -> list[Row]:
        self._say(f"{self.title}: Holdfast, going back")
        digest = self.sql(self.digest)
        self.sql("UPDATE entry SET text = upper(text) WHERE kind < 50")
        self.sql("ALTER TABLE entry DROP COLUMN kind")
        began = time.monotonic()
        self.database.swap(OPERATION, self.point, f"{OPERATION}.failed")
        back = time.monotonic() - began
        assert self.sql(self.digest) == digest
        self.database.discard(OPERATION)
        rows = [
            Row(
                f"{self.title}: going back from a migration that dropped a column and rewrote half the rows",
                f"{back:.3f} s",
                "one second",
                back,
                1.0,
            )
        ]
        if self.restored is not None:
            name, theirs = self.restored
            beside = f"{name} {theirs:.2f} s"
            rows.append(Row(f"{self.title}: going back", f"{back:.3f} s", beside, back / theirs, 0.1))
        return rows

    def _ahead(self, meanwhile: str = "SELECT 1") -> tuple[Facts, float]:
        """Return what was done ahead while a statement ran, and in which time."""
        found: list[Facts] = []
        with ThreadPoolExecutor(1) as visitors:
            written = visitors.submit(self.sql, meanwhile)
            seconds = timed(lambda: found.append(self.database.copy_ahead(OPERATION)))
            written.result()
        return found[0], seconds

    digest: str
    five_percent = "UPDATE entry SET text = reverse(text) WHERE id % 20 = 0"


class PostgresqlBench(Bench):
    engine = "PostgreSQL"
    digest = "SELECT sum(hashtext(entry::text)), count(*) FROM entry"

    def run(self, *, points_only: bool = False) -> list[Row]:
        found = super().run(points_only=points_only)
        self.server.stop()  # its memory is free then
        return [*found, *by_log.rows(self.title, self.rows, self.folder.parent, self._say)]

    def fill(self, rows: int) -> None:
        self.rows = rows
        self.server = PostgresqlServer(shared_buffers="512MB", max_wal_size="8GB", checkpoint_timeout="1h")
        self.server.create_if_missing("app")
        self.sql(
            "CREATE TABLE entry (id BIGINT PRIMARY KEY, kind INTEGER, text TEXT); INSERT INTO entry SELECT i, i % 97,"
            f" md5(i::text) || md5((i * 7)::text) || md5((i * 13)::text) FROM generate_series(1, {rows}) i; CREATE"
            " INDEX ON entry (kind)",
        )
        self.sql("VACUUM ANALYZE")
        self.sql("CHECKPOINT")
        self.environment = {"PGHOST": str(self.server.folder), "PGPORT": str(self.server.port), "PGUSER": SUPERUSER}
        reached = Server(host=str(self.server.folder), port=self.server.port, user=SUPERUSER)
        self.database = PostgresqlDatabase("main", "app", reached, Host(operation=OPERATION))

    def sql(self, statement: str, database: str = "app") -> str:
        return self.server.run("postgres" if "DATABASE" in statement else database, statement)

    def dumps(self) -> dict[str, str]:
        found = {
            "pg_dump -Fc": "pg_dump -Fc -f custom.dump app",
            "pg_dump -Fd -j2": "pg_dump -Fd -j2 -f folder app",
            "pg_dump \\| gzip": "pg_dump app | gzip > plain.gz",
        }
        own = "pg_dump -Fd -j2" if (self.folder / "holdfast.dump").is_dir() else "pg_dump -Fc"
        return {own: found.pop(own), **found}

    def load(self) -> tuple[str, str]:
        return "pg_restore -j2", "pg_restore -j2 -d other custom.dump"

    def hook(self) -> str:
        # Named by the environment: with a socket's folder as its host this borgmatic waits for ever at its own pipe.
        return "  postgresql_databases:\n    - name: app\n"

    def remove(self) -> None:
        self.server.remove()


class MariadbBench(Bench):
    engine = "MariaDB"
    digest = "CHECKSUM TABLE entry"

    def fill(self, rows: int) -> None:
        self.server = MariadbServer(**{"innodb-buffer-pool-size": "512M", "innodb-log-file-size": "1G"})
        self.server.create_if_missing("app")
        self.sql(
            "CREATE TABLE entry (id BIGINT PRIMARY KEY, kind INTEGER, text TEXT, KEY (kind));"
            " INSERT INTO entry SELECT seq, seq % 97, CONCAT(MD5(seq), MD5(seq * 7), MD5(seq * 13))"
            f" FROM seq_1_to_{rows}; ANALYZE TABLE entry"
        )
        self.place = f"--no-defaults --socket={self.server.socket} --user={ADMINISTRATOR}"
        reached = Server(host=self.server.socket, user=ADMINISTRATOR)
        self.database = MariadbDatabase("main", "app", reached, Host(operation=OPERATION))

    def sql(self, statement: str, database: str = "app") -> str:
        return self.server.run(database, statement)

    def dumps(self) -> dict[str, str]:
        own = f"mariadb-dump {self.place} --single-transaction app"
        return {
            "mariadb-dump": f"{own} > plain.sql",
            "mariadb-dump \\| zstd -1": f"{own} | zstd -q -1 > plain.zst",
            "mariadb-dump \\| gzip": f"{own} | gzip > plain.gz",
        }

    def load(self) -> tuple[str, str]:
        return "mariadb < dump", f"mariadb {self.place} other < plain.sql"

    def hook(self) -> str:
        arguments = f"--socket={self.server.socket}"
        return (
            f"  mysql_databases:\n    - name: app\n      username: {ADMINISTRATOR}\n      options: '{arguments}'\n"
            f"      list_options: '{arguments}'\n"
        )

    def remove(self) -> None:
        self.server.remove()


ENGINES = {"postgresql": PostgresqlBench, "mariadb": MariadbBench}


def peak_mb() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.databases", description=__doc__)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.1, 1.0, 4.0])
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--media", type=float, nargs="*", default=[0.0, 2.0], help="GB beside, for maintenance windows")
    parser.add_argument("--folder", type=Path, help="where dumps are made and deleted again (default: TMPDIR)")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks-ENGINE.md")
    parser.add_argument("--windows-only", action="store_true", help="leave the engine's own tools out")
    parser.add_argument("--restore-points-only", action="store_true", help="leave out backups and restores")
    parser.add_argument("--page", default="", help="what the page's name has besides, as `-4gb`")
    options = parser.parse_args()
    say = partial(print, file=sys.stderr, flush=True)
    for engine in options.engines:
        text = page(engine, measure(engine, options, say))
        print(text)
        if options.write:
            (DOCS / f"benchmarks-{engine}{options.page}.md").write_text(text)


def measure(engine: str, options: argparse.Namespace, say: Callable[[str], None]) -> list[str]:
    tables = []
    for gigabytes in [] if options.windows_only else options.gigabytes:
        folder = Path(tempfile.mkdtemp(prefix="holdfast-bench", dir=options.folder))
        bench = ENGINES[engine](folder, gigabytes, say)
        try:
            tables.append(table(bench.title, bench.run(points_only=options.restore_points_only)))
        finally:
            bench.remove()
            shutil.rmtree(folder)
    for gigabytes in options.gigabytes:
        for media in options.media:
            tables.append(table(*window.measured(engine, gigabytes, media, options.folder, say)))
    peak = peak_mb()
    tables.append(
        table(
            "Memory",
            [
                Row(
                    "Holdfast, all of the above in one process",
                    f"{peak:.0f} MB",
                    "",
                    peak / _MEMORY_MB,
                    1.0,
                    f"at most {_MEMORY_MB} MB",
                )
            ],
        )
    )
    return tables


def page(engine: str, tables: list[str]) -> str:
    programs = ("pg_dump",) if engine == "postgresql" else ("mariadb-dump",)
    versions = "; ".join(found for found in map(version, (*programs, "borg", "borgmatic")) if found)
    command = " ".join(["python -m tests.bench.databases", *sys.argv[1:]])
    return "\n\n".join(
        [
            f"# Benchmarks of {ENGINES[engine].engine}",
            f"Measured {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC by `{command}`; this page is written by"
            " it.",
            f"{versions}; Linux {platform.release()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at"
            " the end.",
            "A ratio is Holdfast's figure divided by the other's; below 1 is faster. A window is what a visitor"
            " meets: from the first answer 503 to the last. Of Holdfast's backups and those by the engine's own tool,"
            f" taken in turns, the middle one of {_TIMES} counts.",
            *tables,
        ]
    )


if __name__ == "__main__":
    main()
