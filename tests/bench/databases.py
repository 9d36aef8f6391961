"""`python -m tests.bench.databases`: PostgreSQL backed up, restored and brought back, beside the engine's own tools.

Every tool works on one server of its own with fsync on; what it writes is on the disk when its figure ends. Only
figures of one run may be compared.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from holdfast.drivers.databases.postgresql import PostgresqlDatabase
from holdfast.host import Host
from holdfast.model import Facts, Server
from tests.bench.bench import Row, table
from tests.servers.postgresql import SUPERUSER, PostgresqlServer

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks-databases.md"
OPERATION = "20260101-000000-bench-ab12"
_ROWS_A_GB = 6_000_000
_MEMORY_MB = 200


def timed(action: Callable[[], object]) -> float:
    os.sync()
    began = time.monotonic()
    action()
    os.sync()
    return time.monotonic() - began


class Bench:
    def __init__(self, folder: Path, gigabytes: float, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.title = f"{gigabytes:g} GB"
        self._say = say
        self.server = PostgresqlServer(shared_buffers="512MB", max_wal_size="8GB", checkpoint_timeout="1h")
        self.server.create_if_missing("app")
        say(f"{self.title}: making the database")
        rows = int(gigabytes * _ROWS_A_GB)
        self.server.run(
            "app",
            "CREATE TABLE entry (id BIGINT PRIMARY KEY, kind INTEGER, text TEXT);"
            " INSERT INTO entry SELECT i, i % 97, md5(i::text) || md5((i * 7)::text) || md5((i * 13)::text)"
            f" FROM generate_series(1, {rows}) i; CREATE INDEX ON entry (kind)",
        )
        self.server.run("app", "VACUUM ANALYZE")
        self.server.run("app", "CHECKPOINT")
        self.environment = {"PGHOST": str(self.server.folder), "PGPORT": str(self.server.port), "PGUSER": SUPERUSER}
        reached = Server(host=str(self.server.folder), port=self.server.port, user=SUPERUSER)
        self.database = PostgresqlDatabase("main", "app", reached, Host(operation=OPERATION))

    def tool(self, command: str) -> float:
        """A peer's own command line; the shell is the operator's, who would type it."""
        self._say(f"{self.title}: {command.split()[0]} {' '.join(command.split()[1:4])}")
        return timed(lambda: subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], env={**os.environ, **self.environment}, cwd=self.folder, check=True
        ))  # fmt: skip

    def run(self) -> list[Row]:
        rows = self._backups()
        rows += self._restores()
        rows += self._going_back()
        size = int(self.server.run("postgres", "SELECT pg_database_size('app')"))
        rows.append(Row(f"{self.title}: size of the database", f"{size / 1e9:.2f} GB"))
        return rows

    def _dump(self) -> Facts:
        with self.database.hold(None) as fix:
            taken = fix(self.folder / "holdfast.dump", [], 60)()
        return {**taken.facts, "rows": {name: facts["rows"] for name, facts in taken.tables.items()}}

    def _backups(self) -> list[Row]:
        custom = self.tool("pg_dump -Fc -f custom.dump app")
        facts: list[Facts] = []
        self._say(f"{self.title}: Holdfast, backup")
        ours = timed(lambda: facts.append(self._dump()))
        self.facts = facts[0]
        others = {
            "pg_dump -Fc": custom, "pg_dump -Fd -j2": self.tool("pg_dump -Fd -j2 -f folder app"),
            "pg_dump \\| gzip": self.tool("pg_dump app | gzip > plain.gz"),
        }  # fmt: skip
        return [
            Row(f"{self.title}: backup, rows counted and dump looked at", f"{ours:.2f} s", f"{name} {seconds:.2f} s",
                ours / seconds, 1.1 if name == "pg_dump -Fc" else None)
            for name, seconds in others.items()
        ]  # fmt: skip

    def _restores(self) -> list[Row]:
        self.server.run("postgres", "CREATE DATABASE other")
        theirs = self.tool("pg_restore -j2 -d other custom.dump")
        self.server.run("postgres", "DROP DATABASE other")
        self._say(f"{self.title}: Holdfast, restore")

        def restore() -> None:
            candidate = self.database.prepare(OPERATION, self.folder / "holdfast.dump", self.facts)
            self.database.swap(OPERATION, candidate, f"{OPERATION}.replaced")

        ours = timed(restore)
        self.database.discard(OPERATION)
        self.restore_seconds = theirs
        return [Row(f"{self.title}: restore, rows compared, statistics made, swapped", f"{ours:.2f} s",
                    f"pg_restore -j2 {theirs:.2f} s", ours / theirs)]  # fmt: skip

    def _going_back(self) -> list[Row]:
        self._say(f"{self.title}: Holdfast, restore point and going back")
        point: list[str] = []
        copied = timed(lambda: point.append(self.database.prepare(OPERATION, None, {})))
        digest = self.server.run("app", "SELECT sum(hashtext(entry::text)), count(*) FROM entry")
        self.server.run(
            "app", "UPDATE entry SET text = upper(text) WHERE kind < 50; ALTER TABLE entry DROP COLUMN kind"
        )
        began = time.monotonic()
        self.database.swap(OPERATION, point[0], f"{OPERATION}.failed")
        back = time.monotonic() - began
        assert self.server.run("app", "SELECT sum(hashtext(entry::text)), count(*) FROM entry") == digest
        self.database.discard(OPERATION)
        return [
            Row(f"{self.title}: making the restore point", f"{copied:.2f} s"),
            Row(f"{self.title}: going back from a migration that dropped a column and rewrote half the rows",
                f"{back:.3f} s", "one second", back, 1.0),
            Row(f"{self.title}: going back", f"{back:.3f} s", f"pg_restore -j2 {self.restore_seconds:.2f} s",
                back / self.restore_seconds, 0.1),
        ]  # fmt: skip


def peak_mb() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.databases", description=__doc__)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.1, 1.0, 4.0])
    parser.add_argument("--folder", type=Path, help="where dumps are made and deleted again (default: TMPDIR)")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks-databases.md")
    options = parser.parse_args()
    tables = []
    for gigabytes in options.gigabytes:
        folder = Path(tempfile.mkdtemp(prefix="holdfast-bench", dir=options.folder))
        bench = Bench(folder, gigabytes, lambda text: print(text, file=sys.stderr, flush=True))
        try:
            tables.append(table(bench.title, bench.run()))
        finally:
            bench.server.remove()
            shutil.rmtree(folder)
    peak = peak_mb()
    tables.append(table("Memory", [Row("Holdfast, all of the above in one process", f"{peak:.0f} MB", "", peak / _MEMORY_MB,
                                       1.0, f"at most {_MEMORY_MB} MB")]))  # fmt: skip
    version = subprocess.run(["pg_dump", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    command = " ".join(["python -m tests.bench.databases", *sys.argv[1:]])
    text = "\n\n".join(
        [
            "# Benchmarks of databases",
            f"Measured {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC by `{command}`; this page is written by it.",
            f"{version}; Linux {platform.release()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the end.",
            "A ratio is Holdfast's figure divided by the other's; below 1 is faster.",
            *tables,
        ]
    )
    print(text)
    if options.write:
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
