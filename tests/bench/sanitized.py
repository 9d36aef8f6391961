"""A sanitized dump beside a plain dump of the same data with the same compression, and beside another tool, in one run.

`python -m tests.bench.sanitized [--rows N] [--rounds N] [--peer PROGRAM] [--write]`: the last option writes
docs/benchmarks-sanitized.md. The peer is pynonymizer, which restores a dump, updates it and dumps it again.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from holdfast.config.schema import Database as DatabaseSettings
from holdfast.drivers.databases.postgresql.sanitizing import PostgresqlSanitizer
from holdfast.model import Server
from holdfast.sanitize import output, rules
from holdfast.sanitize.deciding import DatabasePlan, decide
from holdfast.system.host import Host
from tests.bench.bench import Row, table
from tests.bench.peers import timed
from tests.servers.postgresql import ROLE, SUPERUSER, PostgresqlServer

COMMAND = "python -m tests.bench.sanitized"
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks-sanitized.md"
_BUDGET = 1.25  # times the dump program's seconds: 0.8 of its speed
_KEY = "0123456789abcdef" * 4
_ROWS = """
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


class Ground:
    def __init__(self, server: PostgresqlServer, rows: int, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.rows = rows
        server.create_if_missing("bench")
        server.run("bench", _ROWS.format(rows=rows), user=ROLE)
        settings = DatabaseSettings(kind="postgresql", name="bench")
        place = Server(host=str(server.folder), port=server.port, user=ROLE)
        self._sanitizer = PostgresqlSanitizer("main", settings, place, Host())

    def plan(self) -> DatabasePlan:
        schema = self._sanitizer.schema()
        found = rules.parse(_RULES, "sanitize.toml", str)
        made = decide(schema, found, self._sanitizer.contents(schema), self._sanitizer.quote)
        assert made.problems == (), made.problems
        return made.plan

    def sanitized(self, jobs: int) -> float:
        """Make a dump as the step does, with the reading of the schema."""
        os.sync()
        began = time.monotonic()
        dump = self._sanitizer.write(self.plan(), _KEY, self.folder, "gz", lambda _: None, jobs)
        output.join(dump.parts, self.folder / "sanitized.sql.gz")
        os.sync()
        return time.monotonic() - began

    def plain(self) -> float:
        return timed(self._dump("--compress=6", f"--file={self.folder}/plain.sql.gz"))

    def _dump(self, *options: str) -> list[str]:
        return [*("pg_dump", "-h", str(self.server.folder), "-p", str(self.server.port), "-U", ROLE), *options, "bench"]

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
            str(self.server.port),
        ]
        argv += ["--db-user", SUPERUSER, "--db-password", "none", "--db-name", "peer", "--strategy", str(strategy)]
        argv += ["--input", f"{self.folder}/plain.sql.gz", "--output", f"{self.folder}/peer.sql.gz"]
        return timed(argv)


def measured(ground: Ground, rounds: int, peer: str | None, say: Callable[[str], None]) -> list[Row]:
    """Return the figures; what is compared alternates."""
    found: dict[str, list[float]] = {"plain": [], "one": [], "two": [], "peer": []}
    for number in range(rounds):
        found["plain"].append(ground.plain())
        found["one"].append(ground.sanitized(1))
        found["two"].append(ground.sanitized(2))
        if peer is not None and number == 0:
            found["peer"].append(ground.peer(peer))
        say(f"round {number + 1}: " + ", ".join(f"{name} {times[-1]:.1f} s" for name, times in found.items() if times))
    middle = {name: statistics.median(times) for name, times in found.items() if times}
    beside = f"pg_dump --compress=6: {middle['plain']:.1f} s"
    rows = [
        Row(f"{what}", f"{middle[name]:.1f} s", beside, middle[name] / middle["plain"], _BUDGET)
        for name, what in (("two", "two sessions (default)"), ("one", "one session"))
    ]
    if "peer" in middle:
        rows.append(
            Row(
                "beside another tool",
                f"{middle['two']:.1f} s",
                f"pynonymizer: {middle['peer']:.1f} s",
                middle["two"] / middle["peer"],
                1.0,
            )
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", help="the program pynonymizer")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="hfbench", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)  # the server runs under an account of its own
        server = PostgresqlServer(Path(folder) / "server")
        server.start()
        try:
            ground = Ground(server, options.rows, Path(folder))
            size = (server.run("bench", "SELECT pg_size_pretty(pg_database_size('bench'))")).strip()
            rows = measured(ground, options.rounds, options.peer, print)
        finally:
            server.remove()
    text = table(f"PostgreSQL, {options.rows:,} users and half as many orders, {size}", rows)
    print(text)
    if options.write:
        version = subprocess.run(["pg_dump", "--version"], capture_output=True, text=True, check=True).stdout.strip()
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        PAGE.write_text(
            "# Sanitized dumps, measured\n\n"
            f"Measured {when} UTC by `{COMMAND} --rows {options.rows} --write`; this page is written by it. Linux"
            f" {platform.release()}, {os.cpu_count()} cores, load {load:.1f} at the start, {version}. The median of"
            f" {options.rounds} rounds that alternate; the other tool once. Five columns of the users are replaced, and"
            " the address of the orders, which stays equal to that of the user only here.\n\n" + text
        )


if __name__ == "__main__":
    main()
