"""PostgreSQL: the application and Holdfast use one role that owns its database, and is no superuser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from holdfast.config.schema import RestorePoint
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


class LogHarness(PostgresqlHarness):
    """One whose restore points are begun ahead, so that they are made by the log."""

    def prepare(self, token: str, dump: Path | None) -> str:
        if dump is not None:
            return super().prepare(token, dump)
        point = self.dataset.prepare(token, None, self.dataset.copy_ahead(token))
        assert "holdfast-" in point
        return point


@contextmanager
def opened(
    folder: Path,
    shared: Callable[[], AbstractContextManager[PostgresqlServer]] = postgresql.shared,
    *,
    user: str = postgresql.ROLE,
    restore_point: RestorePoint = "copy",
    made: type[PostgresqlHarness] = PostgresqlHarness,
) -> Iterator[PostgresqlHarness]:
    with shared() as server, server.own_database() as name:

        def execute(sql: str) -> None:
            server.create_if_missing(name)
            try:
                server.run(name, f"SET lock_timeout = 50; {sql}", user=user)
            except postgresql.LockTimeoutError as error:
                raise WriterHeldError(str(error)) from error

        @contextmanager
        def other(name: str) -> Iterator[PostgresqlDatabase]:
            yield PostgresqlDatabase("other", name, reached, Host())

        reached = Server(host=str(server.place), port=server.port, user=user, container=server.container)
        database = PostgresqlDatabase("main", name, reached, Host(operation="contract"), restore_point=restore_point)
        harness = made(database, folder, execute, other=other)
        harness.reached, harness.name = reached, name
        yield harness


@contextmanager
def opened_with_log(folder: Path) -> Iterator[PostgresqlHarness]:
    """Open one whose restore points are made by its log: the role is a superuser, the server in a container."""
    with opened(
        folder,
        postgresql.shared_own_container,
        user=postgresql.SUPERUSER,
        restore_point="log",
        made=LogHarness,
    ) as harness:
        try:
            yield harness
        finally:
            harness.database._host.let_go()  # type: ignore[attr-defined]  # sessions that wait for their next use
            with postgresql.shared_own_container() as server:
                server.tidy()


ANSWERS_SQL = True
DATASETS: Mapping[str, OpenHarness] = {"postgresql": opened}
