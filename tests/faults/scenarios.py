"""The operations that are killed: how the site is before, what runs, and what may be true afterwards."""

from __future__ import annotations

import difflib
import io
import json
import shutil
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace

from holdfast.application import sanitizing
from holdfast.config.schema import Hooks
from holdfast.operations import clone, secret
from tests.proof import patience
from tests.proof.endings import at_end
from tests.proof.rotation import FamilyName
from tests.servers.registry import RegistryServer
from tests.site import IN_CONTAINERS, Site
from tests.stores import PostgresqlStore


@dataclass(frozen=True)
class Scenario:
    """One operation on one state of a site.

    The releases of `tags` are deployed, then `before` brings the site to its old state; `act` is the operation.
    `writers` run meanwhile where data must stay.
    """

    name: str
    tags: tuple[str, ...]
    act: Callable[[Site], None]
    before: Callable[[Site], None] | None = None
    writers: bool = False
    fails: bool = False
    installed: bool = True
    keeps_replaced: bool = False
    held_afterwards: bool = False
    anew: bool = False  # the operation writes files again, each with the time of its own run
    slow: float = 0.4  # seconds that the migration of v5 takes
    engine: str = "sqlite"

    def prepare(self, site: Site) -> None:
        """Bring a new site to the old state."""
        for number, tag in enumerate(self.tags):
            site.operate("upgrade" if number else "install", tag)
        if self.before is not None:
            self.before(site)

    @property
    def title(self) -> str:
        return self.name if self.engine == "sqlite" else f"{self.engine}_{self.name}"

    @property
    def in_containers(self) -> bool:
        return self.engine in IN_CONTAINERS

    @property
    def family(self) -> FamilyName:
        if self.engine == "sqlite":
            return "embedded"
        return "container" if self.in_containers else "inside" if self.engine.endswith("-inside") else "server"


LOST = "settings.ini"


def changed_after_backup(site: Site) -> None:
    """A backup is made; then rows, files and the release change, and a file of the configuration is lost."""
    configured = site.app_folder / LOST
    configured.write_text("of the backup\n")
    site.config.write_text(site.config.read_text().replace("[backup]\n", f'[backup]\nconfig_files = ["{LOST}"]\n'))
    site.operate("backup")
    for number in range(5):
        site.post(b"since the backup %d" % number)
    victims = sorted(path for path in site.media.rglob("*.bin"))[:4]
    victims[0].unlink()
    victims[1].write_bytes(b"changed")
    site.operate("upgrade", "v2")
    configured.unlink()


SHIPPED = "migrations"
"""What the first release ships at a path that all releases share, and that is no data."""


def _shares_what_is_shipped(site: Site) -> None:
    """A folder that a release ships is shared by all, and a task runs before anything is stopped."""
    if site.project:
        return
    text = site.config.read_text()
    text = text.replace("shared = {", f'writable = ["var"]\nshared = {{ "{SHIPPED}" = "shared/{SHIPPED}/",', 1)
    site.config.write_text(text.replace("[tasks]\n", '[tasks]\nprepare = [["touch", "var/a"], ["touch", "var/b"]]\n'))


def _with_rules(site: Site) -> None:
    """Rules for sanitized backups, and decisions that were looked at."""
    site.config.with_name("sanitize.toml").write_text(
        '[tables.entries.columns]\nauthor = "name"\ntext = "text"\n'
        'file = { keep = "a name" }\nsha256 = { keep = "a digest" }\n'
        "[tables.schema_migrations]\n"
    )
    app = site.open()
    sanitizing.write_lock(app.context, sanitizing.decisions(app.context, sanitizing.read_rules(app.context)))
    app.close()


def _several_backups(site: Site) -> None:
    for number in range(5):
        site.post(b"between backups %d" % number)
        site.operate("backup")


def _restore_first(site: Site) -> None:
    app = site.open()
    assert app.context.vault is not None
    # the set made by `backup create`, after the one of the installation
    wanted = app.context.vault.backups()[1].id
    app.close()
    site.operate("restore", wanted)


