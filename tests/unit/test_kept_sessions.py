"""Sessions that wait for their next use within an operation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from holdfast.drivers.databases.sql.kept_sessions import KeptSessions
from holdfast.drivers.databases.sql.session import Session, SqlError
from holdfast.system.host import Host


class Server:
    """Opens sessions that answer until they are ended."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.opened = 0
        self.answers = True

    @contextmanager
    def session(self, database: str) -> Iterator[Session]:
        self.opened += 1
        self.open.append(database)
        try:
            yield cast(Session, self)
        finally:
            self.open.remove(database)

    def value(self, sql: str) -> str:
        if not self.answers:
            self.answers = True
            raise SqlError("terminating connection due to administrator command", "57P01")
        return "1"


@pytest.fixture
def host() -> Host:
    made = Host()
    made.enter("20260101-000000-upgrade-ab12", Path("/nowhere"))
    return made


def use(sessions: KeptSessions, database: str = "app") -> Any:
    with sessions.session(database) as session:
        return session


def test_one_waits_for_its_next_use_and_is_closed_with_the_operation(host: Host) -> None:
    server = Server()
    sessions = KeptSessions(host, server.session)
    use(sessions)
    use(sessions)
    use(sessions, "postgres")
    assert (server.opened, server.open) == (2, ["app", "postgres"])
    host.leave()
    assert server.open == []


def test_outside_of_an_operation_none_waits() -> None:
    server = Server()
    use(KeptSessions(Host(), server.session))
    assert server.open == []


def test_one_of_an_earlier_operation_is_not_used(host: Host) -> None:
    """Its sessions are marked as that operation's, whose fence would end them."""
    server = Server()
    sessions = KeptSessions(host, server.session)
    use(sessions)
    host.operation = "20260101-000001-backup-cd34"
    use(sessions)
    assert (server.opened, server.open) == (2, ["app"])


def test_one_that_does_not_answer_is_replaced(host: Host) -> None:
    server = Server()
    sessions = KeptSessions(host, server.session)
    use(sessions)
    server.answers = False
    use(sessions)
    assert (server.opened, server.open) == (2, ["app"])


def test_one_whose_use_failed_does_not_wait(host: Host) -> None:
    server = Server()
    sessions = KeptSessions(host, server.session)
    with pytest.raises(ValueError, match="in the middle"), sessions.session("app"):
        raise ValueError("in the middle")
    assert server.open == []


def test_two_at_once_have_one_each_and_one_waits(host: Host) -> None:
    server = Server()
    sessions = KeptSessions(host, server.session)
    with sessions.session("app"), sessions.session("app"):
        assert server.open == ["app", "app"]
    assert server.open == ["app"]


def test_a_database_that_is_to_have_none_is_left_alone_again(host: Host) -> None:
    server = Server()
    sessions = KeptSessions(host, server.session)
    use(sessions)
    use(sessions, "postgres")
    sessions.release("app")
    assert server.open == ["postgres"]
    sessions.release("app")
