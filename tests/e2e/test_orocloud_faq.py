"""The questions and answers of OroCloud's maintenance manual, on the stand-in of OroPlatform; each has its title.

What Holdfast does by itself where that manual tells an operator what to do is in `test_oro`.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import tarfile
from collections.abc import Iterator

import pytest

from tests.e2e.cli import run, run_json, succeed
from tests.memory import make_folder
from tests.proof import patience
from tests.servers import postgresql
from tests.standins.oro.site import Oro
from tests.standins.visitor import Visitor

pytestmark = pytest.mark.combination


@pytest.fixture(scope="module")
def installed() -> Iterator[Oro]:
    made = Oro(make_folder("hfo"))
    try:
        succeed(made, "install", "v5.1.0")
        made.post("/upload", b"of a visitor")
        made.save()
        yield made
    finally:
        made.end()


@pytest.fixture
def oro(installed: Oro) -> Oro:
    installed.put_back()
    return installed


def commands_of(oro: Oro, operation: str = "latest") -> list[str]:
    """Return the commands of an operation, from its log."""
    log = run_json(oro, "log", "show", operation)["data"]["log"]
    return [" ".join(line["argv"]) for line in log if line["kind"] == "command"]


def test_what_is_the_difference_between_the_deploy_and_upgrade_commands(oro: Oro) -> None:
    """The one executes oro:install, the other oro:platform:update, which keeps the data."""
    (first,) = [one["id"] for one in run_json(oro, "log", "list")["data"]["operations"] if "install" in one["title"]]
    assert any("oro:install" in command for command in commands_of(oro, first))
    oro.post("/order", b"kept")
    succeed(oro, "upgrade", "v5.1.1")
    ran = commands_of(oro)
    assert any("oro:platform:update --force" in command for command in ran)
    assert not any("oro:install" in command for command in ran)
    assert oro.sql("SELECT count(*) FROM acme_order WHERE text = 'kept'") == "1"


def test_how_can_i_remove_existing_data_and_install_from_scratch_in_the_staging_environment(oro: Oro) -> None:
    refused = run(oro, "install", "v5.1.0", "--wipe")
    assert refused.returncode == 4, "this one is production"
    assert int(oro.sql("SELECT count(*) FROM acme_attachment")) == 1


def test_can_i_test_the_customized_application_in_a_development_mode(oro: Oro) -> None:
    """No: whatever lies beside index.php is not answered."""
    for name in ("app_dev.php", "index_dev.php"):
        (oro.app / "current" / "public" / name).write_text("<?php echo 'development';\n")
        assert oro.get(f"/{name}")[0] == 404
        assert oro.get(f"/{name}/user/login")[0] in (404, 200)
    assert oro.get("/index_dev.php")[1] is None


def test_what_is_in_the_application_backup(oro: Oro) -> None:
    """Media, the dump of the database, and the code, by which a restore brings back all three."""
    oro.post("/order", b"before the backup")
    succeed(oro, "backup", "create")
    shown = json.dumps(run_json(oro, "backup", "show", "latest")["data"])
    for part in ("main", "media", "data", "release"):
        assert f'"{part}"' in shown
    oro.sql("DELETE FROM acme_order")
    (name,) = [path.name for path in (oro.shared / "media/uploads").iterdir()]
    (oro.shared / "media/uploads" / name).unlink()
    succeed(oro, "upgrade", "v5.1.0-p1", "--source")
    succeed(oro, "backup", "restore", "latest")
    assert oro.version == "5.1.0"
    assert oro.sql("SELECT count(*) FROM acme_order WHERE text = 'before the backup'") == "1"
    assert oro.get(f"/media/uploads/{name}")[0] == 200


def test_how_do_i_know_what_the_operation_does(oro: Oro) -> None:
    done = run(oro, "upgrade", "v5.1.0-p1", "--source", "-vvv")
    assert done.returncode == 0
    assert "cache:warmup" in done.stdout + done.stderr


def test_how_can_i_find_the_supported_options_for_each_command(oro: Oro) -> None:
    for option in ("--help", "-h"):
        done = run(oro, "upgrade", option)
        assert done.returncode == 0
        assert all(one in done.stdout for one in ("--rolling", "--source", "--allow-incompatible"))


def test_can_i_download_an_application_database_dump(oro: Oro) -> None:
    """It can be exported; the operation's record says that unsanitized data of production left the vault."""
    succeed(oro, "backup", "create")
    done = run(oro, "backup", "export", "latest", str(oro.folder / "away"))
    assert done.returncode == 0
    assert "leaves the vault without being sanitized" in done.stdout + done.stderr