def _files_lost(site: Site) -> None:
    """A backup is made; then a file is lost with its folder, one is overwritten, and one gets another mode."""
    for name in ("kept", "lost/deep"):
        (site.media / name).mkdir(parents=True)
        (site.media / name / "file.txt").write_text(name)
    site.operate("backup")
    shutil.rmtree(site.media / "lost")
    (site.media / "kept" / "file.txt").write_text("overwritten")
    (site.media / "kept" / "new.txt").write_text("since the backup")
    victim = min(site.media.rglob("*.bin"))
    victim.chmod(0o600)
    site.post(b"since the backup")


def _restore_files(site: Site) -> None:
    victim = min(site.media.rglob("*.bin")).relative_to(site.media)
    site.operate("restore_paths", "latest", ["media/lost/deep/file.txt", "media/kept", f"media/{victim}"])


def _discard(site: Site) -> None:
    app = site.open()
    assert app.context.vault is not None
    instant = app.context.vault.backups()[-1].instant
    app.close()
    site.operate("rollback", discard_writes_since=instant)


def _with_a_dump(site: Site) -> None:
    """A dump is made by the engine's own tool, and rows are added since."""
    site.store.dump(site.folder / "dump")
    for number in range(5):
        site.post(b"since the dump %d" % number)


def _with_a_cold_directory(site: Site) -> None:
    """The data directory of a server with the same rows is kept, and rows are added since."""
    assert isinstance(site.store, PostgresqlStore)
    site.store.cold(site.folder / "cold")
    site.folder.parent.chmod(0o711)  # the private server's account passes through
    (site.folder / "scratch").mkdir()
    for number in range(5):
        site.post(b"since the copy %d" % number)


def _import_cold(site: Site) -> None:
    site.operate("import_database", str(site.folder / "cold"), cold=True, scratch=str(site.folder / "scratch"))


def _with_an_archive(site: Site) -> None:
    names = sorted(path for path in site.media.rglob("*.bin"))[:2]
    with tarfile.open(site.folder / "archive", "w:gz") as archive:
        for name in (*(str(path.relative_to(site.media)) for path in names), "album/new.txt"):
            info = tarfile.TarInfo(name)
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))


def _beside_another(site: Site) -> None:
    """A staging at v1, and a production at v2 beside it with a backup, other rows and other files."""
    text = site.config.read_text()
    site.config.write_text(text.replace('environment = "production"', 'environment = "production"\ntype = "stag"'))
    site.operate("install", "v1")
    other = Site(site.folder / "other", rows=30, files=3)
    try:
        other.operate("install", "v1")
        other.post(b"of the other one")
        other.operate("backup")
    finally:
        other.shut_down()


def _clone(site: Site) -> None:
    other = Site(site.folder / "other").open()
    app = site.open()
    try:
        app.run(clone.plan(app, other, "latest", unsanitized=True, safety=True))
    finally:
        app.close()
        other.close()


_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


def _with_an_album(site: Site) -> None:
    """A folder with some pictures, two of which have the names of others that will be uploaded."""
    for name in ("a.png", "b.png", "deep/c.png"):
        path = site.media / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_PNG + name.encode())


def _with_new_files(site: Site) -> None:
    _with_an_album(site)
    for name in ("a.png", "deep/c.png", "deep/new.png"):
        path = site.folder / "new" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_PNG + b"uploaded " + name.encode())


def _as_configured(site: Site) -> None:
    """Let the services run as they are configured now."""
    site.operate("service", "stop", ())
    site.operate("service", "start", ())


def _refused_secret(site: Site) -> None:
    """The web does not start with the pending value."""
    _with_a_secret(site)
    check = "import os, sys; sys.exit(os.environ['TOKEN'] != 'value of before')"
    command = f'{sys.executable} -c "{check}" && exec python3 app.py {{port}}'
    overlay = site.config.with_name("holdfast.prod.toml")
    overlay.write_text(f"{overlay.read_text()}[services.web]\ncommand = {json.dumps(['sh', '-c', command])}\n")
    _as_configured(site)


def _with_a_secret(site: Site) -> None:
    """The web uses a secret, which has a value, and a second one is pending."""
    overlay = '[environment]\nTOKEN = "secret:TOKEN"\n'
    site.config.with_name("holdfast.prod.toml").write_text(overlay)
    for value in ("value of before", "value of afterwards"):
        app = site.open()
        try:
            app.loaded.secret_store().set("TOKEN", value, "test")
            if value == "value of before":
                app.run(secret.plan_apply(app))
        finally:
            app.close()
        if value == "value of before":
            _as_configured(site)


