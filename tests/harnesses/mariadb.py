"""MariaDB and MySQL: the application and Holdfast use one account with every right on its database, and no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from holdfast.drivers.databases.mariadb.driver import MariadbDatabase
from holdfast.drivers.databases.mariadb.mysql import MysqlDatabase
from holdfast.model import Server
from holdfast.system.host import Host
from tests.harnesses.harness import OpenHarness, SqlHarness, WriterHeldError
from tests.servers import mariadb, mysql
from tests.servers.mariadb import MariadbServer


class MariadbHarness(SqlHarness):
    create_table = "CREATE TABLE entry (id INTEGER PRIMARY KEY AUTO_INCREMENT, text TEXT)"
    holders_go_together = True
    fixed_within_seconds = 1.0  # the dump and the answers are two transactions, and writers wait while both begin
    volatile_facts = frozenset({"binlog"})
    reached: Server
    name: str

    def free_name(self) -> str:
        return f"{self.name}other"


@contextmanager
def opened(
    folder: Path,
    shared: Callable[[], AbstractContextManager[MariadbServer]] = mariadb.shared,
    driver: type[MariadbDatabase] = MariadbDatabase,
) -> Iterator[MariadbHarness]:
    with shared() as server, server.own_database() as name:

        def execute(sql: str) -> None:
            server.create_if_missing(name)
            try:
                server.run(name, f"SET sql_mode = 'ANSI_QUOTES', lock_wait_timeout = 0; {sql}", user=mariadb.USER)
            except mariadb.LockTimeoutError as error:
                raise WriterHeldError(str(error)) from error

        @contextmanager
        def other(name: str) -> Iterator[MariadbDatabase]:
            yield driver("other", name, reached, Host())

        reached = Server(host=str(server.place / "socket"), user=mariadb.USER, container=server.container)
        database = driver("main", name, reached, Host(operation="contract"))
        harness = MariadbHarness(database, folder, execute, other=other)
        harness.reached, harness.name = reached, name
        yield harness


ANSWERS_SQL = True
VARIANTS = ("mysql",)
DATASETS: Mapping[str, OpenHarness] = {
    "mariadb": opened,
    "mysql": lambda folder: opened(folder, mysql.shared, MysqlDatabase),
}
