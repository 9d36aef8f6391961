"""A MySQL server in a folder of its own, where tests/install-mysql has put one."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.proof.endings import at_end
from tests.servers.mariadb import MariadbServer

PROGRAMS = Path("/var/cache/holdfast-tests/mysql/bin")


class MysqlServer(MariadbServer):
    product = "MySQL"
    program = str(PROGRAMS / "mysqld")
    client = str(PROGRAMS / "mysql")
    dumper = str(PROGRAMS / "mysqldump")
    install = (program, "--no-defaults", "--initialize-insecure", "--innodb-redo-log-capacity=32M")
    own_settings = {  # noqa: RUF012 - read only, as in the class above
        "innodb-redo-log-capacity": "32M",
        "mysqlx": "OFF",
        "secure-file-priv": "",
        "log-bin-trust-function-creators": "ON",
        "cte-max-recursion-depth": "1000000",
    }

    @classmethod
    def skip_where_it_is_missing(cls) -> None:
        if not PROGRAMS.is_dir():
            pytest.skip("no MySQL server here: `make test-setup` as root puts one there")
        # The driver finds its programs by PATH, on which MariaDB may have some of the same names.
        if str(PROGRAMS) not in os.environ["PATH"].split(":"):
            os.environ["PATH"] = f"{PROGRAMS}:{os.environ['PATH']}"


@functools.cache
def _shared() -> MysqlServer:
    server = MysqlServer()
    at_end(server.remove)
    return server


@contextmanager
def shared() -> Iterator[MysqlServer]:
    """One server for all tests of a process."""
    yield _shared()
