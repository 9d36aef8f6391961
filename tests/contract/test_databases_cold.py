"""PostgreSQL data directories: a clean one is dumped, every other one refused; a kill leaves nothing behind."""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.drivers.databases.postgresql.data_directory import OfflineDirectoryReader
from holdfast.drivers.interchange import unpack
from holdfast.engine import fence
from holdfast.errors import DamagedError, HoldfastError, RefusedError
from holdfast.model import Server
from holdfast.system.host import Host
from holdfast.system.processes import with_cwd_under
from tests.proof.endings import at_end
from tests.servers import docker, postgresql
from tests.servers.postgresql import PostgresqlServer

OPERATION = f"20260101-000000-cold-{os.getpid()}"  # of this process that runs tests
ROW = "COPY public.entry (text) FROM stdin;\none\n"
# The process dies at the moment when its private server answers.
KILLED = """
import json, os, signal, sys
from pathlib import Path
from holdfast.drivers.databases.postgresql.data_directory import OfflineDirectoryReader
from holdfast.system.host import Host
from holdfast.model import Server
OfflineDirectoryReader._chosen = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
place, container, operation = json.loads(sys.argv[1])
directory = OfflineDirectoryReader("main", "app", Server(container=container), "test", Host(operation=operation))
directory.dump(Path(place), Path(place) / "unpacked", 99)
"""


@pytest.fixture
def server() -> Iterator[PostgresqlServer]:
    made = PostgresqlServer()
    made.create_if_missing("app")
    made.run("app", "CREATE TABLE entry AS SELECT 'one' AS text")
    yield made
    made.remove()


@functools.cache
def _clean() -> Path:
    """Return the data directory of a server that was shut down; it is only read."""
    server = PostgresqlServer()
    at_end(server.remove)
    server.create_if_missing("app")
    server.run("app", "CREATE TABLE entry AS SELECT 'one' AS text")
    server.stop()
    return server.folder / "data"


@pytest.fixture
def data() -> Path:
    return _clean()


@pytest.fixture
def scratch() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="hfcold", dir="/var/tmp"))
    (path / "unpacked").mkdir()
    yield path
    shutil.rmtree(path)


@functools.cache
def image() -> str:
    return postgresql.image()


