"""A real Django project with real migrations, its dependencies as wheels and a virtual environment per release."""

from __future__ import annotations

import functools
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath

import pytest

from holdfast.system.host import Host
from holdfast.system.ports import free_loopback_port
from holdfast.system.processes import end_processes_with
from tests.memory import make_folder, remove_folder
from tests.proof import patience
from tests.proof.endings import at_end
from tests.stores import MariadbStore, PostgresqlStore
from tests.wheels import write_wheel

PROJECT = Path(__file__).parent / "django_project"

CONFIGURATION = """
extends = "preset:django"

[application]
name = "shop"
state = "{folder}/state"

[source]
repository = "{folder}/repo"

[source.python]
interpreter = "{python}"

[environment]
SECRET_KEY = "file:{folder}/secret"
{environment}
[databases.main]
{database}

[services.web]
command = ["gunicorn", "shop.wsgi", "--bind", "127.0.0.1:{{port}}", "--workers", "1"]
health = "/health/"
health_timeout_seconds = 20
settle_seconds = 0.3

[gate]
listen = "127.0.0.1:{port}"

[vaults.local]
path = "{folder}/vault"
"""


class Shop:
    def __init__(self, folder: Path, store: PostgresqlStore | MariadbStore | None = None) -> None:
        """With a store on a server, else on SQLite as the preset has it."""
        self.folder = folder
        self.store = store
        self.port = free_loopback_port()
        self.config = folder / "app" / "holdfast.toml"
        self.config.parent.mkdir()
        (folder / "secret").write_text("not-a-real-key\n")
        place = {"KIND": "mysql" if isinstance(store, MariadbStore) else "postgresql", **store.place} if store else {}
        self.config.write_text(
            CONFIGURATION.format(
                folder=folder,
                port=self.port,
                python=sys.executable,
                database=f'{store.lines}\npath = ""' if store is not None else "",
                environment="\n".join(f'DATABASE_{key} = "{value}"' for key, value in place.items()),
            )
        )
        self._build_repository()

    def _build_repository(self) -> None:
        """v1; v2 adds a column; v3 dies half-way; v4 answers 500; v5 adds what the old code tolerates."""
        repository = self.folder / "repo"
        shutil.copytree(PROJECT, repository, ignore=shutil.ignore_patterns("*.v2", "*.v3", "__pycache__"))
        host = Host()
        git = ["git", "-C", str(repository), "-c", "user.name=Shop", "-c", "user.email=shop@example.invalid"]
        host.capture([*git, "init", "--quiet"])
        migrations = repository / "notes" / "migrations"
        _add_history(repository / "archive" / "migrations")

        def commit(tag: str) -> None:
            (repository / "VERSION").write_text(f"{tag}\n")
            host.capture([*git, "add", "--all"])
            host.capture([*git, "commit", "--quiet", "--message", tag])
            host.capture([*git, "tag", tag])

        wanted = (PROJECT / "requirements.txt").read_text()
        (repository / "requirements.txt").write_text(
            f"{wanted}psycopg[binary]>=3.1\nPyMySQL>=1.1\n"
            if self.store is not None
            else f"--no-index\n--find-links {_wheels()}\nsetuptools\n{wanted}"
        )
        commit("v1")
        shutil.copy(PROJECT / "notes/migrations/0002_note_pinned.py.v2", migrations / "0002_note_pinned.py")
        models = repository / "notes" / "models.py"
        models.write_text(models.read_text() + "    pinned = models.BooleanField(default=False)\n")
        commit("v2")
        shutil.copy(PROJECT / "notes/migrations/0003_dies.py.v3", migrations / "0003_dies.py")
        commit("v3")
        (migrations / "0003_dies.py").unlink()
        commit("v4")
        models.write_text(models.read_text() + "    place = models.CharField(max_length=20, null=True)\n")
        (migrations / "0003_note_place.py").write_text(
            "from django.db import migrations, models\n\n\nclass Migration(migrations.Migration):\n"
            '    dependencies = [("notes", "0002_note_pinned")]\n'
            '    operations = [migrations.AddField("note", "place", models.CharField(max_length=20, null=True))]\n'
        )
        (repository / "holdfast.toml").write_text('[migrations]\ncompatible = ["notes.0003_*"]\n')
        commit("v5")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "holdfast", *arguments, "--yes", "--config", str(self.config)],
            capture_output=True,
            text=True,
            timeout=patience.limit(240),
            stdin=subprocess.DEVNULL,
            check=False,
            # Bytecode of all that pip installs would be half of the work, and is needed of little of it.
            env={**os.environ, "PIP_NO_COMPILE": "1"},
        )

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, object]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.request(method, path, body=body)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def media(self) -> dict[str, str]:
        root = self.folder / "app" / "shared" / "media"
        return {
            str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in root.rglob("*")
            if path.is_file() and ".holdfast" not in path.parts
        }


