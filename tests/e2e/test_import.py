"""`import database` and `import files`, through the command line, on real sites."""

from __future__ import annotations

import gzip
import io
import secrets
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.model import Outcome, StepState
from tests import kept
from tests.e2e.cli import run
from tests.proof import patience
from tests.site import Site
from tests.standins.visitor import Visitor
from tests.stores import MariadbStore


@pytest.fixture(
    params=[
        "sqlite",
        "postgresql",
        *(pytest.param(name, marks=pytest.mark.variant(name)) for name in ("mariadb", "mysql")),
    ]
)
def installed(request: pytest.FixtureRequest) -> Iterator[Site]:
    with kept.site(request.param) as site:
        yield site


@pytest.fixture
def site() -> Iterator[Site]:
    with kept.site() as lent:
        yield lent


def own_dump(site: Site, target: Path) -> Path:
    """By the engine's own tool, never by Holdfast."""
    site.store.dump(target)
    return target


def test_a_dump_comes_in_by_one_command(installed: Site, folder: Path) -> None:
    dump = own_dump(installed, folder / "dump.bin")
    before = installed.store.digest()
    installed.post(b"since the dump")
    assert installed.get("/")[1]["entries"] == 121
    done = run(installed, "import", "database", str(dump))
    assert done.returncode == 0, done.stderr
    assert "that the loaded database names are not in media" not in done.stderr
    assert installed.get("/")[1] == {"version": "v1", "entries": 120}
    assert installed.store.digest() == before
    assert installed.post(b"after the import")[0] == 201


