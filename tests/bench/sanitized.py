"""A sanitized dump beside a plain dump of the same data with the same compression, and beside another tool, in one run.

`python -m tests.bench.sanitized [--engine NAME]... [--rows N] [--rounds N] [--peer PROGRAM] [--write]`: the last option
writes docs/benchmarks-sanitized.md. The peer is pynonymizer, which restores a dump of PostgreSQL, updates it and dumps
it again; it has a table of its own, with fewer rows, because its first UPDATE of 2,000,000 takes more than ten minutes.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import statistics
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path

from holdfast.config.schema import Database as DatabaseSettings
from holdfast.drivers.databases.mariadb.driver import MARIADB
from holdfast.drivers.databases.mariadb.mysql import MYSQL
from holdfast.drivers.databases.mariadb.sanitizing import MariadbSanitizer
from holdfast.drivers.databases.postgresql.sanitizing import PostgresqlSanitizer
from holdfast.drivers.protocols.sanitizing import Sanitizer
from holdfast.model import Server
from holdfast.sanitize import output, rules
from holdfast.sanitize.deciding import DatabasePlan, decide
from holdfast.system.host import Host
from tests.bench.bench import Row, table
from tests.bench.peers import timed
from tests.servers.mariadb import ADMINISTRATOR, USER, MariadbServer
from tests.servers.mysql import MysqlServer
from tests.servers.postgresql import ROLE, SUPERUSER, PostgresqlServer

COMMAND = "python -m tests.bench.sanitized"
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks-sanitized.md"
_BUDGET = 1.25  # times the dump program's seconds: 0.8 of its speed
_KEY = "0123456789abcdef" * 4
_POSTGRESQL = """
CREATE TABLE users (id bigint PRIMARY KEY, email text UNIQUE, first_name text, last_name text, phone text,
  notes text, created timestamptz, plan text, amount numeric);
INSERT INTO users SELECT i, 'person' || i || '@company' || i % 1000 || '.example', 'First' || i % 5000,
  'Last' || i % 9000, '+49 30 ' || lpad((i::bigint * 7919 % 100000000)::text, 8, '0'), repeat(md5(i::text) || ' ', 4),
  now() - i * interval '1 s',
  (ARRAY['free', 'paid', 'trial'])[1 + i % 3], i % 10000 / 100.0 FROM generate_series(1, {rows}) i;
CREATE TABLE orders (id bigint PRIMARY KEY, buyer text, product text, amount numeric);
INSERT INTO orders SELECT i, 'person' || i || '@company' || i % 1000 || '.example', 'product ' || i % 700, i % 999
  FROM generate_series(1, {rows}, 2) i;
ANALYZE;
"""
_MARIADB = """
CREATE TABLE digits (d INT); INSERT INTO digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9);
CREATE VIEW numbers AS SELECT 1 + a.d + 10*b.d + 100*c.d + 1000*d.d + 10000*e.d + 100000*f.d + 1000000*g.d AS i
  FROM digits a, digits b, digits c, digits d, digits e, digits f, digits g;
CREATE TABLE users (id BIGINT PRIMARY KEY, email VARCHAR(200) UNIQUE, first_name VARCHAR(100), last_name VARCHAR(100),
  phone VARCHAR(40), notes TEXT, created DATETIME, plan VARCHAR(20), amount DECIMAL(10, 2)) CHARACTER SET utf8mb4;
INSERT INTO users SELECT i, CONCAT('person', i, '@company', i % 1000, '.example'), CONCAT('First', i % 5000),
  CONCAT('Last', i % 9000), CONCAT('+49 30 ', LPAD(i * 7919 % 100000000, 8, '0')),
  REPEAT(CONCAT(LEFT(SHA2(i, 256), 32), ' '), 4), NOW() - INTERVAL i SECOND,
  ELT(1 + i % 3, 'free', 'paid', 'trial'), i % 10000 / 100 FROM numbers WHERE i <= {rows};
CREATE TABLE orders (id BIGINT PRIMARY KEY, buyer VARCHAR(200), product VARCHAR(100), amount DECIMAL(10, 2))
  CHARACTER SET utf8mb4;
INSERT INTO orders SELECT i, CONCAT('person', i, '@company', i % 1000, '.example'), CONCAT('product ', i % 700), i % 999
  FROM numbers WHERE i <= {rows} AND i % 2 = 1;