def test_can_we_make_specific_custom_directories_writable_for_web_user(oro: Oro) -> None:
    own = ["var", "var/cache", "public/js", "public/bundles", "own"]
    oro.config.write_text(oro.config.read_text().replace("[source]\n", f"[source]\nwritable = {json.dumps(own)}\n"))
    succeed(oro, "upgrade", "v5.1.0-p1", "--source")
    owner = os.stat(oro.app / "current" / "own").st_uid
    assert owner == (pwd.getpwnam("www-data").pw_uid if os.geteuid() == 0 else os.getuid())


def test_can_we_skip_backing_up_media_files_before_the_upgrade(oro: Oro) -> None:
    """Selective backups: one for the database, one for media, and either can be restored."""
    succeed(oro, "backup", "create", "--only", "main")
    database = run_json(oro, "backup", "list")["data"]["backups"][-1]["id"]
    succeed(oro, "backup", "create", "--only", "media")
    oro.sql("DELETE FROM acme_order")
    (file,) = (oro.shared / "media/uploads").iterdir()
    file.write_bytes(b"changed")
    succeed(oro, "backup", "restore", database, "--only", "main")
    assert int(oro.sql("SELECT count(*) FROM acme_order")) == 40
    assert file.read_bytes() == b"changed"
    plan = succeed(oro, "upgrade", "v5.1.1", "--dry-run", "--backup-except", "media", "--backup-except", "data")
    assert "files of media, data that it changed or removed do not come back" in plan


@pytest.mark.parametrize("version", ["bad-syntax", "dies"])
def test_the_upgrade_has_failed_what_are_the_recommended_steps(oro: Oro, version: str) -> None:
    """None: before the database changed the old version goes on, after it the data go back."""
    before = oro.digest()
    with Visitor(oro.port, "/user/login") as visitor:
        failed = run_json(oro, "upgrade", version)
    strategy = {"bad-syntax": "removing the new release", "dies": "the restore point"}[version]
    assert failed["error"]["undone_by"]["strategy"] == strategy
    assert set(visitor.statuses) <= {200, 503}
    patience.until(lambda: oro.get("/user/login")[0] == 200)
    assert oro.digest() == before


def test_i_have_a_database_dump_what_is_the_best_way_to_import_it(oro: Oro) -> None:
    oro.sql("INSERT INTO acme_order(text) VALUES ('of the dump')")
    host, name = oro.store.place["HOST"], oro.store.name
    arguments = [
        "pg_dump",
        "-h",
        host,
        "-p",
        str(postgresql.PostgresqlServer.port),
        "-U",
        "postgres",
        "--no-owner",
        name,
    ]
    dump = oro.folder / "dump.sql"
    dump.write_bytes(subprocess.run(arguments, capture_output=True, check=True).stdout)
    oro.sql("DELETE FROM acme_order")
    succeed(oro, "import", "database", str(dump))
    assert oro.sql("SELECT count(*) FROM acme_order WHERE text = 'of the dump'") == "1"
    assert oro.get("/user/login")[0] == 200


def test_how_to_upload_media_files_to_the_server(oro: Oro) -> None:
    (oro.folder / "new.bin").write_bytes(b"from elsewhere")
    with tarfile.open(oro.folder / "media.tar.gz", "w:gz") as archive:
        archive.add(oro.folder / "new.bin", "new.bin")
    succeed(oro, "import", "files", str(oro.folder / "media.tar.gz"), "--into", "media/uploads")
    path = oro.shared / "media/uploads/new.bin"
    assert path.read_bytes() == b"from elsewhere"
    assert oro.get("/media/uploads/new.bin")[0] == 200
    if os.geteuid() == 0:
        assert path.stat().st_uid == pwd.getpwnam("www-data").pw_uid, "the web user can replace it"
