"""A PostgreSQL server in a folder of its own, reached over its socket alone."""

from __future__ import annotations

import functools
import io
import os
import pwd
import re
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.system.processes import session_members
from tests.memory import make_folder
from tests.proof import patience
from tests.proof.endings import at_end
from tests.servers import docker, template
from tests.servers.machine import OnMachine

ROLE = "keeper"  # owns the databases of applications, may create others, and is no superuser
SUPERUSER = "postgres"
_ACCOUNT = "postgres"
IMAGE = "holdfast-test-postgresql"
_START_SECONDS = 60


class LockTimeoutError(Exception):
    pass


def programs() -> Path | None:
    """The newest server's programs on this machine."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    single = shutil.which("initdb")
    return Path(single).resolve().parent if single else None


def needed_programs() -> Path:
    """Return them for a test that cannot do without them, or skip it."""
    found = programs()
    if found is None:
        pytest.skip("no PostgreSQL server here: `make test-setup` as root installs one")
    return found


def psql(folder: str, database: str, sql: str, user: str = SUPERUSER) -> str:
    """What psql prints, unaligned. Raises LockTimeoutError, AssertionError."""
    done = subprocess.run(
        [
            "psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-v",
            "VERBOSITY=verbose",
            "-h",
            folder,
            "-p",
            str(PostgresqlServer.port),
            "-U",
            user,
            "-d",
            database,
            "-c",
            sql,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if " 55P03: " in done.stderr:
        raise LockTimeoutError(done.stderr)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip("\n")


class PostgresqlServer(OnMachine):
    account = _ACCOUNT
    port = 5432

    def __init__(self, folder: Path | None = None, **settings: str) -> None:
        """In a new folder, or in one that is there and empty."""
        binaries = needed_programs()
        self._binaries = binaries
        self.folder = folder or make_folder("hfp")
        self._data = self.place / "data"
        self._settings = {
            "listen_addresses": "",
            "max_connections": "60",
            # In its own folder: what a killed server leaves goes with that.
            "dynamic_shared_memory_type": "mmap",
            **settings,
        }
        self._prefix: list[str] = []
        if os.geteuid() == 0:  # the server refuses to run as root
            account = pwd.getpwnam(_ACCOUNT)
            self.folder.mkdir(exist_ok=True)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self._prefix = self._as_account(account.pw_gid)
        self._databases = 0
        arguments = ["-A", "trust", "-U", SUPERUSER, "-E", "UTF8", "--locale=C", "--no-sync"]
        template.write_data_directory(
            self.folder / "data",
            str(binaries / "initdb"),
            arguments,
            lambda _: self._call("initdb", "-D", str(self._data), *arguments),
        )
        self.start()
        self.run("postgres", f"CREATE ROLE {ROLE} LOGIN CREATEDB")

    def _call(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self._prefix, str(self._binaries / program), *arguments],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        deadline = patience.deadline(_START_SECONDS)
        self._launch()
        while not self._answers():
            late = time.monotonic() > deadline
            if self._process.poll() is not None:
                # A session of a server that was killed may hold its memory a moment longer; each is in a session of
                # its own, so `kill` cannot wait for it.
                assert not late, (self.folder / "log").read_text()[-2000:]
                time.sleep(0.2)
                self._launch()
            assert not late, "the server did not start"
            time.sleep(0.02)

    def _launch(self) -> None:
        arguments = [f"-c{name}={value}" for name, value in self._settings.items()]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._prefix,
                    str(self._binaries / "postgres"),
                    "-D",
                    str(self._data),
                    "-k",
                    str(self.place),
                    "-p",
                    str(self.port),
                    *arguments,
                ],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        try:
            self.run("postgres", "SELECT 1")
        except AssertionError:
            return False
        return True

    def kill(self) -> None:
        """As by a power failure of the server alone: nothing of it runs on."""
        leader = self._process.pid
        os.kill(leader, signal.SIGKILL)
        self._process.wait()
        deadline = patience.deadline(20)
        while session_members(leader) and time.monotonic() < deadline:
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # fast shutdown
            self._process.wait(patience.limit(30))

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- SQL ---------------------------------------------------------------------------------------

    def run(self, database: str, sql: str, *, user: str = SUPERUSER) -> str:
        return psql(str(self.folder), database, sql, user)

    def require_passwords(self) -> None:
        """From now on for every role but the superuser."""
        rules = f"local all {SUPERUSER} trust\nlocal all all scram-sha-256\n"
        (self.folder / "data" / "pg_hba.conf").write_text(rules)
        self.run("postgres", "SELECT pg_reload_conf()")

    def exists(self, database: str) -> bool:
        return self.run("postgres", f"SELECT 1 FROM pg_database WHERE datname = '{database}'") == "1"

    def create_if_missing(self, database: str) -> None:
        if not self.exists(database):
            self.run("postgres", f'CREATE DATABASE "{database}" OWNER {ROLE}')

    @contextmanager
    def own_database(self) -> Iterator[str]:
        """A name that no other test uses; what is left under it or beside it is dropped."""
        self._databases += 1
        name = f"app{self._databases}"
        before = set(self._all())
        try:
            yield name
        finally:
            for left in set(self._all()) - before:
                self.run("postgres", f'ALTER DATABASE "{left}" ALLOW_CONNECTIONS true')
                self.run("postgres", f'DROP DATABASE "{left}" WITH (FORCE)')

    def _all(self) -> list[str]:
        return self.run("postgres", "SELECT datname FROM pg_database").split("\n")


class EnclosedPostgresqlServer(docker.Enclosed, PostgresqlServer):
    def _launch(self) -> None:
        with self._named():
            super()._launch()


class OwnContainerPostgresqlServer(EnclosedPostgresqlServer):
    """A server for one application in a container that stays when it stops, as those of Compose projects do."""

    def _launch(self) -> None:
        if self._is_made():
            subprocess.run(["docker", "start", self._name], capture_output=True, check=True)
        else:
            arguments = [f"-c{name}={value}" for name, value in self._settings.items()]
            server = [str(self._binaries / "postgres"), "-D", str(self._data), "-k", str(self.place)]
            prefix = [word for word in self._prefix if word != "--rm"]
            prefix[-1:] = [f"--name={self._name}", "--detach", prefix[-1]]
            subprocess.run(
                [*prefix, *server, "-p", str(self.port), *arguments], capture_output=True, check=True, cwd="/"
            )

    def start(self) -> None:
        """Wait until it answers, or has ended because an operation left it without data that it can serve."""
        self._launch()
        patience.until(lambda: self._answers() or not self._is_running())

    def _is_running(self) -> bool:
        look = ["docker", "inspect", "--format={{.State.Running}}", self._name]
        return subprocess.run(look, capture_output=True, text=True, check=True).stdout.strip() == "true"

    def tidy(self) -> None:
        """Remove what operations left in the data directory."""
        for path in (self.folder / "data").glob("pgsql_tmp.*"):
            shutil.rmtree(path)
        (self.folder / "data" / "holdfast.point").unlink(missing_ok=True)

    def _is_made(self) -> bool:
        return subprocess.run(["docker", "inspect", self._name], capture_output=True, check=False).returncode == 0

    def kill(self) -> None:
        subprocess.run(["docker", "kill", self._name], capture_output=True, check=False)

    def stop(self) -> None:
        subprocess.run(["docker", "stop", "--time=30", self._name], capture_output=True, check=True)

    def remove(self) -> None:
        subprocess.run(["docker", "rm", "--force", self._name], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def image() -> str:
    """An image with these programs in their usual place and all that they load, as official ones have them."""
    docker.engine()
    binaries = needed_programs()
    wanted = [binaries / name for name in ("postgres", "psql", "pg_dump", "pg_controldata")]
    told = subprocess.run(["ldd", *map(str, wanted)], capture_output=True, text=True, check=True).stdout
    libraries = sorted(set(re.findall(r"(/\S+\.so\S*) \(0x", told)))
    share = Path("/usr/share/postgresql") / binaries.parts[-2]
    tree = io.BytesIO()
    with tarfile.open(fileobj=tree, mode="w", dereference=True) as tar:
        docker.add_links(tar)
        places = [Path(library).parent.resolve() / Path(library).name for library in libraries]
        for path in (binaries, binaries.parent / "lib", share, *places):
            if path.exists():
                tar.add(path)
    arguments = ["docker", "import", "--change", f"ENV PATH=/usr/bin:{binaries}", "-", IMAGE]
    subprocess.run(arguments, input=tree.getvalue(), stdout=subprocess.DEVNULL, check=True)
    return IMAGE


@functools.cache
def _shared() -> PostgresqlServer:
    server = PostgresqlServer()
    at_end(server.remove)
    return server


@functools.cache
def _shared_own_container() -> OwnContainerPostgresqlServer:
    server = OwnContainerPostgresqlServer()
    at_end(server.remove)
    return server


@contextmanager
def shared_own_container() -> Iterator[OwnContainerPostgresqlServer]:
    """One for all tests of a process, which have its only database one after the other."""
    docker.engine()  # whose end is to come after the server's
    yield _shared_own_container()


@functools.cache
def _shared_enclosed() -> EnclosedPostgresqlServer:
    server = EnclosedPostgresqlServer()
    at_end(server.remove)
    return server


@contextmanager
def shared_enclosed() -> Iterator[EnclosedPostgresqlServer]:
    """One in a container for all tests of a process."""
    docker.engine()  # whose end is to come after the server's
    yield _shared_enclosed()


@contextmanager
def shared() -> Iterator[PostgresqlServer]:
    """One server for all tests of a process."""
    yield _shared()