DROP VIEW numbers; DROP TABLE digits; ANALYZE TABLE users, orders;
"""
_RULES = """
[tables.users.columns]
email = "email"
first_name = "first_name"
last_name = "last_name"
phone = "phone"
notes = "text"
plan = { keep = "no person" }
[tables.orders.columns]
buyer = "email"
product = { keep = "no person" }
"""
_STRATEGY = """
tables:
  users:
    columns:
      email: unique_email
      first_name: first_name
      last_name: last_name
      phone: {type: fake_update, fake_type: phone_number}
      notes: {type: literal, value: "'This text takes the place of another one.'"}
  orders:
    columns:
      buyer: unique_email
"""


class Ground(ABC):
    """Two tables in a server of the bench's own."""

    tool: str
    product: str
    jobs: tuple[int, ...] = (1,)
    """The default first."""
    dumper: str
    sanitizer: Sanitizer
    server: PostgresqlServer | MariadbServer

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def size(self) -> str: ...

    @abstractmethod
    def plain(self) -> float:
        """Return the seconds of a dump by the engine's own program."""

    def plan(self) -> DatabasePlan:
        schema = self.sanitizer.schema()
        found = rules.parse(_RULES, "sanitize.toml", str)
        made = decide(schema, found, self.sanitizer.contents(schema), self.sanitizer.quote)
        assert made.problems == (), made.problems
        return made.plan

    def sanitized(self, jobs: int) -> float:
        """Make a dump as the step does, with the reading of the schema."""
        os.sync()
        began = time.monotonic()
        dump = self.sanitizer.write(self.plan(), _KEY, self.folder, "gz", lambda _: None, jobs)
        output.join(dump.parts, self.folder / "sanitized.sql.gz")
        os.sync()
        return time.monotonic() - began


class PostgresqlGround(Ground):
    tool = "pg_dump --compress=6"
    product = "PostgreSQL"
    jobs = (2, 1)
    dumper = "pg_dump"

    def __init__(self, rows: int, folder: Path) -> None:
        super().__init__(folder)
        self.server = PostgresqlServer(folder / "server")
        self.server.create_if_missing("bench")
        self.server.run("bench", _POSTGRESQL.format(rows=rows), user=ROLE)
        place = Server(host=str(self.server.folder), port=self.server.port, user=ROLE)
        settings = DatabaseSettings(kind="postgresql", name="bench")
        self.sanitizer = PostgresqlSanitizer("main", settings, place, Host())

    def size(self) -> str:
        return self.server.run("bench", "SELECT pg_size_pretty(pg_database_size('bench'))").strip()

    def plain(self) -> float:
        place = ["-h", str(self.server.folder), "-p", str(PostgresqlServer.port), "-U", ROLE]
        return timed(["pg_dump", *place, "--compress=6", f"--file={self.folder}/plain.sql.gz", "bench"])

    def peer(self, program: str) -> float:
        """Restore the plain dump, replace values there, and dump again, as that tool does."""
        strategy = self.folder / "strategy.yml"
        strategy.write_text(_STRATEGY)
        argv = [
            program,
            "--db-type",
            "postgres",
            "--db-host",
            str(self.server.folder),
            "--db-port",
            str(PostgresqlServer.port),
        ]
        argv += ["--db-user", SUPERUSER, "--db-password", "none", "--db-name", "peer", "--strategy", str(strategy)]
        argv += ["--input", f"{self.folder}/plain.sql.gz", "--output", f"{self.folder}/peer.sql.gz"]
        return timed(argv)


class MariadbGround(Ground):
    tool = "mariadb-dump with gzip -6"
    product = "MariaDB"
    server_class = MariadbServer
    dialect = MARIADB

    def __init__(self, rows: int, folder: Path) -> None:
        super().__init__(folder)
        self.dumper = self.server_class.dumper
        self.server = self.server_class(folder / "server", **{"innodb-buffer-pool-size": "1G"})
        self.server.create_if_missing("bench")
        self.server.run("bench", _MARIADB.format(rows=rows), user=USER)
        place = Server(host=self.server.socket, user=USER)
        self.sanitizer = MariadbSanitizer("main", "bench", place, Host(), self.dialect)

    def size(self) -> str:
        asked = "SELECT ROUND(SUM(data_length + index_length) / 1e6) FROM information_schema.tables"
        return self.server.run("bench", f"{asked} WHERE table_schema = 'bench'").strip() + " MB"

    def plain(self) -> float:
        place = ["--no-defaults", f"--socket={self.server.place}/socket", f"--user={ADMINISTRATOR}"]
        dump = shlex.join([self.dumper, *place, "--single-transaction", "--no-tablespaces", "bench"])
        return timed(["bash", "-o", "pipefail", "-c", f"{dump} | gzip -6 > {self.folder}/plain.sql.gz"])


