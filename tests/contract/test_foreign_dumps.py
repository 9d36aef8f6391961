"""Dumps that the engines' own tools made, in every format and compression, whole, cut and hostile."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zstandard

from holdfast.drivers.databases.postgresql.driver import PostgresqlDatabase
from holdfast.drivers.databases.postgresql.plain_sql import adapted
from holdfast.drivers.databases.sqlite.driver import SqliteDatabase
from holdfast.drivers.interchange import dump_source
from holdfast.errors import DamagedError, HoldfastError, NotFoundError, RefusedError
from holdfast.model import Server
from holdfast.system.host import Host
from tests.servers.postgresql import ROLE, PostgresqlServer

OPERATION = "20260101-000000-import-database-ab12"
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
    "twice": lambda data: gzip.compress(zstandard.ZstdCompressor().compress(data)),
}
TRICKY = "GRANT ALL ON entry TO nobody;\n\\connect elsewhere\nALTER TABLE entry OWNER TO nobody;\nit's $$ -- /* E'\\n"


@pytest.fixture
def name(server: PostgresqlServer) -> Iterator[str]:
    """A database of a superuser's tool: objects of several owners, values that look like statements."""
    with server.own_database() as made:
        server.create_if_missing(made)
        server.run(made, "CREATE TABLE entry (id SERIAL PRIMARY KEY, text TEXT); CREATE TABLE other (a INTEGER)")
        server.run(made, "INSERT INTO entry (text) SELECT 'row ' || i FROM generate_series(1, 300) i")
        quoted = TRICKY.replace("'", "''")
        server.run(made, f"INSERT INTO entry (text) VALUES ('{quoted}'); GRANT SELECT ON entry TO {ROLE}")
        server.run(made, "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $x$\n SELECT 'GRANT;'\n$x$")
        yield made


@pytest.fixture
def database(server: PostgresqlServer, name: str) -> PostgresqlDatabase:
    reached = Server(host=str(server.folder), port=server.port, user=ROLE)
    return PostgresqlDatabase("main", name, reached, Host(operation=OPERATION))


def pg_dump(server: PostgresqlServer, name: str, *arguments: str) -> bytes:
    return subprocess.run(
        ["pg_dump", "-h", str(server.folder), "-p", str(server.port), "-U", "postgres", *arguments, name],
        capture_output=True,
        check=True,
    ).stdout


def bring(database: PostgresqlDatabase, source: Path) -> None:
    """Loads and puts in place; the application may then use everything."""
    with dump_source.opened(str(source)) as dump:
        candidate = database.load(OPERATION, dump)
    database.swap(OPERATION, candidate, f"{OPERATION}.replaced")


def check_content(server: PostgresqlServer, name: str) -> None:
    assert server.run(name, "SELECT count(*) FROM entry", user=ROLE) == "301"
    assert server.run(name, "SELECT text FROM entry WHERE id = 301", user=ROLE) == TRICKY.strip("\n")
    assert server.run(name, "INSERT INTO entry (text) VALUES ('of the application') RETURNING id", user=ROLE) == "302"
    owners = "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relname IN ('entry', 'other')"
    assert server.run(name, owners) == ROLE


# Each format as it is and by zstd; each compression with one text and one archive format.
OWN_TOOLS = [
    (arguments, compression)
    for arguments in ((), ("--inserts",), ("--create",), ("-Fc",), ("-Ft",))
    for compression in COMPRESSIONS
    if compression in ("plain", "zstd") or arguments in ((), ("-Fc",))
]


@pytest.mark.parametrize(
    ("arguments", "compression"), OWN_TOOLS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else value
)
def test_a_dump_of_the_engines_own_tool(
    server: PostgresqlServer,
    name: str,
    database: PostgresqlDatabase,
    quick_folder: Path,
    arguments: tuple[str, ...],
    compression: str,
) -> None:
    path = quick_folder / "misleading.jpg"
    path.write_bytes(COMPRESSIONS[compression](pg_dump(server, name, *arguments)))
    server.run(name, "DROP TABLE entry; CREATE TABLE later (a INTEGER)")
    bring(database, path)
    check_content(server, name)
    assert "later" not in database.tables()


def test_a_folder_of_pg_dump(
    server: PostgresqlServer, name: str, database: PostgresqlDatabase, quick_folder: Path
) -> None:
    pg_dump(server, name, "-Fd", "-f", str(quick_folder / "folder"))
    bring(database, quick_folder / "folder")
    check_content(server, name)


def test_the_standard_input(
    server: PostgresqlServer, name: str, database: PostgresqlDatabase, quick_folder: Path
) -> None:
    (quick_folder / "dump").write_bytes(gzip.compress(pg_dump(server, name, "-Fc")))
    kept = os.dup(0)
    try:
        with open(quick_folder / "dump", "rb") as file:
            os.dup2(file.fileno(), 0)
            with dump_source.opened("-") as dump:
                candidate = database.load(OPERATION, dump)
    finally:
        os.dup2(kept, 0)
        os.close(kept)
    database.swap(OPERATION, candidate, f"{OPERATION}.replaced")
    check_content(server, name)