@functools.cache
def _wheels() -> Path:
    """Return a folder with wheels of what the project needs: unpacking all of Django would be most of the work."""
    folder = make_folder()
    at_end(lambda: remove_folder(folder))
    for name in ("Django", "asgiref", "sqlparse", "gunicorn", "packaging", "setuptools"):
        write_wheel(folder, name, _is_needed)
    return folder


def _is_needed(path: PurePath) -> bool:
    """Tell whether the project uses a file: no other languages, no applications that it does not name."""
    if path.parts[0] in ("setuptools", "pkg_resources", "_distutils_hack"):  # named so that it is not added
        return False
    if "locale" in path.parts:
        return "en" in path.parts or path.parts[-2] == "locale"
    return not {"admin", "admindocs", "gis", "postgres", "static"} & set(path.parts[1:-1])


def _add_history(migrations: Path) -> None:
    """Of an application that is some years old: many migrations, the first of them squashed.

    Their list is longer than the last lines that messages keep.
    """
    migrations.mkdir(parents=True)
    for folder in (migrations.parent, migrations):
        (folder / "__init__.py").touch()
    names = [f"{number:04}_{'what_was_changed_in_that_month_' * 4}" for number in range(1, 81)]
    for name, earlier in zip(names, ["", *names], strict=False):
        (migrations / f"{name}.py").write_text(
            "from django.db import migrations\n\n\nclass Migration(migrations.Migration):\n"
            f"    dependencies = {[('archive', earlier)] if earlier else []}\n"
        )
    # Django lists this one in place of the first two, and the database records all three.
    (migrations / "0001_squashed_0002.py").write_text(
        "from django.db import migrations\n\n\nclass Migration(migrations.Migration):\n"
        f"    replaces = {[('archive', name) for name in names[:2]]}\n"
    )


@pytest.fixture
def shop(folder: Path) -> Iterator[Shop]:
    made = Shop(folder)
    yield made
    end_processes_with(f"HOLDFAST_INSTANCE=shop.production@{folder}/state", grace_seconds=0, wait_seconds=10)


@pytest.fixture(
    params=[
        pytest.param(PostgresqlStore, id="postgresql", marks=pytest.mark.variant("postgresql")),
        pytest.param(MariadbStore, id="mariadb", marks=pytest.mark.variant("mariadb")),
    ]
)
def server_shop(request: pytest.FixtureRequest, folder: Path) -> Iterator[Shop]:
    store = request.param.create()
    yield Shop(folder, store)
    end_processes_with(f"HOLDFAST_INSTANCE=shop.production@{folder}/state", grace_seconds=0, wait_seconds=10)
    store.remove()


