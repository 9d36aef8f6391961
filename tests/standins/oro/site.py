"""One installation of the stand-in, with the preset `oroplatform` and the few lines that an operator adds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from holdfast.config.load import load
from holdfast.steps import services
from holdfast.system.ports import free_loopback_port
from holdfast.system.processes import end_processes_with
from holdfast.wiring import open_app
from tests.memory import remove_folder
from tests.proof import patience
from tests.servers import postgresql
from tests.site import gate_port
from tests.standins.oro import repository
from tests.standins.visitor import get
from tests.stores import DIGEST_OF_POSTGRESQL, PostgresqlStore

_LIBRARIES = ("/usr/share/php/Symfony/Component/Console", "/usr/share/php/Doctrine/DBAL")
RESTLESS = ("oro_message_queue", "oro_message_queue_state", "acme_handled")
"""Tables in which services write by themselves all the time."""


def require_programs() -> None:
    """Skip a test where PHP, its libraries or nginx are missing."""
    found = all(map(os.path.isdir, _LIBRARIES)) and shutil.which("php") and shutil.which("nginx")
    if not found or "pdo_pgsql" not in subprocess.run(["php", "-m"], capture_output=True, text=True).stdout:
        pytest.skip("no PHP with Symfony's console and Doctrine's DBAL: `make test-setup` as root installs them")


class Oro:
    """Everything is below `folder`; the database is one of the shared server.

    `consumers` are services of their own. Times are short, because pages and messages of the stand-in are.
    """

    def __init__(self, folder: Path, *, consumers: int = 1, more: str = "") -> None:
        require_programs()
        self.folder, self.app, self.repository = folder, folder / "app", folder / "repository"
        self.config, self.shared = self.app / "holdfast.toml", self.app / "shared"
        self.consumers = ["consumer", *(f"consumer{number}" for number in range(2, consumers + 1))]
        self.port, self.websocket_port = gate_port(), free_loopback_port()
        self.store = PostgresqlStore.create()
        self.shared.mkdir(parents=True)
        for path in (folder, self.app, self.shared):  # www-data passes through
            path.chmod(0o755)
        repository.write(self.repository)
        host = self.store.place["HOST"]
        Path(host).chmod(0o711)  # and to the socket of the server
        self.environment_file.write_text(
            f"ORO_SECRET=of-this-site\n"
            f"ORO_DB_URL=postgres://{postgresql.ROLE}@localhost/{self.store.name}?host={host}\n"
            f"ORO_WEBSOCKET_SERVER_DSN=//*:{self.websocket_port}\n"
        )
        self.environment_file.chmod(0o644)
        self.write(more)

    @property
    def environment_file(self) -> Path:
        return self.shared / ".env-app.local"

    def write(self, more: str = "", *, stop_seconds: int = 20, settles: float = 1.0) -> None:
        """Write holdfast.toml: what an operator writes, then shorter times, then what a test adds.

        `settles`: how long a consumer must stay up. PHP needs seconds on a busy machine to find that it cannot run.
        """
        self.config.write_text(f"{self.of_the_operator()}\n{self._of_the_tests(stop_seconds, settles)}\n{more}")

    def of_the_operator(self) -> str:
        return f"""extends = "preset:oroplatform"
