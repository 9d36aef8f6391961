"""A restore point of PostgreSQL by the log beside one by copy: the same data in one container, on a disk."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from holdfast.drivers.databases.postgresql.driver import PostgresqlDatabase
from holdfast.model import Facts, Server
from holdfast.system.host import Host
from tests.bench.bench import Row
from tests.servers import docker
from tests.servers.postgresql import SUPERUSER, OwnContainerPostgresqlServer

_DIGEST = "SELECT sum(hashtext(entry::text)), count(*) FROM entry"
_FIVE_PERCENT = "UPDATE entry SET text = reverse(text) WHERE id % 20 = 0"
_MIGRATION = ("UPDATE entry SET text = upper(text) WHERE kind < 50", "ALTER TABLE entry DROP COLUMN kind")


def timed(action: Callable[[], object]) -> float:
    os.sync()
    began = time.monotonic()
    action()
    return time.monotonic() - began


class _Measured:
    """One way, with its own fresh data: before the window, the window's part, going back."""

    def __init__(self, server: OwnContainerPostgresqlServer, rows: int, way: Literal["copy", "log"]) -> None:
        self.server = server
        server.create_if_missing("app")
        self.sql(
            "CREATE TABLE entry (id BIGINT PRIMARY KEY, kind INTEGER, text TEXT); INSERT INTO entry SELECT i, i % 97,"
            f" md5(i::text) || md5((i * 7)::text) || md5((i * 13)::text) FROM generate_series(1, {rows}) i; CREATE"
            " INDEX ON entry (kind)"
        )
        self.sql("VACUUM ANALYZE")
        self.sql("CHECKPOINT")
        reached = Server(host=str(server.place), port=server.port, user=SUPERUSER, container=server.container)
        operation = f"20260101-000000-bench-{way}"
        host = Host(operation=operation, warn=_fail)
        database = PostgresqlDatabase("main", "app", reached, host, restore_point=way)
        ahead: list[Facts] = []
        with ThreadPoolExecutor(1) as visitors:
            written = visitors.submit(self.sql, _FIVE_PERCENT)
            self.before = timed(lambda: ahead.append(database.copy_ahead(operation)))
            written.result()
        point: list[str] = []
        self.window = timed(lambda: point.append(database.prepare(operation, None, ahead[0])))
        digest = self.sql(_DIGEST)
        for statement in _MIGRATION:
            self.sql(statement)
        self.back = timed(lambda: database.swap(operation, point[0], f"{operation}.failed"))
        assert self.sql(_DIGEST) == digest, "the data are not those of the point"
        database.discard(operation)
        host.let_go()
        server.run("postgres", "DROP DATABASE app WITH (FORCE)")

    def sql(self, statement: str) -> str:
        return self.server.run("app", statement)


def _fail(text: str) -> None:
    raise AssertionError(f"the other way was taken: {text}")


def rows(title: str, rows_of_data: int, folder: Path | None, say: Callable[[str], None]) -> list[Row]:
    """Return what both ways cost; nothing where no engine can run."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        return []
    say(f"{title}: restore points by the log and by copy, in a container")
    docker.engine()
    made = Path(tempfile.mkdtemp(prefix="holdfast-bench", dir=folder))
    made.chmod(0o755)
    server = OwnContainerPostgresqlServer(
        made / "server", shared_buffers="512MB", max_wal_size="8GB", checkpoint_timeout="1h"
    )
    try:
        copy, log = (_Measured(server, rows_of_data, way) for way in ("copy", "log"))
    finally:
        server.remove()
        shutil.rmtree(made, ignore_errors=True)
    return [
        Row(
            f"{title}, in a container: the window's part by the log, 5 % of the rows written meanwhile",
            f"{log.window:.2f} s",
            f"by copy {copy.window:.2f} s",
            log.window / copy.window,
        ),
        Row(
            f"{title}, in a container: before the window, the base backup",
            f"{log.before:.2f} s",
            f"the checkpoint {copy.before:.2f} s",
        ),
        Row(
            f"{title}, in a container: going back by the log, after a migration that rewrote half the rows",
            f"{log.back:.2f} s",
            f"by copy {copy.back:.2f} s",
        ),
    ]