def _installed_as_staging(site: Site) -> None:
    """An environment whose data may be wiped, with rows of its visitors."""
    text = site.config.read_text()
    site.config.write_text(text.replace('environment = "production"', 'environment = "production"\ntype = "stag"'))
    site.operate("install", "v1")
    for number in range(5):
        site.post(b"before the wipe %d" % number)


def _unproven(site: Site) -> None:
    """The first backup of a database is loaded beside it once."""
    site.config.write_text(site.config.read_text().replace("prove = false", "prove = true"))


def _with_a_worker(site: Site) -> None:
    worker = '[services.mail]\ncommand = ["sleep", "86400"]\nsettle_seconds = 0.05\nstop_timeout_seconds = 1'
    site.config.write_text(f"{site.config.read_text()}\n{worker}\n")
    site.operate("service", "start", ["mail"])


def _with_a_schedule(site: Site) -> None:
    """The service that starts scheduled tasks runs, and nothing is due."""
    task = '[schedule.nightly]\ncommands = ["true"]\nminute = "30"\nhour = "3"\nmonthday = "1"'
    site.config.write_text(f"{site.config.read_text()}\n{task}\n")
    site.operate("service", "start", ["schedule"])


def _held_with_a_worker(site: Site) -> None:
    _with_a_worker(site)
    site.operate("maintenance", on=True)


HOOKS = "hooks.log"
"""In the site's folder: a line of each command of a hook, with its operation."""


def _with_hooks(site: Site) -> None:
    """Every hook notes each of its runs; a worker starts after the gate is open."""
    note = f'["sh", "-c", "echo $HOLDFAST_OPERATION $HOLDFAST_HOOK >> {site.folder}/{HOOKS}"]'
    hooks = "\n".join(f"{name} = {note}" for name in Hooks.__struct_fields__)
    _with_a_worker(site)
    site.config.write_text(f"{site.config.read_text()}\n[hooks]\n{hooks}\n")


PATCH = "fixed.patch"


def _with_a_registry(site: Site) -> None:
    """A registry on the loopback interface keeps its contents with the site, so they are put back with it."""
    server = RegistryServer(data=site.folder / "registry")
    at_end(server.remove)
    text = f'\n[packages.registry]\nurl = "{server.url("shop/packages")}"\ntimeout_seconds = {patience.limit(5)}\n'
    site.config.write_text(site.config.read_text() + text)


def _pushed_elsewhere(site: Site) -> None:
    """The registry has a package that this machine has not."""
    _with_a_registry(site)
    site.operate("build", "v2", "sale")
    shutil.rmtree(site.state / "packages" / "sale")


def _with_a_patch(site: Site) -> None:
    """A patch of what visitors see."""
    old = (site.app_folder / "current" / "settings.json").read_text().splitlines(keepends=True)
    new = [line.replace('"v1"', '"v1, fixed"') for line in old]
    text = "".join(difflib.unified_diff(old, new, "a/settings.json", "b/settings.json"))
    (site.folder / PATCH).write_text(text)


def _patched(site: Site) -> None:
    _with_a_patch(site)
    site.operate("patch_apply", str(site.folder / PATCH))


def _without_recent_backup(site: Site) -> None:
    """The upgrade makes a whole backup before the window, as if the last one were old."""
    site.config.write_text(site.config.read_text() + '\n[upgrade]\nrecent_backup = "0h"\n')


def _switches(site: Site) -> None:
    """Keys of the application's own file and a file among the data are switched with the gate."""
    (site.app_folder / "shared" / "configuration.yml").write_text("main:  # of the application\n  maintenance: false\n")
    site.config.write_text(f"""{site.config.read_text()}
[gate.switches.application]
kind = "yaml"
path = "shared/configuration.yml"
set = {{ "main.maintenance" = "true" }}
after = ["true"]

[gate.switches.flag]
kind = "file"
path = "shared/media/maintenance.html"
content = "closed"
""")


_PENDING = """
import sys; sys.path.insert(0, "."); from pathlib import Path; from database import connect
done = {row[0] for row in connect().execute("SELECT name FROM schema_migrations")}
print(*sorted({path.stem for path in Path("migrations").glob("*.py")} - done), sep="\\n")
"""
# In one line, because a fault point's label has the argument.
_SQL = "ALTER TABLE entries ADD mood TEXT NOT NULL DEFAULT 'fine'; CREATE TABLE moods (name TEXT /* of 0002_mood */)"