@pytest.fixture
def container() -> Iterator[str]:
    """As Holdfast is told of it: one that has the programs in its image, and need not run for this."""
    name = docker.engine().new_name()
    subprocess.run(
        ["docker", "create", f"--name={name}", "--network=none", image(), "postgres"],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    yield f"docker:{name}"
    subprocess.run(["docker", "rm", "--force", name], stdout=subprocess.DEVNULL, check=True)


def copied(data: Path, target: Path) -> Path:
    shutil.copytree(data, target)
    return target


def cold(container: str = "", database: str = "app") -> OfflineDirectoryReader:
    return OfflineDirectoryReader("main", database, Server(container=container), "test", Host(operation=OPERATION))


def dumped(scratch: Path, container: str = "", database: str = "app", newest: int = 99) -> str:
    dump = cold(container, database).dump(scratch, scratch / "unpacked", newest)
    ours = [scratch, *(scratch / name for name in ("dump", "log", "server.conf", "hba.conf", "ident.conf"))]
    assert {path.lstat().st_uid for path in ours if path != dump} == {os.geteuid()}, "links could be laid there"
    assert not scratch.stat().st_mode & 0o027
    assert with_cwd_under(str(scratch)) == [], "the private server runs on"
    return subprocess.run(["pg_restore", "--file=-", str(dump)], capture_output=True, text=True, check=True).stdout


def one_offs() -> list[str]:
    arguments = ["docker", "ps", "--all", "--quiet", f"--filter=label=holdfast.operation={OPERATION}"]
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split()


def test_a_clean_directory_in_a_folder_is_dumped(data: Path, scratch: Path) -> None:
    copied(data, scratch / "unpacked" / "database")
    assert ROW in dumped(scratch)


def test_an_archive_with_a_leading_folder_is_dumped(data: Path, scratch: Path) -> None:
    with tarfile.open(scratch / "copy.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(data, "./database")
    unpack.unpack(str(scratch / "copy.tar.gz"), scratch / "unpacked", lambda: None)
    assert (scratch / "unpacked" / "database" / "PG_VERSION").exists()
    assert ROW in dumped(scratch)


def test_the_only_database_is_taken_whatever_its_name_and_of_several_none(
    server: PostgresqlServer, scratch: Path
) -> None:
    name = 'it\'s \\ "odd" one'
    server.run("postgres", """ALTER DATABASE app RENAME TO "it's \\ ""odd"" one\"""")
    server.stop()
    copied(server.folder / "data", scratch / "unpacked" / "database")
    assert ROW in dumped(scratch, database="shop")
    shutil.rmtree(scratch / "unpacked")
    shutil.rmtree(scratch / "run")
    server.start()
    server.create_if_missing("second")
    server.stop()
    copied(server.folder / "data", scratch / "unpacked" / "database")
    with pytest.raises(RefusedError) as refused:
        dumped(scratch, database="shop")
    assert "second" in refused.value.what
    shutil.rmtree(scratch / "run")
    assert ROW in dumped(scratch, database=name)


def test_settings_of_the_directory_are_not_followed(server: PostgresqlServer, scratch: Path) -> None:
    """Neither those of its files, nor those that a database keeps: either could name a library or a command."""
    library = scratch / "library"
    for sql in (
        f"ALTER SYSTEM SET shared_preload_libraries = '{library}'",
        "ALTER SYSTEM SET port = 1",
        f"ALTER DATABASE app SET local_preload_libraries = '{library}'",
        f"ALTER ROLE ALL SET session_preload_libraries = '{library}'",
    ):
        server.run("postgres", sql)
    server.stop()
    data = copied(server.folder / "data", scratch / "unpacked" / "database")
    (data / "postgresql.conf").write_text("archive_mode = on\narchive_command = 'false'\nnonsense = 1\n")
    (data / "pg_hba.conf").write_text("local all all reject\n")
    assert ROW in dumped(scratch)


def test_a_copy_of_a_running_server_is_refused(server: PostgresqlServer, scratch: Path) -> None:
    data = copied(server.folder / "data", scratch / "unpacked" / "database")
    with pytest.raises(RefusedError, match=r"postmaster\.pid"):
        dumped(scratch)
    (data / "postmaster.pid").unlink()
    with pytest.raises(RefusedError, match="in production"):
        dumped(scratch)


def test_a_copy_of_a_server_that_crashed_is_refused(server: PostgresqlServer, scratch: Path) -> None:
    server.run("app", "INSERT INTO entry SELECT 'two'")
    server.kill()
    data = copied(server.folder / "data", scratch / "unpacked" / "database")
    with pytest.raises(RefusedError, match=r"postmaster\.pid"):
        dumped(scratch)
    (data / "postmaster.pid").unlink()
    with pytest.raises(RefusedError, match="in production"):
        dumped(scratch)
    assert with_cwd_under(str(scratch)) == []


def test_another_version_is_named(data: Path, scratch: Path) -> None:
    copy = copied(data, scratch / "unpacked" / "database")
    major = (copy / "PG_VERSION").read_text().strip()
    with pytest.raises(RefusedError, match=f"PostgreSQL {major}"):
        dumped(scratch, newest=int(major) - 1)
    (copy / "PG_VERSION").write_text("98\n")
    with pytest.raises(RefusedError, match="PostgreSQL 98"):
        dumped(scratch)


@pytest.mark.parametrize("lost", ["pg_wal", "pg_xact", "global/pg_control", "base"])
def test_what_is_not_whole_is_refused(data: Path, scratch: Path, lost: str) -> None:
    place = copied(data, scratch / "unpacked" / "database") / lost
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(RefusedError):
        dumped(scratch)


@pytest.mark.parametrize("kind", ["climbs", "absolute", "link out"])
def test_an_archive_does_not_leave_its_folder(data: Path, scratch: Path, kind: str) -> None:
    """A whole directory with one member more: nothing is outside, and no server is begun."""
    member = tarfile.TarInfo(
        {"climbs": "database/../../escaped", "absolute": str(scratch / "escaped")}.get(kind, "database/pg_tblspc/1")
    )
    if kind == "link out":
        member.type, member.linkname = tarfile.SYMTYPE, str(scratch)
    with tarfile.open(scratch / "copy.tar", "w") as archive:
        archive.add(data, "database")
        archive.addfile(member, io.BytesIO(b""))
    with pytest.raises(RefusedError):
        unpack.unpack(str(scratch / "copy.tar"), scratch / "unpacked", lambda: None)
    assert sorted(path.name for path in scratch.iterdir()) == ["copy.tar", "unpacked"]


def test_an_archive_that_was_cut_is_damaged(data: Path, scratch: Path) -> None:
    with tarfile.open(scratch / "copy.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(data, "database")
    whole = (scratch / "copy.tar.gz").read_bytes()
    (scratch / "copy.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedError):
        unpack.unpack(str(scratch / "copy.tar.gz"), scratch / "unpacked", lambda: None)


def test_a_damaged_directory_fails_and_leaves_no_server(server: PostgresqlServer, scratch: Path) -> None:
    place = server.run("app", "SELECT pg_relation_filepath('entry')")
    server.stop()
    data = copied(server.folder / "data", scratch / "unpacked" / "database")
    (data / place).unlink()
    with pytest.raises(HoldfastError):
        dumped(scratch)
    assert with_cwd_under(str(scratch)) == []


# --- in a container ---------------------------------------------------------------------------------------


def test_the_programs_of_a_containers_image_are_used(data: Path, scratch: Path, container: str) -> None:
    copied(data, scratch / "unpacked" / "database")
    assert ROW in dumped(scratch, container)
    assert one_offs() == []


def test_an_image_of_another_version_is_named(data: Path, scratch: Path, container: str) -> None:
    (copied(data, scratch / "unpacked" / "database") / "PG_VERSION").write_text("98\n")
    with pytest.raises(RefusedError, match="PostgreSQL 98"):
        dumped(scratch, container)
    assert one_offs() == []


# --- killed -----------------------------------------------------------------------------------------------


def die_while_it_runs(scratch: Path, container: str) -> None:
    arguments = json.dumps([str(scratch), container, OPERATION])
    done = subprocess.run([sys.executable, "-c", KILLED, arguments], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_private_server_whose_holdfast_was_killed_is_ended(data: Path, scratch: Path) -> None:
    copied(data, scratch / "unpacked" / "database")
    die_while_it_runs(scratch, "")
    assert with_cwd_under(str(scratch)), "the test has to find a server that runs"
    fence.end_children(OPERATION, Path(os.devnull))
    cold().end(scratch)
    assert with_cwd_under(str(scratch)) == []
    assert fence.survivors(OPERATION, Path(os.devnull)) == []


def test_a_one_off_whose_holdfast_was_killed_is_removed(data: Path, scratch: Path, container: str) -> None:
    copied(data, scratch / "unpacked" / "database")
    die_while_it_runs(scratch, container)
    assert one_offs(), "the test has to find a server that runs"
    fence.end_children(OPERATION, Path(os.devnull))
    cold(container).end_operation(OPERATION)
    assert one_offs() == []
    assert (
        subprocess.run(
            ["docker", "container", "inspect", container.partition(":")[2]], capture_output=True, check=False
        ).returncode
        == 0
    )
