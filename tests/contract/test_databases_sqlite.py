"""What is SQLite's own: journal modes, left-over side files, open handles, kills between two renames."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from holdfast.drivers.databases.sqlite.driver import SqliteDatabase
from holdfast.errors import DamagedError, HoldfastError, RefusedError
from tests.contract.dumps import snapshot
from tests.proof import patience

_CRASH = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("PRAGMA wal_autocheckpoint=0")
connection.execute("INSERT INTO entry (text) VALUES ('acknowledged, only in the wal')")
os._exit(9)
"""
_HOT = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size=1")
connection.execute("BEGIN")
connection.execute("UPDATE entry SET text = 'never committed' || hex(randomblob(400))")
connection.execute("INSERT INTO entry (text) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
                   " WHERE i < 2000) SELECT hex(randomblob(200)) FROM n")
os._exit(9)
"""
_READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM entry").fetchall()
print("open", flush=True)
sys.stdin.read()
"""


ROWS = "SELECT text FROM entry ORDER BY id"


class Killed(BaseException):
    """Stands for the end of the process at this point."""


@pytest.fixture
def path(quick_folder: Path) -> Path:
    path = quick_folder / "app #1?.sqlite3"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, text TEXT)")
        connection.executemany("INSERT INTO entry (text) VALUES (?)", [(f"row {number}",) for number in range(500)])
    return path


@pytest.fixture
def database(path: Path) -> SqliteDatabase:
    return SqliteDatabase("main", path)


def die(script: str, path: Path) -> None:
    """Leaves behind what a killed application leaves behind."""
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False, timeout=patience.limit(30))
    assert done.returncode == 9


def count(database: SqliteDatabase, dump: Path | None = None) -> int:
    with closing(sqlite3.connect(dump or database.path)) as connection:
        return int(connection.execute("SELECT count(*) FROM entry").fetchone()[0])


@contextlib.contextmanager
def reader_in_another_process(path: Path) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-c", _READER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "open\n"
        yield process.pid
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(patience.limit(30))


def test_a_left_over_wal_is_part_of_snapshot_and_restore_point(database: SqliteDatabase, path: Path) -> None:
    die(_CRASH, path)
    assert Path(f"{path}-wal").stat().st_size > 0
    snapshot(database, path.parent / "dump")
    assert count(database, path.parent / "dump") == 501
    point = database.prepare("op", None, {})
    database.swap("op", point, "op")
    assert count(database) == 501


def test_a_left_over_wal_leaves_with_the_database_it_belongs_to(database: SqliteDatabase, path: Path) -> None:
    snapshot(database, path.parent / "dump")
    live = database.inspect()["identity"]
    candidate = database.prepare("op", path.parent / "dump", {})
    die(_CRASH, path)
    database.swap("op", candidate, "op")
    assert not Path(f"{path}-wal").exists()
    assert count(database) == 500
    database.swap("op", live, "op.back")
    assert count(database) == 501, "the row that stood only in the -wal is back with its database"


def test_a_left_over_wal_beside_no_database_does_not_reach_the_restored_one(
    database: SqliteDatabase, path: Path
) -> None:
    snapshot(database, path.parent / "dump")
    die(_CRASH, path)
    path.unlink()
    candidate = database.prepare("op", path.parent / "dump", {})
    database.swap("op", candidate, "op")
    assert count(database) == 500
    assert database.query("PRAGMA integrity_check") == [("ok",)]


def test_a_hot_journal_is_rolled_back_before_a_restore_point(database: SqliteDatabase, path: Path) -> None:
    die(_HOT, path)
    assert Path(f"{path}-journal").stat().st_size > 0
    point = database.prepare("op", None, {})
    database.swap("op", point, "op")
    assert database.query(ROWS)[:2] == [("row 0",), ("row 1",)]
    assert count(database) == 500