def _answers_questions(site: Site) -> None:
    """A release prints its pending migrations and their SQL, which shows that the old code tolerates them."""
    pending = ["python3", "-c", _PENDING]
    lines = f"pending = {json.dumps(pending)}\nsql = {json.dumps(['echo', _SQL])}\n"
    site.config.write_text(site.config.read_text().replace("[migrations]\n", f"[migrations]\n{lines}"))


def _upgrade(tag: str, mode: str = "maintenance", **options: bool) -> Callable[[Site], None]:
    return lambda site: site.operate("upgrade", tag, mode=mode, **options)


SCENARIOS = [
    Scenario("upgrade", ("v1",), _upgrade("v2")),
    Scenario("upgrade_that_fails", ("v1", "v2"), _upgrade("v3"), _without_recent_backup, fails=True),
    Scenario("upgrade_that_answers_500", ("v1", "v2"), _upgrade("v4"), fails=True),
    Scenario("upgrade_with_slow_migration", ("v1", "v2"), _upgrade("v5"), slow=1.5),
    Scenario("upgrade_without_backup", ("v1",), _upgrade("v2", backup=False)),
    Scenario("upgrade_with_hooks", ("v1",), _upgrade("v2", backup=False), _with_hooks),
    Scenario("upgrade_with_hooks_that_fails", ("v1", "v2"), _upgrade("v4", backup=False), _with_hooks, fails=True),
    Scenario("backup_with_hooks", ("v1",), lambda site: site.operate("backup"), _with_hooks, writers=True),
    Scenario("rolling", ("v1", "v2", "v5"), _upgrade("v6", "rolling"), writers=True),
    Scenario("rolling_by_its_sql", ("v1",), _upgrade("v2", "rolling"), _answers_questions, writers=True),
    Scenario("source", ("v1", "v2", "v5", "v6"), _upgrade("v6.1", "source"), writers=True),
    Scenario(
        "rollback_code_only", ("v1", "v2", "v5", "v6", "v6.1"), lambda site: site.operate("rollback"), writers=True
    ),
    Scenario("rollback_with_data", ("v1", "v2"), _discard, keeps_replaced=True),
    Scenario("install", (), lambda site: site.operate("install", "v1"), _shares_what_is_shipped, installed=False),
    Scenario(
        "install_wipe", (), lambda site: site.operate("install", "v2", wipe=True), _installed_as_staging, anew=True
    ),
    Scenario("backup_pause", ("v1",), lambda site: site.operate("backup"), writers=True),
    Scenario("backup_quiesce", ("v1",), lambda site: site.operate("backup", consistency="quiesce"), _unproven),
    Scenario("restore", ("v1",), _restore_first, changed_after_backup),
    Scenario("restore_files", ("v1",), _restore_files, _files_lost, keeps_replaced=True),
    Scenario(
        "import_database",
        ("v1",),
        lambda site: site.operate("import_database", str(site.folder / "dump")),
        _with_a_dump,
        keeps_replaced=True,
    ),
    Scenario(
        "import_files",
        ("v1",),
        lambda site: site.operate("import_files", str(site.folder / "archive"), "media"),
        _with_an_archive,
        keeps_replaced=True,
    ),
    Scenario("clone", (), _clone, _beside_another, keeps_replaced=True),
    Scenario("prune", ("v1",), lambda site: site.operate("prune"), _several_backups),
    Scenario("sanitized", ("v1",), lambda site: site.operate("sanitized"), _with_rules),
    Scenario("export", ("v1",), lambda site: site.operate("export", None, str(site.folder / "away")), _several_backups),
    Scenario(
        "media_upload",
        ("v1",),
        lambda site: site.operate("media_upload", str(site.folder / "new"), "media/album"),
        _with_new_files,
        keeps_replaced=True,
    ),
    Scenario(
        "media_delete",
        ("v1",),
        lambda site: site.operate("media_delete", "media", ["album"]),
        _with_an_album,
        keeps_replaced=True,
    ),
    Scenario("secret_apply", ("v1",), lambda site: site.operate("secret_apply"), _with_a_secret),
    Scenario(
        "secret_apply_that_fails", ("v1",), lambda site: site.operate("secret_apply"), _refused_secret, fails=True
    ),
    Scenario("package_build", ("v1",), lambda site: site.operate("build", "v2")),
    Scenario("upgrade_with_schedule", ("v1",), _upgrade("v2", backup=False), _with_a_schedule),
    Scenario(
        "maintenance_on_with_workers",
        ("v1",),
        lambda site: site.operate("maintenance", on=True),
        _with_a_worker,
        held_afterwards=True,
    ),
    Scenario(
        "maintenance_off_with_workers",
        ("v1",),
        lambda site: site.operate("maintenance", on=False),
        _held_with_a_worker,
        held_afterwards=True,
    ),
    Scenario("package_push", ("v1",), lambda site: site.operate("build", "v2", "sale"), _with_a_registry),
    Scenario("package_deploy", ("v1",), lambda site: site.operate("deploy", "sale"), _pushed_elsewhere),
    Scenario("patch_apply", ("v1",), lambda site: site.operate("patch_apply", str(site.folder / PATCH)), _with_a_patch),
    Scenario("patch_revert", ("v1",), lambda site: site.operate("patch_revert", PATCH), _patched),
    Scenario("maintenance_on", ("v1",), lambda site: site.operate("maintenance", on=True), held_afterwards=True),
    Scenario(
        "maintenance_on_switched",
        ("v1",),
        lambda site: site.operate("maintenance", on=True),
        _switches,
        held_afterwards=True,
    ),
]