def test_an_import_that_fails_leaves_everything_as_it_was(installed: Site, folder: Path) -> None:
    dump = own_dump(installed, folder / "dump.bin")
    installed.post(b"since the dump")
    before = installed.fingerprint()
    whole = dump.read_bytes()
    dump.write_bytes(whole[: len(whole) // 2])
    done = run(installed, "import", "database", str(dump))
    assert done.returncode != 0
    assert installed.fingerprint() == before
    dump.write_bytes(whole)
    text = installed.config.read_text()
    installed.config.write_text(text.replace("[tasks]", '[tasks]\nafter_restore = ["false"]'))
    done = run(installed, "import", "database", str(dump))
    assert done.returncode == 6, done.stderr
    assert installed.fingerprint() == before
    assert installed.get("/")[1]["entries"] == 121


def foreign_sql(*, wrong: bool = False) -> bytes:
    lines = [f"INSERT INTO foreign_one VALUES ('{secrets.token_hex(20)}');" for _ in range(9000)]
    if wrong:
        lines.insert(4500, "INSERT INTO nowhere VALUES (1);")
    return "\n".join(["CREATE TABLE foreign_one (a VARCHAR(40));", *lines, ""]).encode()


@pytest.mark.parametrize("kind", ["cut", "wrong"])
def test_plain_sql_that_cannot_be_loaded_stops_nothing(installed: Site, folder: Path, kind: str) -> None:
    """Cut short within its compression, or with a statement that fails: seen before visitors are held."""
    whole = gzip.compress(foreign_sql(wrong=kind == "wrong"))
    (folder / "dump.sql.gz").write_bytes(whole if kind == "wrong" else whole[: len(whole) // 2])
    before = installed.fingerprint()
    done = run(installed, "import", "database", str(folder / "dump.sql.gz"))
    assert done.returncode != 0
    assert installed.fingerprint() == before
    assert installed.get("/")[1] == {"version": "v1", "entries": 120}
    app = installed.open()
    record = app.journal.operations(1)[0]
    steps = {step.name: step.state for step in app.journal.steps(record.id)}
    app.close()
    assert (record.kind, record.outcome) == ("import.database", Outcome.UNDONE)
    assert steps["gate.close"] is steps["services.stop"] is StepState.PENDING


def test_a_dump_of_an_older_version_is_migrated(installed: Site, folder: Path) -> None:
    dump = own_dump(installed, folder / "dump.bin")
    installed.operate("upgrade", "v2")
    done = run(installed, "import", "database", str(dump))
    assert done.returncode == 0, done.stderr
    assert installed.get("/")[1] == {"version": "v2", "entries": 120}
    assert installed.get("/health")[0] == 200


def test_a_dump_of_a_newer_version_is_refused(installed: Site, folder: Path) -> None:
    installed.operate("upgrade", "v2")
    dump = own_dump(installed, folder / "dump.bin")
    installed.operate("backup")
    app = installed.open()
    assert app.context.vault is not None
    instant = next(item for item in app.context.vault.backups() if item.release.get("label") == "v1").instant
    app.close()
    installed.operate("rollback", discard_writes_since=instant)
    refuses_while_visitors_are_served(installed, dump, "0002_mood")


def refuses_while_visitors_are_served(site: Site, dump: Path, unknown: str) -> None:
    """No request is refused or lost, nothing changes, and the candidate is gone."""
    before, beside = site.fingerprint(), tokens(site)
    with Visitor(site.port, "/") as visitor:
        patience.until(lambda: visitor.statuses[200])
        done = run(site, "import", "database", str(dump))
    assert done.returncode == 4, done.stderr
    assert f"it does not know {unknown}" in done.stderr
    assert set(visitor.statuses) == {200}
    assert (site.fingerprint(), tokens(site)) == (before, beside)
    app = site.open()
    steps = {step.name: step.state for step in app.journal.steps(app.journal.operations(1)[0].id)}
    app.close()
    assert steps["gate.close"] is steps["services.stop"] is steps["database.swap"] is StepState.PENDING


def tokens(site: Site) -> list[str]:
    """Return what stands beside the live database."""
    app = site.open()
    try:
        return app.context.databases["main"].tokens()
    finally:
        app.close()


def test_a_dump_with_a_migration_that_nobody_ships_is_refused(installed: Site, folder: Path) -> None:
    installed.store.execute("INSERT INTO schema_migrations (name) VALUES ('0009_of_another_branch')")
    dump = own_dump(installed, folder / "dump.bin")
    installed.store.execute("DELETE FROM schema_migrations WHERE name = '0009_of_another_branch'")
    refuses_while_visitors_are_served(installed, dump, "0009_of_another_branch")


def test_a_query_that_names_the_live_database_is_asked_after_the_swap(folder: Path) -> None:
    """Before it, the answer would be that of the live database."""
    with kept.site("mariadb") as site:
        assert isinstance(site.store, MariadbStore)
        text = site.config.read_text()
        named = text.replace("FROM schema_migrations", f"FROM {site.store.name}.schema_migrations")
        assert named != text
        site.config.write_text(named)
        site.store.execute("INSERT INTO schema_migrations (name) VALUES ('0009_of_another_branch')")
        dump = own_dump(site, folder / "dump.bin")
        site.store.execute("DELETE FROM schema_migrations WHERE name = '0009_of_another_branch'")
        before = site.fingerprint()
        done = run(site, "import", "database", str(dump))
        assert done.returncode == 4, done.stderr
        assert "0009_of_another_branch" in done.stderr
        assert "names the live database itself" in run(site, "import", "database", str(dump), "--dry-run").stdout
        assert site.fingerprint() == before


def test_a_query_on_a_view_is_answered_once_the_view_is_there(folder: Path) -> None:
    with kept.site("mariadb") as site:
        site.store.execute("CREATE VIEW applied AS SELECT name FROM schema_migrations")
        text = site.config.read_text()
        viewed = text.replace("FROM schema_migrations", "FROM applied")
        assert viewed != text
        site.config.write_text(viewed)
        site.store.execute("INSERT INTO schema_migrations (name) VALUES ('0009_of_another_branch')")
        dump = own_dump(site, folder / "dump.bin")
        site.store.execute("DELETE FROM schema_migrations WHERE name = '0009_of_another_branch'")
        before = site.fingerprint()
        done = run(site, "import", "database", str(dump))
        assert done.returncode == 4, done.stderr
        assert "0009_of_another_branch" in done.stderr
        assert site.fingerprint() == before


# --- files ------------------------------------------------------------------------------------------------


def make_tar(target: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(target, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(content), 0o640, 1_500_000_000
            archive.addfile(info, io.BytesIO(content))
    return target


def make_zip(target: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target


def make_folder(target: Path, members: dict[str, bytes]) -> Path:
    for name, content in members.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    return target


MAKERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "tar.gz": make_tar,
    "tar": lambda target, members: make_tar(target, members, "w:"),
    "tar.xz": lambda target, members: make_tar(target, members, "w:xz"),
    "zip": make_zip,
    "folder": make_folder,
}


def media(site: Site) -> dict[str, bytes]:
    return {
        str(path.relative_to(site.media)): path.read_bytes()
        for path in site.media.rglob("*")
        if path.is_file() and ".holdfast" not in path.parts
    }


@pytest.mark.parametrize("kind", list(MAKERS))
def test_files_are_merged_or_replaced(site: Site, folder: Path, kind: str) -> None:
    old = media(site)
    (site.media / "album").mkdir()
    (site.media / "album" / "kept.txt").write_bytes(b"kept")
    (site.media / "album" / "both.txt").write_bytes(b"earlier")
    source = MAKERS[kind](folder / "source", {"both.txt": b"later", "deep/new.txt": b"new"})
    done = run(site, "import", "files", str(source), "--into", "media/album")
    assert done.returncode == 0, done.stderr
    merged = {"album/kept.txt": b"kept", "album/both.txt": b"later", "album/deep/new.txt": b"new"}
    assert media(site) == {**old, **merged}
    done = run(site, "import", "files", str(source), "--into", "media/album", "--replace")
    assert done.returncode == 0, done.stderr
    del merged["album/kept.txt"]
    assert media(site) == {**old, **merged}
    assert site.get("/health")[0] == 200


def test_more_files_than_one_process_makes(site: Site, folder: Path) -> None:
    many = {f"{number % 9}/file {number}": b"content %d" % number for number in range(2500)}
    done = run(site, "import", "files", str(make_tar(folder / "source", many)), "--into", "media/many")
    assert done.returncode == 0, done.stderr
    assert {name: content for name, content in media(site).items() if name.startswith("many/")} == {
        f"many/{name}": content for name, content in many.items()
    }


def test_files_from_the_standard_input(site: Site, folder: Path) -> None:
    make_tar(folder / "source", {"a.txt": b"a"})
    with open(folder / "source", "rb") as stream:
        done = run(site, "import", "files", "-", "--into", "media", stdin=stream)
    assert done.returncode == 0, done.stderr
    assert media(site)["a.txt"] == b"a"


def hostile(folder: Path, kind: str) -> Path:
    source = folder / "hostile"
    if kind == "zip that climbs":
        return make_zip(source, {"../../escaped": b"x"})
    with tarfile.open(source, "w") as archive:
        info = tarfile.TarInfo("member")
        if kind == "climbs":
            info.name = "a/../../escaped"
        elif kind == "absolute":
            info.name = str(folder / "escaped")
        elif kind == "link out":
            info.type, info.linkname = tarfile.SYMTYPE, "../../.."
        elif kind == "absolute link":
            info.type, info.linkname = tarfile.SYMTYPE, str(folder)
        elif kind == "device":
            info.type = tarfile.CHRTYPE
        elif kind == "hard link out":
            info.type, info.linkname = tarfile.LNKTYPE, "../holdfast.toml"
        archive.addfile(info, io.BytesIO(b""))
        if kind == "by a chain of links":
            archive.add(folder, "a", recursive=False)
            for name, target in (("a/up", ".."), ("b", "a/up/.."), ("c", "b/..")):
                inner = tarfile.TarInfo(name)
                inner.type, inner.linkname = tarfile.SYMTYPE, target
                archive.addfile(inner)
        if kind == "a folder on a link":
            archive.add(folder, "real", recursive=False)
            for name, target in (("way", "real"), ("way", "")):
                inner = tarfile.TarInfo(name)
                inner.type, inner.linkname = tarfile.SYMTYPE if target else tarfile.DIRTYPE, target
                archive.addfile(inner)
        if kind == "through a link":
            inner = tarfile.TarInfo("way")
            inner.type, inner.linkname = tarfile.SYMTYPE, "member"
            archive.addfile(inner)
            last = tarfile.TarInfo("way/escaped")
            archive.addfile(last, io.BytesIO(b""))
    return source


@pytest.mark.parametrize(
    "kind",
    [
        "climbs",
        "absolute",
        "link out",
        "absolute link",
        "device",
        "hard link out",
        "through a link",
        "zip that climbs",
        "by a chain of links",
        "a folder on a link",
    ],
)
def test_archives_do_not_leave_their_target(site: Site, folder: Path, kind: str) -> None:
    before = site.fingerprint()
    done = run(site, "import", "files", str(hostile(folder, kind)), "--into", "media/album")
    assert done.returncode == 4, done.stderr
    assert site.fingerprint() == before
    assert not list(folder.rglob("escaped"))


def test_what_cannot_be_imported_is_said(site: Site, folder: Path) -> None:
    for arguments, code in [
        (("database", str(folder / "none")), 4),
        (("files", str(folder / "none"), "--into", "media"), 4),
        (("files", str(folder), "--into", "nothing"), 4),
        (("files", str(site.media), "--into", "media"), 4),
        (("files", str(site.repository), "--into", "media/../out"), 4),
        (("files", str(site.repository), "--into", "media/.holdfast/x"), 4),
    ]:
        done = run(site, "import", *arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