@pytest.mark.parametrize("moves", [1, 2, 3])
@pytest.mark.parametrize("way", ["there", "back"])
def test_a_swap_killed_between_two_renames_is_repeated_without_loss(
    database: SqliteDatabase, path: Path, monkeypatch: pytest.MonkeyPatch, moves: int, way: str
) -> None:
    snapshot(database, path.parent / "dump")
    live = database.inspect()["identity"]
    candidate = database.prepare("op", path.parent / "dump", {})
    die(_CRASH, path)
    wanted = candidate
    if way == "back":
        database.swap("op", candidate, "op")
        path.unlink()
        wanted = live
    _killed_swap(database, wanted, moves, monkeypatch)
    database.swap("op", wanted, "op")
    assert count(database) == (500 if wanted == candidate else 501)
    database.swap("op", live, "op.back")
    assert count(database) == 501, "every acknowledged row is there"


def _killed_swap(database: SqliteDatabase, wanted: str, moves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real, left = os.rename, iter(range(moves))

    def rename(source: str, target: str, **options: Any) -> None:
        if next(left, None) is None:
            raise Killed
        real(source, target, **options)

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(os, "rename", rename)
        database.swap("op", wanted, "op")


@pytest.mark.parametrize("action", ["prepare", "swap"])
def test_an_open_handle_in_another_process_is_refused_by_name(
    database: SqliteDatabase, path: Path, action: str
) -> None:
    snapshot(database, path.parent / "dump")
    candidate = database.prepare("op", path.parent / "dump", {})
    before = database.inspect()["identity"]
    calls: dict[str, Callable[[], object]] = {
        "prepare": lambda: database.prepare("op2", None, {}),
        "swap": lambda: database.swap("op", candidate, "op"),
    }
    with reader_in_another_process(path) as pid, pytest.raises(RefusedError, match=f"process {pid} ") as caught:
        calls[action]()
    assert "python" in caught.value.what
    assert database.inspect()["identity"] == before
    calls[action]()


def test_an_open_reader_does_not_hinder_a_dump_or_a_candidate(database: SqliteDatabase, path: Path) -> None:
    with reader_in_another_process(path):
        snapshot(database, path.parent / "dump")
        database.prepare("op", path.parent / "dump", {})
    assert count(database, path.parent / "dump") == 500


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_the_held_snapshot_is_at_its_instant_while_writers_queue(
    database: SqliteDatabase, path: Path, mode: str
) -> None:
    """A second writer that waits while the hold lasts comes after the snapshot, none of its rows before."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
    done = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(path, timeout=patience.limit(30), isolation_level=None)) as writer:
            writer.execute("INSERT INTO entry (text) VALUES ('queued')")
        done.set()

    thread = threading.Thread(target=write)
    with database.freeze_writes(5) as fix:
        thread.start()
        assert not done.wait(0.1)
        fix(path.parent / "dump", [], 10)()
    thread.join(patience.limit(30))
    assert done.is_set()
    assert count(database, path.parent / "dump") == 500
    assert count(database) == 501


@pytest.mark.parametrize("damage", ["header", "middle", "cut"])
def test_a_dump_with_any_page_damaged_is_refused(database: SqliteDatabase, path: Path, damage: str) -> None:
    dump = path.parent / "dump"
    snapshot(database, dump)
    content = bytearray(dump.read_bytes())
    if damage == "header":
        content[0:16] = b"\0" * 16
    elif damage == "middle":
        content[4096:8192] = b"\xff" * 4096
    else:
        del content[-4096:]
    dump.write_bytes(content)
    with pytest.raises(DamagedError):
        database.prepare("op", dump, {})


def test_a_live_database_that_is_damaged_makes_no_restore_point(database: SqliteDatabase, path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    path.write_bytes(content)
    with pytest.raises(HoldfastError):
        database.prepare("op", None, {})
    with pytest.raises((HoldfastError, sqlite3.DatabaseError)):
        snapshot(database, path.parent / "dump")


def test_a_candidate_has_the_mode_of_the_live_file(database: SqliteDatabase, path: Path) -> None:
    os.chmod(path, 0o660)
    candidate = database.prepare("op", None, {})
    database.swap("op", candidate, "op")
    assert path.stat().st_mode & 0o777 == 0o660


def test_an_earlier_copy_of_the_file_beside_is_never_taken_by_name(database: SqliteDatabase, path: Path) -> None:
    """Decided by identity: a stranger's file under the candidate's name is not put in place."""
    candidate = database.prepare("op", None, {})
    (found,) = [item for item in path.parent.rglob("candidate") if item.is_file()]
    shutil.copy(found, found.with_name("copy"))
    os.replace(found.with_name("copy"), found)
    with pytest.raises(HoldfastError, match="gone"):
        database.swap("op", candidate, "op")
    assert count(database) == 500


def test_a_database_is_looked_at_while_its_side_files_come_and_go(database: SqliteDatabase, path: Path) -> None:
    """The last connection that closes removes the `-wal` between any two looks."""
    code = (
        "import sqlite3, sys\nfor _ in range(4000):\n    c = sqlite3.connect(sys.argv[1]); "
        "c.execute('PRAGMA journal_mode=WAL'); c.execute('SELECT count(*) FROM sqlite_master').fetchone(); c.close()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)])
    try:
        looks = 0
        while process.poll() is None:
            assert database.inspect()["exists"]
            looks += 1
        assert looks > 100
    finally:
        process.kill()
        process.wait(patience.limit(10))


def test_a_damaged_index_of_a_full_text_search_stops_no_restore(path: Path, quick_folder: Path) -> None:
    """The module is known, but cannot open its table: that is damage, which a restore replaces."""
    database = SqliteDatabase("main", path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE VIRTUAL TABLE search USING fts5(text)")
        connection.execute("INSERT INTO search VALUES ('word')")
    snapshot(database, quick_folder / "dump")
    assert database.check() == []
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'search_config'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    content = bytearray(path.read_bytes())
    content[(root - 1) * size : root * size] = b"\xff" * size
    path.write_bytes(content)
    (problem,) = database.check()
    assert problem.severity == "warning"
    database.swap("op", database.prepare("op", quick_folder / "dump", {}), "op.replaced")
    assert database.check() == []
    assert database.query("SELECT text FROM search WHERE search MATCH 'word'") == [("word",)]


def test_what_only_the_application_can_look_at_is_no_damage(path: Path, quick_folder: Path) -> None:
    """An index over its own collation and its own function, and a table of its own module; the library has none."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute(
            "INSERT INTO sqlite_master (type, name, tbl_name, rootpage, sql) VALUES"
            " ('table', 'vectors', 'vectors', 0, 'CREATE VIRTUAL TABLE vectors USING nearest0(embedding)')"
        )
        connection.execute("PRAGMA writable_schema=RESET")
        connection.create_collation(
            "german", lambda one, other: (one.lower() > other.lower()) - (one.lower() < other.lower())
        )
        connection.create_function("slug", 1, str.lower, deterministic=True)
        connection.execute("CREATE TABLE people (name TEXT COLLATE german, UNIQUE (name))")
        connection.execute("CREATE TABLE pages (title TEXT)")
        connection.execute("CREATE INDEX pages_slug ON pages (slug(title))")
        connection.executemany("INSERT INTO people VALUES (?)", [("Zoe",), ("adam",)])
        connection.executemany("INSERT INTO pages VALUES (?)", [("Hello",), ("World",)])
    database = SqliteDatabase("main", path)
    taken = snapshot(database, quick_folder / "dump")
    assert taken.tables["entry"]["rows"] == 500
    assert taken.tables["vectors"] == {"rows": None, "columns": []}
    assert [(problem.severity, "vectors" in problem.message) for problem in database.check()] == [("note", True)]
    for token, source in (("point", None), ("restore", quick_folder / "dump")):
        identity = database.prepare(token, source, {})
        database.swap(token, identity, f"{token}.replaced")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT title FROM pages ORDER BY rowid").fetchall() == [("Hello",), ("World",)]
    content = bytearray((quick_folder / "dump").read_bytes())
    content[4096 * 3 : 4096 * 4] = bytes(4096)
    (quick_folder / "harmed").write_bytes(content)
    with pytest.raises(DamagedError):
        database.prepare("harmed", quick_folder / "harmed", {})