_OF_POSTGRESQL = [
    Scenario("import_cold", ("v1",), _import_cold, _with_a_cold_directory, keeps_replaced=True, engine="postgresql")
]
_OF_DATABASES = (
    "upgrade",
    "upgrade_that_fails",
    "upgrade_with_slow_migration",
    "rollback_with_data",
    "restore",
    "backup_pause",
    "import_database",
)
# MySQL's driver takes the steps of MariaDB's by the same code: what its server does otherwise shows where data go back.
_OF_MYSQL = ("upgrade_that_fails", "restore")
# Clients that run inside a container are left running there by a kill, and dumps come through a pipe.
_INSIDE = ("upgrade_that_fails", "restore")
# Restore points by the server's log, which only these make.
_BY_LOG = ("upgrade", "upgrade_that_fails")
# Web, worker and tasks in containers; the data are on a PostgreSQL server outside.
# An index is changed in a few steps of its own, between those of the database.
_WITH_AN_INDEX = ("backup_quiesce",)
_WITH_AN_INDEX_OF_MARIADB = ("restore", "upgrade_that_fails")
_IN_CONTAINERS = ("install", "upgrade", "upgrade_that_fails", "upgrade_that_answers_500", "rollback_code_only")
_WITH_A_BACKEND = ("upgrade_that_answers_500", "rollback_code_only")
_BY_PODMAN = ("upgrade_that_fails", "rollback_code_only")
ENGINE_SCENARIOS = _OF_POSTGRESQL + [
    replace(scenario, engine=engine)
    for engine, names in (
        ("postgresql", _OF_DATABASES),
        ("mariadb", _OF_DATABASES),
        ("mysql", _OF_MYSQL),
        ("search", _WITH_AN_INDEX),
        ("mariadb-search", _WITH_AN_INDEX_OF_MARIADB),
        ("postgresql-inside", _INSIDE),
        ("mariadb-inside", _INSIDE),
        ("postgresql-log-inside", _BY_LOG),
        ("compose", _IN_CONTAINERS),
        ("compose-backend", _WITH_A_BACKEND),
        ("podman", _BY_PODMAN),
    )
    for scenario in SCENARIOS
    if scenario.name in names
]


CONTAINER_STEPS = {
    "package.build",
    "release.unpack",
    "release.switch",
    "release.prune",
    "services.stop",
    "services.start",
    "services.adopt",
    "task.run",
}
INDEX_STEPS = {"index.snapshot", "index.load", "index.swap", "index.rebuild", "index.protect", "index.drop"}
DATABASE_STEPS = {
    "guard.count",
    "guard.compare",
    "backup.finish",
    "backup.complete",
    "restore_point.create",
    "restore_point.prepare",
    "restore_point.arm",
    "restore_point.drop",
    "task.run",
    "migrations.check_loaded",
    "database.load",
    "database.import",
    "database.import_cold",
    "database.swap",
    "restore.tidy",
}
