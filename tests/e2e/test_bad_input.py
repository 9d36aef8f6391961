"""Bad input: a clear message, what to type next, a non-zero exit code, and nothing changed."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
import pymysql
import pytest

from holdfast.errors import NoSpaceError
from holdfast.steps import service_preparation
from holdfast.system import durable
from holdfast.system.ports import free_loopback_port
from tests import kept
from tests.e2e.cli import argv, run, run_json
from tests.servers import mariadb, postgresql
from tests.site import Site
from tests.stores import MariadbStore, PostgresqlStore


@pytest.fixture
def installed() -> Iterator[Site]:
    with kept.site(backup=True) as site:
        yield site


def only_set(site: Site) -> Path:
    return sorted((site.vault / "backups").iterdir())[-1]


def test_all_configuration_problems_at_once_with_their_key_paths(site: Site) -> None:
    text = site.config.read_text()
    text = text.replace("[gate]", '[gate]\nlisten_to = "x"').replace('kind = "sqlite"', 'kind = "oracle"')
    text = text.replace("settle_seconds = 0.05", 'settle_seconds = "soon"')
    site.config.write_text(text)
    done = run(site, "config", "validate")
    assert done.returncode == 3
    for key in ("gate.listen_to", "databases.main.kind", "services.web.settle_seconds"):
        assert key in done.stderr
    assert "holdfast config help" in done.stderr
    assert not site.state.exists()


def test_a_backup_without_a_database_that_was_there_is_none(installed: Site) -> None:
    """Its name is wrong, or it was lost: a set without it would look like a good one."""
    installed.shut_down()
    found = sorted((installed.vault / "backups").iterdir())
    installed.database.rename(installed.folder / "lost.db")
    done = run(installed, "backup", "create")
    assert done.returncode == 4 and "databases.main does not exist" in done.stderr and "--except" in done.stderr
    assert sorted((installed.vault / "backups").iterdir()) == found
    assert run(installed, "backup", "create", "--except", "main").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("upgrade", "v22"), 4, "Did you mean v2"),
        (("status", "--environment", "stagign"), 4, "holdfast.stagign.toml"),
        (("upgrade", "--", "-x"), 4, "-x"),
        (("backup", "restore", "1999"), 4, "backup list"),
        (("backup", "show", "2"), 4, "matches 2 backups"),
        (("backup", "create", "--only", "mian"), 4, "Did you mean main"),
        (("package", "deploy", "nope"), 4, "nope"),
        (("service", "stop", "wbe"), 4, "Did you mean web?"),
        (("maintenance", "on", "--duration", "soon"), 2, "soon"),
        (("log", "show", "nope"), 4, "log list"),
        (("config", "help", "gate.listn"), 4, "Did you mean gate.listen?"),
        (("rollback",), 4, "release list"),
        (("rollback", "--to", "v9"), 4, "release list"),
        (("import", "files", "/etc", "--into", "medai"), 4, "Did you mean media?"),
        (("recover", "--state", "/nonexistent"), 4, "/nonexistent"),
        (("nonsense",), 2, "nonsense"),
    ],
)
def test_what_does_not_exist_is_named(installed: Site, arguments: tuple[str, ...], code: int, says: str) -> None:
    before = installed.fingerprint()
    done = run(installed, *arguments)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert installed.fingerprint() == before


@pytest.mark.parametrize(
    "arguments",
    [("backup", "create"), ("backup", "create", "--consistency", "live"), ("upgrade", "v2"), ("service", "start")],
)
def test_uploads_whose_disk_is_not_mounted_are_not_taken_for_the_uploads(
    installed: Site, arguments: tuple[str, ...]
) -> None:
    sets = sorted((installed.vault / "backups").iterdir())
    installed.media.rename(installed.folder / "disk")
    installed.media.mkdir()
    done = run(installed, *arguments)
    assert done.returncode == 4 and "Mount the disk" in done.stderr, done.stderr
    assert list(installed.media.iterdir()) == [], "an empty mount point is not marked as the data"
    assert sorted((installed.vault / "backups").iterdir()) == sets
    installed.media.rmdir()
    (installed.folder / "disk").rename(installed.media)
    done = run(installed, *arguments)
    assert done.returncode == 0, done.stderr


def test_data_that_lost_their_marker_are_restored_or_taken_as_they_are(installed: Site) -> None:
    before = installed.fingerprint()
    installed.media.rename(installed.folder / "disk")
    installed.media.mkdir()
    (installed.media / "put-there-by-hand").write_bytes(b"x")
    done = run(installed, "backup", "create", "--adopt-data", "--consistency", "live", "--only", "media")
    assert done.returncode == 0, done.stderr
    assert run(installed, "backup", "create", "--only", "media").returncode == 0, "it has its marker from now on"
    installed.media.rename(installed.folder / "other")
    done = run(installed, "backup", "restore", only_whole(installed))
    assert done.returncode == 0, done.stderr
    assert installed.fingerprint() == before


def only_whole(site: Site) -> str:
    """Return the id of the newest set that has the database, too."""
    found = run_json(site, "backup", "list")["data"]["backups"]
    return str([backup["id"] for backup in found if "main" in backup["datasets"]][-1])


@pytest.mark.parametrize("arguments", [("backup", "create"), ("upgrade", "v2")])
def test_a_configured_file_that_is_gone_fails_the_backup(installed: Site, arguments: tuple[str, ...]) -> None:
    text = installed.config.read_text()
    installed.config.write_text(text.replace("[backup]", '[backup]\nconfig_files = ["keys.env"]'))
    sets = sorted((installed.vault / "backups").iterdir())
    done = run(installed, *arguments)
    assert done.returncode == 4 and "keys.env" in done.stderr
    assert sorted((installed.vault / "backups").iterdir()) == sets
    (installed.app_folder / "keys.env").write_text("SECRET=1")
    done = run(installed, *arguments)
    assert done.returncode == 0, done.stderr


def test_an_installation_may_write_a_configured_file() -> None:
    with kept.site(tags=()) as site:
        text = site.config.read_text()
        site.config.write_text(text.replace("[backup]", '[backup]\nconfig_files = ["keys.env"]'))
        done = run(site, "install", "v1")
        assert done.returncode == 0, done.stderr
        done = run(site, "backup", "create")
        assert done.returncode == 4 and "keys.env" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_caller_that_closed_streams_gets_its_backup(installed: Site, closed: str) -> None:
    """As a daemon or a job of cron may; and nothing that is opened takes a stream's number."""
    before = len(run_json(installed, "backup", "list")["data"]["backups"])
    arguments = shlex.join(argv(installed, "backup", "create"))
    done = subprocess.run(
        ["sh", "-c", f"umask 077; exec {arguments} {closed}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(run_json(installed, "backup", "list")["data"]["backups"]) == before + 1
    assert run(installed, "backup", "verify").returncode == 0


def test_errors_are_one_json_object_too(installed: Site) -> None:
    done = run(installed, "upgrade", "v99", "--json")
    value = json.loads(done.stdout)
    assert value["holdfast"] == 1 and value["ok"] is False and value["exit_code"] == 4 == done.returncode
    assert value["error"]["class"] == "NotFoundError"
    assert value["error"]["next_step"]


def test_a_taken_port_is_named(site: Site) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", site.port))
        holder.listen()
        done = run(site, "install", "v1")
    assert done.returncode == 4
    assert str(site.port) in done.stderr and "gate.listen" in done.stderr
    assert not (site.app_folder / "current").exists()


def test_an_answer_from_a_strangers_port_is_not_the_new_versions(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    site.operate("install", "v1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever).start()
        choices = iter([stranger.server_port])
        monkeypatch.setattr(
            service_preparation, "free_loopback_port", lambda: next(choices, None) or free_loopback_port()
        )
        try:
            site.operate("upgrade", "v2")
        finally:
            stranger.shutdown()
    assert next(choices, None) is None
    assert site.get("/")[1]["version"] == "v2"


def test_a_vault_of_a_newer_format_is_refused(installed: Site) -> None:
    from holdfast.drivers.vaults.local import manifest

    path = installed.vault / "holdfast-vault.json"
    value = manifest.unseal(path)
    path.write_bytes(manifest.sealed({**value, "format": 99}))
    before = installed.fingerprint()
    for arguments in (("backup", "create"), ("backup", "restore", "latest"), ("upgrade", "v2")):
        done = run(installed, *arguments)
        assert done.returncode in (4, 6), done.stderr
        assert "format 99" in done.stderr
    assert installed.fingerprint() == before
    assert installed.get("/")[1]["version"] == "v1"


def test_a_damaged_manifest_is_not_listed_not_restored_not_swept(installed: Site) -> None:
    folder = only_set(installed)
    path = folder / "manifest.json"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b'"main"', b'"mAin"', 1))
    before = installed.fingerprint()
    listed = run(installed, "backup", "list")
    assert folder.name not in listed.stdout and "damaged" in listed.stderr
    assert run(installed, "backup", "restore", folder.name).returncode == 4
    verify = run(installed, "backup", "verify")
    assert verify.returncode == 9
    assert run(installed, "backup", "prune").returncode == 9
    assert folder.is_dir()
    assert installed.fingerprint() == before


def test_a_partial_backup_is_never_called_whole(installed: Site) -> None:
    assert run(installed, "backup", "create", "--only", "media").returncode == 0
    verified = run(installed, "backup", "verify")
    assert "3 backups verified: undamaged (2 of them partial)" in verified.stdout, "one is of the installation"


def test_a_backup_before_the_installation_says_what_it_lacks(site: Site) -> None:
    done = run(site, "backup", "create")
    assert done.returncode == 0, done.stderr
    assert "note: This backup is partial: there is no databases.main yet." in done.stderr


def test_a_damaged_dump_stops_a_prune_before_its_commit_and_nothing_else(installed: Site) -> None:
    folder = only_set(installed)
    path = folder / "database.main.sqlite3"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes() + b"more")
    for _ in range(2):
        done = run(installed, "backup", "prune", "--yes")
        assert done.returncode == 9, done.stderr
        assert f"{folder.name}/database.main.sqlite3 is damaged" in done.stderr and str(folder) in done.stderr
        assert "recover" not in done.stderr
        assert run(installed, "backup", "create").returncode == 0
    assert folder.is_dir()


def test_a_damaged_dump_is_refused_before_anything_changes(installed: Site) -> None:
    path = only_set(installed) / "database.main.sqlite3"
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    before = installed.fingerprint()
    done = run(installed, "backup", "restore", only_set(installed).name)
    assert done.returncode == 9
    assert "damaged" in done.stderr
    assert installed.fingerprint() == before
    assert installed.get("/")[0] == 200


def test_a_file_that_cannot_be_read_fails_the_backup_with_its_name(
    installed: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    victim = next(installed.media.rglob("*.bin"))
    victim.write_bytes(b"fresh content")
    real = os.open

    def refusing(path: object, *arguments: object, **options: object) -> int:
        if os.fsdecode(path) == victim.name:  # type: ignore[call-overload]
            raise PermissionError(13, "Permission denied", victim.name)
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    from holdfast.errors import OperationFailedError

    count = len(list((installed.vault / "backups").iterdir()))
    monkeypatch.setattr("os.open", refusing)
    with pytest.raises(OperationFailedError) as caught:
        installed.operate("backup")
    monkeypatch.undo()
    assert str(victim) in str(caught.value)
    assert len(list((installed.vault / "backups").iterdir())) == count


def test_state_on_a_network_filesystem_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.errors import RefusedError

    monkeypatch.setattr("holdfast.system.durable.network_filesystem", lambda path: "nfs")
    with pytest.raises(RefusedError) as caught:
        site.open()
    assert "nfs" in str(caught.value) and "application.state" in str(caught.value)


def test_datasets_inside_one_another_are_refused(site: Site) -> None:
    text = site.config.read_text().replace(f'path = "{site.vault}"', 'path = "shared/media/vault"')
    site.config.write_text(text)
    done = run(site, "config", "validate")
    assert done.returncode == 3
    assert "are inside one another" in done.stderr


def test_production_is_not_made_something_less_by_editing_a_file(installed: Site) -> None:
    text = installed.config.read_text().replace(
        'environment = "production"', 'environment = "production"\ntype = "dev"'
    )
    installed.config.write_text(text)
    done = run(installed, "backup", "create")
    assert done.returncode == 4
    assert "prod" in done.stderr


def test_check_names_what_to_type(installed: Site) -> None:
    done = run(installed, "check")
    assert "same filesystem as the data" in done.stdout
    (installed.app_folder / "shared" / "guestbook.sqlite3").chmod(0o600)
    installed.shut_down()
    assert "holdfast service start" in run(installed, "check").stdout


def test_a_hostile_archive_cannot_leave_its_target(installed: Site, folder: Path) -> None:
    """A package whose members climb out, adopted by its own true digest."""
    import io
    import tarfile

    import zstandard

    from holdfast.errors import DamagedError

    app = installed.open()
    package = app.context.packages.packages()[0]
    archive = Path(package.path) / "package.tar.zst"
    for name, kind, link in (
        ("../../escaped", tarfile.REGTYPE, ""),
        ("/tmp/escaped", tarfile.REGTYPE, ""),
        ("link", tarfile.SYMTYPE, "/etc"),
    ):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, link, 0
            tar.addfile(member)
            if kind == tarfile.SYMTYPE:
                inner = tarfile.TarInfo("link/escaped")
                tar.addfile(inner)
        archive.write_bytes(zstandard.ZstdCompressor().compress(buffer.getvalue()))
        manifest = json.loads((Path(package.path) / "manifest.json").read_text())
        import hashlib

        manifest["digest"] = hashlib.sha256(archive.read_bytes()).hexdigest()
        (Path(package.path) / "manifest.json").write_text(json.dumps(manifest))
        changed = app.context.packages.packages()[0]
        target = folder / "release"
        with pytest.raises(DamagedError):
            app.context.packages.unpack(changed, target, {})
        assert not list(folder.rglob("escaped")) or all(target in path.parents for path in folder.rglob("escaped"))
        assert not Path("/tmp/escaped").exists() and not Path("/etc/escaped").exists()
    app.close()


# --- PostgreSQL ---------------------------------------------------------------------------------------------


@pytest.fixture
def on_postgresql() -> Iterator[Site]:
    with kept.site("postgresql") as site:
        yield site


@pytest.mark.parametrize("arguments", [("upgrade", "v2"), ("backup", "create", "--consistency", "quiesce")])
@pytest.mark.parametrize("why", ["no right", "unreachable", "wrong role"])
def test_what_postgresql_cannot_do_is_said_before_anything_changes(
    on_postgresql: Site, arguments: tuple[str, ...], why: str
) -> None:
    site = on_postgresql
    before = site.fingerprint()
    text = site.config.read_text()
    with postgresql.shared() as server:
        try:
            if why == "no right":
                server.run("postgres", f"ALTER ROLE {postgresql.ROLE} NOCREATEDB")
            elif why == "unreachable":
                site.config.write_text(text.replace(f'host = "{server.folder}"', f'host = "{site.folder}"'))
            else:
                site.config.write_text(text.replace(f'user = "{postgresql.ROLE}"', 'user = "nobody"', 1))
            done = run(site, *arguments)
        finally:
            server.run("postgres", f"ALTER ROLE {postgresql.ROLE} CREATEDB")
            site.config.write_text(text)
    assert done.returncode == 4, done.stderr
    assert {"no right": "CREATEDB", "unreachable": "holdfast check", "wrong role": "nobody"}[why] in done.stderr
    assert "Traceback" not in done.stderr
    assert site.fingerprint() == before
    assert site.get("/health")[0] == 200


def test_a_strangers_session_refuses_an_upgrade_by_name(on_postgresql: Site) -> None:
    site = on_postgresql
    assert isinstance(site.store, PostgresqlStore)
    before = site.fingerprint()
    with psycopg.connect(f"{site.store.dsn} application_name=report"):
        done = run(site, "upgrade", "v2")
    assert done.returncode == 4, done.stderr
    assert "report" in done.stderr and "end_sessions" in done.stderr
    assert site.fingerprint() == before
    assert site.get("/")[1]["version"] == "v1"


# --- MariaDB ------------------------------------------------------------------------------------------------


@pytest.fixture
def on_mariadb() -> Iterator[Site]:
    with kept.site("mariadb") as site:
        yield site


@pytest.mark.parametrize("arguments", [("upgrade", "v2"), ("backup", "create", "--consistency", "quiesce")])
@pytest.mark.parametrize("why", ["no right", "unreachable", "wrong account"])
def test_what_mariadb_cannot_do_is_said_before_anything_changes(
    on_mariadb: Site, arguments: tuple[str, ...], why: str
) -> None:
    site = on_mariadb
    assert isinstance(site.store, MariadbStore)
    before = site.fingerprint()
    text = site.config.read_text()
    account = f"{mariadb.USER}@localhost"
    with mariadb.shared() as server:
        try:
            if why == "no right":
                server.run("mysql", f"REVOKE ALL ON `hf-%`.* FROM {account}")
            elif why == "unreachable":
                site.config.write_text(text.replace(f'host = "{server.socket}"', f'host = "{site.folder}/socket"'))
            else:
                site.config.write_text(text.replace(f'user = "{mariadb.USER}"', 'user = "nobody"', 1))
            done = run(site, *arguments)
        finally:
            server.run("mysql", f"GRANT ALL ON `hf-%`.* TO {account}")
            site.config.write_text(text)
    assert done.returncode == 4, done.stderr
    assert {"no right": "hf-%", "unreachable": "holdfast check", "wrong account": "nobody"}[why] in done.stderr
    assert "Traceback" not in done.stderr
    assert site.fingerprint() == before
    assert site.get("/health")[0] == 200


def test_a_strangers_session_on_mariadb_refuses_an_upgrade_by_name(on_mariadb: Site) -> None:
    site = on_mariadb
    assert isinstance(site.store, MariadbStore)
    before = site.fingerprint()
    place = site.store.place
    with pymysql.connect(unix_socket=place["HOST"], user=place["USER"], database=place["NAME"]):
        done = run(site, "upgrade", "v2")
    assert done.returncode == 4, done.stderr
    assert f"({mariadb.USER} from localhost" in done.stderr and "end_sessions" in done.stderr
    assert site.fingerprint() == before
    assert site.get("/")[1]["version"] == "v1"


def test_a_server_without_room_for_a_copy_refuses_an_upgrade(on_mariadb: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site = on_mariadb
    before = site.fingerprint()
    with mariadb.shared() as server:
        full = str(server.folder / "data") + "/"
    really = durable.free_bytes
    monkeypatch.setattr(durable, "free_bytes", lambda path: 1 << 20 if str(path) == full else really(path))
    with pytest.raises(NoSpaceError, match=full):
        site.operate("upgrade", "v2")
    site.operate("backup")
    assert site.fingerprint() == before


@pytest.mark.parametrize("level", ["live", "pause", "quiesce"])
def test_a_file_that_the_database_names_and_nobody_has_fails_the_backup(installed: Site, level: str) -> None:
    status, _ = installed.post(b"named by a row")
    assert status == 201
    newest = max(installed.media.rglob("*.bin"), key=lambda path: path.stat().st_mtime_ns)
    newest.unlink()
    before = run_json(installed, "backup", "list")["data"]["backups"]
    done = run(installed, "backup", "create", "--consistency", level)
    assert done.returncode == 6, done.stderr
    assert "1 files that the database names are not in the backup" in done.stderr
    assert "is mounted and complete" in done.stderr
    assert run_json(installed, "backup", "list")["data"]["backups"] == before