def test_a_django_project_is_installed_upgraded_undone_rolled_and_restored(shop: Shop) -> None:
    done = shop.run("install", "v1")
    assert done.returncode == 0, done.stderr
    for number in range(5):
        assert shop.request("POST", "/notes", b"attachment %d" % number)[0] == 201
    release = (shop.folder / "app" / "current").resolve()
    assert (release / ".venv" / "bin" / "gunicorn").exists()
    assert not (release / ".holdfast-wheels").exists()

    done = shop.run("upgrade", "v2")
    assert done.returncode == 0, done.stderr
    assert shop.request("GET", "/")[1] == {"version": "v2", "notes": 5}
    media = shop.media()

    done = shop.run("upgrade", "v3")
    assert done.returncode == 6
    assert "the old format is not known" in done.stderr
    assert shop.request("GET", "/")[1] == {"version": "v2", "notes": 5}
    assert shop.media() == media

    assert shop.run("upgrade", "v4").returncode == 6
    assert shop.request("GET", "/")[1] == {"version": "v2", "notes": 5}

    refused = shop.run("upgrade", "v1")
    assert refused.returncode == 4 and "notes.0002_note_pinned" in refused.stderr

    done = shop.run("upgrade", "v5", "--rolling")
    assert done.returncode == 0, done.stderr
    assert shop.request("GET", "/")[1] == {"version": "v5", "notes": 5}

    assert shop.run("backup", "create").returncode == 0
    assert shop.request("POST", "/notes", b"after the backup")[0] == 201
    next((shop.folder / "app" / "shared" / "media").rglob("*.bin")).unlink()
    done = shop.run("backup", "restore", "latest")
    assert done.returncode == 0, done.stderr
    assert shop.request("GET", "/")[1] == {"version": "v5", "notes": 5}
    assert shop.media() == media


def test_own_dumps_come_into_a_django_project(server_shop: Shop) -> None:
    """Made by pg_dump or mariadb-dump, and tar, never by Holdfast; one command each."""
    shop = server_shop
    assert shop.store is not None
    done = shop.run("install", "v1")
    assert done.returncode == 0, done.stderr
    for number in range(5):
        assert shop.request("POST", "/notes", b"attachment %d" % number)[0] == 201
    media, rows = shop.media(), shop.store.digest()
    shop.store.dump(shop.folder / "shop.dump")
    uploads = shop.folder / "app" / "shared" / "media"
    subprocess.run(
        ["tar", "-C", str(uploads), "--exclude", ".holdfast*", "-czf", str(shop.folder / "media.tgz"), "."], check=True
    )
    assert shop.request("POST", "/notes", b"afterwards")[0] == 201
    next(uploads.rglob("*.bin")).unlink()

    done = shop.run("import", "database", str(shop.folder / "shop.dump"))
    assert done.returncode == 0, done.stderr
    done = shop.run("import", "files", str(shop.folder / "media.tgz"), "--into", "media", "--replace")
    assert done.returncode == 0, done.stderr
    assert shop.request("GET", "/")[1] == {"version": "v1", "notes": 5}
    assert (shop.media(), shop.store.digest()) == (media, rows)

    assert shop.run("upgrade", "v2").returncode == 0
    assert shop.run("upgrade", "v3").returncode == 6
    assert shop.request("GET", "/")[1] == {"version": "v2", "notes": 5}
    done = shop.run("import", "database", str(shop.folder / "shop.dump"))
    assert done.returncode == 0, done.stderr
    assert "migrations are compared after the swap:" not in done.stderr, "its migrations were compared before"
    assert shop.request("GET", "/")[1] == {"version": "v2", "notes": 5}, "the dump of v1 was migrated"


def test_init_proposes_the_django_preset(shop: Shop, folder: Path) -> None:
    place = folder / "fresh"
    place.mkdir()
    shutil.copytree(shop.folder / "repo", place / "repository")
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "init", str(place)],
        capture_output=True,
        text=True,
        timeout=patience.limit(60),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = (place / "holdfast.toml").read_text()
    assert 'extends = "preset:django"' in text and "shop.wsgi" in text
    checked = subprocess.run(
        [sys.executable, "-m", "holdfast", "config", "validate", "--config", str(place)],
        capture_output=True,
        text=True,
        timeout=patience.limit(60),
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