@pytest.mark.parametrize("arguments", [(), ("-Fc",), ("-Ft",)], ids=["sql", "custom", "tar"])
@pytest.mark.parametrize("compression", ["plain", "gzip", "zstd"])
@pytest.mark.parametrize("part", [0.3, 0.6])  # the last part of a tar is padding, and nobody misses it
def test_a_dump_that_was_cut_changes_nothing(
    server: PostgresqlServer,
    name: str,
    database: PostgresqlDatabase,
    quick_folder: Path,
    arguments: tuple[str, ...],
    compression: str,
    part: float,
) -> None:
    whole = COMPRESSIONS[compression](pg_dump(server, name, *arguments))
    (quick_folder / "dump").write_bytes(whole[: int(len(whole) * part)])
    before = database.inspect()["identity"], database.tables()
    with pytest.raises(HoldfastError):
        bring(database, quick_folder / "dump")
    database.discard(OPERATION)
    assert (database.inspect()["identity"], database.tables()) == before
    assert database.tokens() == []


@pytest.mark.parametrize(
    "line",
    [
        "\\! touch {mark}",
        "SELECT 1 \\! touch {mark}",
        "\\copy entry TO PROGRAM 'touch {mark}'",
        "\\o | touch {mark}\nSELECT 1;",
        "\\setenv A `touch {mark}`",
    ],
)
def test_a_dump_runs_no_command_of_this_machine(
    server: PostgresqlServer, name: str, database: PostgresqlDatabase, quick_folder: Path, line: str
) -> None:
    mark = quick_folder / "pwned"
    text = pg_dump(server, name).decode()
    hostile = text.replace("CREATE TABLE", f"{line.format(mark=mark)}\nCREATE TABLE", 1)
    (quick_folder / "dump").write_text(hostile)
    with pytest.raises(HoldfastError):
        bring(database, quick_folder / "dump")
    assert not mark.exists()


def test_a_dump_of_several_databases_is_refused(
    server: PostgresqlServer, name: str, database: PostgresqlDatabase, quick_folder: Path
) -> None:
    with server.own_database() as second:
        server.create_if_missing(second)
        text = pg_dump(server, name, "--create") + pg_dump(server, second, "--create")
        (quick_folder / "dump").write_bytes(text)
        with pytest.raises(RefusedError, match="several databases"):
            bring(database, quick_folder / "dump")


def test_statements_inside_values_are_left_alone() -> None:
    text = b"INSERT INTO a VALUES ('it''s\nGRANT x TO y;\n', E'\\'\nREVOKE x;\n');\nGRANT x TO y;\nSELECT 1;\n"
    assert b"".join(adapted([text], "t")) == text.replace(b"');\nGRANT x TO y;\n", b"');\n")
    copied = b"COPY a FROM stdin;\nGRANT x TO y;\n\\.\nGRANT x TO y;\n"
    assert b"".join(adapted([copied], "t")) == copied[: -len(b"GRANT x TO y;\n")]
    body = b"CREATE FUNCTION f() AS $b$\nGRANT x TO y;\n$b$;\n/* '\nGRANT x; */\n\"odd'\nGRANT x;\n\"\n"
    assert b"".join(adapted([body[:20], body[20:]], "t")) == body


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", DamagedError), (b"\x89PNG\r\n\x1a\n\0\0", RefusedError), (b"\x1f\x8bcut", DamagedError)],
)
def test_what_is_no_dump_is_said_at_once(quick_folder: Path, content: bytes, error: type[HoldfastError]) -> None:
    (quick_folder / "dump").write_bytes(content)
    with pytest.raises(error), dump_source.opened(str(quick_folder / "dump")):
        pass  # pragma: no cover
    with pytest.raises(NotFoundError), dump_source.opened(str(quick_folder / "none")):
        pass  # pragma: no cover
    with pytest.raises(RefusedError, match=r"toc\.dat"), dump_source.opened(str(quick_folder)):
        pass  # pragma: no cover


# --- SQLite -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "text"])
@pytest.mark.parametrize("compression", ["plain", "gzip", "zstd"])
@pytest.mark.parametrize("cut", [False, True])
def test_an_sqlite_file_and_the_text_of_its_dump(quick_folder: Path, kind: str, compression: str, cut: bool) -> None:
    with closing(sqlite3.connect(quick_folder / "other")) as connection, connection:
        connection.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, text TEXT)")
        connection.executemany(
            "INSERT INTO entry (text) VALUES (?)", [(f"it's ; row {number}",) for number in range(500)]
        )
    with closing(sqlite3.connect(quick_folder / "other")) as connection:
        text = "\n".join(connection.iterdump()).encode()
    content = COMPRESSIONS[compression](text if kind == "text" else (quick_folder / "other").read_bytes())
    (quick_folder / "dump").write_bytes(content[: len(content) * 2 // 3] if cut else content)
    with closing(sqlite3.connect(quick_folder / "live")) as connection, connection:
        connection.execute("CREATE TABLE old (a)")
    database = SqliteDatabase("main", quick_folder / "live")
    if cut:
        with pytest.raises(DamagedError), dump_source.opened(str(quick_folder / "dump")) as dump:
            database.load(OPERATION, dump)
        assert list(database.tables()) == ["old"]
        return
    with dump_source.opened(str(quick_folder / "dump")) as dump:
        database.swap(OPERATION, database.load(OPERATION, dump), "aside")
    assert database.tables() == {"entry": {"rows": 500, "columns": ["id", "text"]}}


def test_an_sqlite_text_opens_no_other_file(quick_folder: Path) -> None:
    (quick_folder / "dump").write_text(f"ATTACH '{quick_folder / 'other'}' AS o; CREATE TABLE o.a (b);\n")
    with pytest.raises(DamagedError), dump_source.opened(str(quick_folder / "dump")) as dump:
        SqliteDatabase("main", quick_folder / "live").load(OPERATION, dump)
    assert not (quick_folder / "other").exists()
