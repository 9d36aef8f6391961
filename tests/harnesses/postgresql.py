"""PostgreSQL: the application and Holdfast use one role that owns its database, and is no superuser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from holdfast.drivers.databases.postgresql.driver import PostgresqlDatabase
from holdfast.model import Server
from holdfast.system.host import Host
from tests.harnesses.harness import OpenHarness, SqlHarness, WriterHeldError
from tests.servers import postgresql
from tests.servers.postgresql import PostgresqlServer


class PostgresqlHarness(SqlHarness):
    create_table = "CREATE TABLE entry (id SERIAL PRIMARY KEY, text TEXT)"
    holders_go_together = True
    reached: Server
    name: str

    def free_name(self) -> str:
        return f"{self.name}other"


@contextmanager
def opened(
    folder: Path, shared: Callable[[], AbstractContextManager[PostgresqlServer]] = postgresql.shared
) -> Iterator[PostgresqlHarness]:
    with shared() as server, server.own_database() as name:

        def execute(sql: str) -> None:
            server.create_if_missing(name)
            try:
                server.run(name, f"SET lock_timeout = 50; {sql}", user=postgresql.ROLE)
            except postgresql.LockTimeoutError as error:
                raise WriterHeldError(str(error)) from error

        @contextmanager
        def other(name: str) -> Iterator[PostgresqlDatabase]:
            yield PostgresqlDatabase("other", name, reached, Host())

        reached = Server(host=str(server.place), port=server.port, user=postgresql.ROLE, container=server.container)
        database = PostgresqlDatabase("main", name, reached, Host(operation="contract"))
        harness = PostgresqlHarness(database, folder, execute, other=other)
        harness.reached, harness.name = reached, name
        yield harness


ANSWERS_SQL = True
DATASETS: Mapping[str, OpenHarness] = {"postgresql": opened}