class MysqlGround(MariadbGround):
    tool = "mysqldump with gzip -6"
    product = "MySQL"
    server_class = MysqlServer
    dialect = MYSQL


_GROUNDS: dict[str, Callable[[int, Path], Ground]] = {
    "postgresql": PostgresqlGround,
    "mariadb": MariadbGround,
    "mysql": MysqlGround,
}


def _version(program: str) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def measured(ground: Ground, rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Return the figures; what is compared alternates."""
    found: dict[str, list[float]] = {}
    for number in range(1, rounds + 1):
        found.setdefault("plain", []).append(ground.plain())
        for jobs in ground.jobs:
            found.setdefault(f"jobs {jobs}", []).append(ground.sanitized(jobs))
        figures = ", ".join(f"{name} {times[-1]:.1f} s" for name, times in found.items())
        say(f"{ground.product}, round {number}: {figures}")
    middle = {name: statistics.median(times) for name, times in found.items()}
    beside = f"{ground.tool}: {middle['plain']:.1f} s"
    return [
        Row(
            "default" if jobs == ground.jobs[0] else f"sanitize.jobs = {jobs}",
            f"{middle[f'jobs {jobs}']:.1f} s",
            beside,
            middle[f"jobs {jobs}"] / middle["plain"],
            _BUDGET,
        )
        for jobs in ground.jobs
    ]


def measured_beside(ground: Ground, program: str) -> list[Row]:
    assert isinstance(ground, PostgresqlGround)
    ground.plain()
    ours, theirs = ground.sanitized(ground.jobs[0]), ground.peer(program)
    return [Row("beside another tool", f"{ours:.1f} s", f"pynonymizer: {theirs:.1f} s", ours / theirs, 1.0)]


def section(engine: str, rows: int, measure: Callable[[Ground], list[Row]], versions: list[str]) -> str:
    """Return the table of one engine; its version is added to those known."""
    with tempfile.TemporaryDirectory(prefix="hfbench", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)  # the server runs under an account of its own
        ground = _GROUNDS[engine](rows, Path(folder))
        try:
            title = f"{ground.product}, {rows:,} users and half as many orders, {ground.size()}"
            if (version := _version(ground.dumper)) not in versions:
                versions.append(version)
            text = table(title, measure(ground))
        finally:
            ground.server.remove()
    print(text, flush=True)
    return text


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", action="append", choices=sorted(_GROUNDS))
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", help="the program pynonymizer; it takes part with PostgreSQL")
    parser.add_argument("--peer-rows", type=int, default=200_000)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    versions: list[str] = []

    def measure(ground: Ground) -> list[Row]:
        return measured(ground, options.rounds, partial(print, flush=True))

    tables = [
        section(engine, options.rows, measure, versions) for engine in options.engine or ["postgresql", "mariadb"]
    ]
    if options.peer:
        tables.append(
            section("postgresql", options.peer_rows, lambda ground: measured_beside(ground, options.peer), versions)
        )
    if options.write:
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        command = f"{COMMAND} {' '.join(f'--engine {one}' for one in options.engine or ())}".strip()
        PAGE.write_text(
            "# Sanitized dumps, measured\n\n"
            f"Measured {when} UTC by `{command} --rows {options.rows} --write`; this page is written by it. Linux"
            f" {platform.release()}, {os.cpu_count()} cores, load {load:.1f} at the start; {'; '.join(versions)}. The"
            f" median of {options.rounds} rounds that alternate; beside the other tool one. Five columns of the users"
            " are replaced, and the address of the orders, which stays equal to that of the user only here. The plain"
            " dump holds the raw rows. The reading back by which a backup is checked is not part of the figures.\n\n"
            + "\n".join(tables)
        )


if __name__ == "__main__":
    main()