[application]
name = "crm"
state = "{self.folder}/state"
[source]
repository = "{self.repository}"
[databases.main]
name = "{self.store.name}"
host = "{self.store.place["HOST"]}"
user = "{postgresql.ROLE}"
[gate]
listen = "127.0.0.1:{self.port}"
[vaults.local]
path = "{self.folder}/vault"
"""

    def _of_the_tests(self, stop_seconds: int, settles: float) -> str:
        limit = patience.limit(6)
        lines = [
            "[services.web]\nsettle_seconds = 0.1",
            f"health_timeout_seconds = {limit}",
            "[services.fpm]\nsettle_seconds = 0.1",
            f"[services.websocket]\nsettle_seconds = 0.2\nhealth_timeout_seconds = {limit}",
            "[schedule.cron]\nevery_seconds = 1",
            f"[limits]\ntask_timeout_seconds = {patience.limit(60)}",
            '[tasks.install.environment]\nORO_ADMIN_PASSWORD = "geheim"',
        ]
        command = json.dumps(["php", "bin/console", "oro:message-queue:consume", "--memory-limit=700", "--env=prod"])
        for name in self.consumers:
            lines.append(f"[services.{name}]\nsettle_seconds = {settles}\nhealth_timeout_seconds = {limit}")
            lines.append(f"stop_timeout_seconds = {stop_seconds}")
            lines += [f'command = {command}\nuser = "www-data"'] if name != "consumer" else []
        return "\n".join(lines)

    # --- its own commands ----------------------------------------------------------------------------------

    def console(self, *arguments: str, release: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command of the application in the current release, as its account does."""
        argv = ["runuser", "-u", "www-data", "--"] if os.geteuid() == 0 else []
        argv += ["php", "bin/console", *arguments, "--env=prod", "--no-interaction"]
        folder = release or self.app / "current"
        return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)

    def get(self, path: str = "/") -> tuple[int, Any]:
        return get(self.port, path)

    def post(self, path: str, content: bytes) -> tuple[int, Any]:
        return get(self.port, path, content)

    def sql(self, statement: str) -> str:
        return postgresql.psql(self.store.place["HOST"], self.store.name, statement)

    @property
    def version(self) -> str:
        return str(self.get("/user/login")[1]["version"])

    def messages(self) -> tuple[int, int, int]:
        """Return how many messages were sent, handled, and handled more than once."""
        sent = int(self.sql("SELECT last_value FROM oro_message_queue_id_seq WHERE is_called") or 0)
        handled = int(self.sql("SELECT count(DISTINCT message_id) FROM acme_handled"))
        return sent, handled, int(self.sql("SELECT count(*) FROM acme_handled")) - handled

    def waiting(self) -> int:
        return int(self.sql("SELECT count(*) FROM oro_message_queue"))

    def digest(self) -> str:
        """Of all rows but those that services write by themselves, and of all uploads."""
        names = " ".join(f"AND table_name <> '{name}'" for name in RESTLESS)
        statement = DIGEST_OF_POSTGRESQL.replace(
            "WHERE table_schema NOT IN ('pg_catalog', 'information_schema')\n  UNION ALL SELECT table_name",
            f"WHERE table_schema NOT IN ('pg_catalog', 'information_schema') {names}\n  UNION ALL SELECT table_name",
        ).replace("FROM pg_sequences", "FROM pg_sequences WHERE sequencename !~ '^(oro_message|acme_handled)'")
        rows = self.sql(statement)
        files = sorted(path for path in (self.shared / "media").rglob("*") if path.is_file())
        return rows + "".join(f"\n{path.name} {path.read_bytes()!r}" for path in files if ".holdfast" not in path.parts)

    def wait_for_messages(self) -> None:
        """Wait until every message is handled; a scheduler sends some each second."""
        patience.until(lambda: self.waiting() == 0)

    def output_of(self, service: str) -> str:
        """Return what the instances of a service printed."""
        return "".join(path.read_text() for path in self.folder.glob(f"state/supervisor/output/{service}-2*.log"))

    def running(self) -> list[str]:
        """Return the services that run, without their releases."""
        app = open_app(load(str(self.config)))
        try:
            statuses = app.context.runtime.statuses()
            return sorted(name.partition("-2")[0] for name, status in statuses.items() if status.running)
        finally:
            app.close()

    # --- copies --------------------------------------------------------------------------------------------

    def shut_down(self) -> None:
        """End everything that runs for this site, and nothing else."""
        instance = f"HOLDFAST_INSTANCE=crm.production@{self.folder}/state"
        app = open_app(load(str(self.config)))
        try:
            app.context.runtime.shut_down()
        finally:
            app.close()
        end_processes_with(instance, grace_seconds=0, wait_seconds=10)

    def save(self) -> None:
        """Keep the site as it is at rest, with owners and modes, and start it again."""
        self.shut_down()
        subprocess.run(["cp", "--archive", str(self.folder), f"{self.folder}.saved"], check=True)
        self.store.save("saved")
        self.start()

    def put_back(self) -> None:
        self.shut_down()
        remove_folder(self.folder)
        subprocess.run(["cp", "--archive", f"{self.folder}.saved", str(self.folder)], check=True)
        self.store.put_back("saved")
        self.start()

    def start(self) -> None:
        app = open_app(load(str(self.config)))
        try:
            services.start_wanted(app.context)
        finally:
            app.close()
        patience.until(lambda: self.get("/user/login")[0] == 200)

    def end(self) -> None:
        self.shut_down()
        self.store.remove()
        remove_folder(Path(f"{self.folder}.saved"))
        remove_folder(self.folder)
