"""Data directories of PostgreSQL servers: a clean one is dumped, every other one refused."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.drivers.databases.pgcold import ColdDirectory
from holdfast.errors import RefusedError
from holdfast.host import Host
from holdfast.model import Server
from tests.servers.postgresql import PostgresqlServer


@pytest.fixture
def server() -> Iterator[PostgresqlServer]:
    made = PostgresqlServer()
    made.create_if_missing("app")
    made.run("app", "CREATE TABLE entry AS SELECT 'one' AS text")
    yield made
    made.remove()


@pytest.fixture
def scratch() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="hfcold", dir="/var/tmp"))
    (path / "unpacked").mkdir()
    yield path
    shutil.rmtree(path)


def copied(server: PostgresqlServer, target: Path) -> Path:
    shutil.copytree(server.folder / "data", target)
    return target


def dumped(scratch: Path) -> str:
    directory = ColdDirectory("main", "app", Server(), "test", Host(operation="20260101-000000-cold"))
    dump = directory.dump(scratch, scratch / "unpacked", 99)
    return subprocess.run(["pg_restore", "--file=-", str(dump)], capture_output=True, text=True, check=True).stdout


def test_a_clean_directory_in_a_folder_is_dumped(server: PostgresqlServer, scratch: Path) -> None:
    server.stop()
    copied(server, scratch / "unpacked" / "database")
    assert "COPY public.entry (text) FROM stdin;\none\n" in dumped(scratch)


def test_a_copy_of_a_running_server_is_refused(server: PostgresqlServer, scratch: Path) -> None:
    data = copied(server, scratch / "unpacked" / "database")
    with pytest.raises(RefusedError, match=r"postmaster\.pid"):
        dumped(scratch)
    (data / "postmaster.pid").unlink()
    with pytest.raises(RefusedError, match="in production"):
        dumped(scratch)


def test_another_version_is_named(server: PostgresqlServer, scratch: Path) -> None:
    server.stop()
    data = copied(server, scratch / "unpacked" / "database")
    (data / "PG_VERSION").write_text("98\n")
    with pytest.raises(RefusedError, match="PostgreSQL 98"):
        dumped(scratch)
