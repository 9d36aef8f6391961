"""A MariaDB server in a folder of its own, reached over its socket alone."""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.proof import patience
from tests.proof.endings import at_end
from tests.servers import docker, template
from tests.servers.machine import OnMachine

USER = "keeper"  # has every right on the databases of applications and on Holdfast's beside them, and no other
ADMINISTRATOR = "root"
_ACCOUNT = "mysql"
_START_SECONDS = 60


class LockTimeoutError(Exception):
    pass


def mariadb(socket: str, database: str, sql: str, user: str = ADMINISTRATOR, program: str = "mariadb") -> str:
    """What the client prints: a row a line, values between tabs. Raises LockTimeoutError, AssertionError."""
    done = subprocess.run(
        [
            program,
            "--no-defaults",
            f"--socket={socket}",
            f"--user={user}",
            "--batch",
            "--skip-column-names",
            "--default-character-set=utf8mb4",
            *([database] if database else []),
        ],
        input=sql,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    if "ERROR 1205 " in done.stderr:
        raise LockTimeoutError(done.stderr)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip("\n")


def numbers(last: int) -> str:
    """A table expression: its column `seq` counts from one."""
    return (
        f"(WITH RECURSIVE n (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < {last}) SELECT seq FROM n) n"
    )


class MariadbServer(OnMachine):
    account = _ACCOUNT
    product = "MariaDB"
    program = "mariadbd"
    client = "mariadb"
    dumper = "mariadb-dump"
    install: tuple[str, ...] = (
        "mariadb-install-db",
        "--no-defaults",
        "--skip-test-db",
        "--auth-root-authentication-method=normal",
    )
    own_settings: Mapping[str, str] = {"innodb-log-file-size": "32M", "max-recursive-iterations": "1000000"}

    @classmethod
    def skip_where_it_is_missing(cls) -> None:
        if shutil.which("mariadbd") is None or shutil.which("mariadb-install-db") is None:
            pytest.skip("no MariaDB server here: `make test-setup` as root installs one")

    def __init__(self, folder: Path | None = None, **settings: str) -> None:
        """In a new folder, or in one that is there and empty."""
        self.skip_where_it_is_missing()
        # On a disk: where MariaDB finds its log in memory, it writes it otherwise, as if nothing there were ever lost.
        self.folder = folder or Path(tempfile.mkdtemp(prefix="hfm"))
        self._data = self.place / "data"
        self.socket = str(self.folder / "socket")
        self._settings = {
            "skip-networking": "ON",
            "innodb-buffer-pool-size": "64M",
            "performance-schema": "OFF",
            "max-connections": "60",
            **self.own_settings,
            **settings,
        }
        self._prefix: list[str] = []
        if os.geteuid() == 0:  # the server refuses to run as root
            account = pwd.getpwnam(_ACCOUNT)
            self.folder.mkdir(exist_ok=True)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self._prefix = self._as_account(account.pw_gid)
        self._databases = 0
        # Two servers with one folder for temporary tables get in each other's way.
        temporary = self.place / "tmp"
        subprocess.run([*self._prefix, "mkdir", str(temporary)], check=True)
        self._settings["tmpdir"] = str(temporary)
        template.write_data_directory(
            self.folder / "data", self.program, self.install, lambda _: self._install(temporary)
        )
        self.start()
        self.run("mysql", f"CREATE USER {USER}@localhost; GRANT ALL ON `hf-%`.* TO {USER}@localhost")

    def _install(self, temporary: Path) -> None:
        done = subprocess.run(
            [*self._prefix, *self.install, f"--datadir={self._data}", f"--tmpdir={temporary}"],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout

    def start(self) -> None:
        arguments = [f"--{name}={value}" for name, value in self._settings.items()]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._prefix,
                    self.program,
                    "--no-defaults",
                    f"--datadir={self._data}",
                    f"--socket={self.place / 'socket'}",
                    f"--pid-file={self.place / 'pid'}",
                    *arguments,
                ],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = patience.deadline(_START_SECONDS)
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            self.run("mysql", "SELECT 1")
        except AssertionError:
            return False
        return True

    def kill(self) -> None:
        """As by a power failure of the server alone."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(patience.limit(60))

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- SQL ---------------------------------------------------------------------------------------

    def run(self, database: str, sql: str, *, user: str = ADMINISTRATOR) -> str:
        return mariadb(self.socket, database, sql, user, self.client)

    def dumped(self, name: str, *arguments: str) -> bytes:
        """What the server's own dump program prints of a database, asked by the administrator."""
        argv = [self.dumper, "--no-defaults", f"--socket={self.socket}", f"--user={ADMINISTRATOR}", *arguments, name]
        return subprocess.run(argv, capture_output=True, check=True).stdout

    def exists(self, database: str) -> bool:
        return self.run("mysql", f"SELECT 1 FROM information_schema.schemata WHERE schema_name = '{database}'") == "1"

    def create_if_missing(self, database: str) -> None:
        if not self.exists(database):
            self.run(
                "mysql",
                f"CREATE DATABASE `{database}` CHARACTER SET utf8mb4; GRANT ALL ON `{database}`.* TO {USER}@localhost",
            )

    @contextmanager
    def own_database(self) -> Iterator[str]:
        """A name that no other test uses; what is left under it or beside it is dropped."""
        self._databases += 1
        name = f"app{self._databases}"
        before = set(self._all())
        for granted in (name, f"{name}other"):
            self.run("mysql", f"GRANT ALL ON `{granted}`.* TO {USER}@localhost")
        try:
            yield name
        finally:
            for left in set(self._all()) - before:
                self.run("mysql", f"DROP DATABASE `{left}`")

    def _all(self) -> list[str]:
        return self.run("mysql", "SELECT schema_name FROM information_schema.schemata").split("\n")


class EnclosedMariadbServer(docker.Enclosed, MariadbServer):
    def start(self) -> None:
        with self._named():
            super().start()


@functools.cache
def _shared_enclosed() -> EnclosedMariadbServer:
    server = EnclosedMariadbServer()
    at_end(server.remove)
    return server


@contextmanager
def shared_enclosed() -> Iterator[EnclosedMariadbServer]:
    """One in a container for all tests of a process."""
    docker.engine()  # whose end is to come after the server's
    yield _shared_enclosed()


@functools.cache
def _shared() -> MariadbServer:
    server = MariadbServer()
    at_end(server.remove)
    return server


@contextmanager
def shared() -> Iterator[MariadbServer]:
    """One server for all tests of a process."""
    yield _shared()
