"""A PostgreSQL data directory without a server: inspected, and dumped by a private server of its own version.

Facts from the documentation: `pg_controldata` prints the cluster's state, which is "shut down" only after a clean end;
a server refuses to run as root and wants its directory owned by its account with mode 0700; line 8 of postmaster.pid is
"ready" once it answers; single-user mode needs no role's name and runs no event triggers; settings in
postgresql.auto.conf, and those kept per database, apply whatever the server is started with.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from holdfast.drivers.databases.opening import Opening
from holdfast.drivers.databases.postgresql.client import literal
from holdfast.drivers.databases.postgresql.server_account import ACCOUNT, account, give_away, let_read, taken_back
from holdfast.drivers.databases.sql.container_exec import Container
from holdfast.errors import CommandFailedError, CommandTimeoutError, RefusedError, StepError
from holdfast.model import Server
from holdfast.system.host import Host
from holdfast.system.keeper_client import Process, end_session
from holdfast.system.processes import end_processes_in

_PLACES = ("/usr/lib/postgresql/{}/bin", "/usr/pgsql-{}/bin")
_USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOBODY = 65534  # in a container any number except root's works
_CLEAN = "shut down"
_START_SECONDS = 600.0  # a large directory on a slow disk
_STOP_SECONDS = 60.0
_ENGINE_SECONDS = 120
_READY_LINE = 7
_DEEPEST = 4
_NOT_THERE = (126, 127)  # exit codes of `run` for a program that the image lacks
_BY_HAND = "Start the server to which it belongs, make a dump with `pg_dump --format=custom`, and import that."
_CONFIGURATION = """port = 5432
listen_addresses = ''
unix_socket_permissions = 0700
shared_buffers = '32MB'
max_locks_per_transaction = 1024
max_prepared_transactions = 256
max_replication_slots = 256
max_logical_replication_workers = 0
wal_level = logical
fsync = off
full_page_writes = off
synchronous_commit = off
autovacuum = off
archive_mode = off
logging_collector = off
log_destination = 'stderr'
lc_messages = 'C'
jit = off
"""


@dataclass(frozen=True)
class Run:
    """The way to run programs of one version on a scratch folder: here as another account, or in one-off containers.

    Each command begins with `prefix`. `folder` has the programs on this machine; in a container they are in its PATH.
    """

    prefix: tuple[str, ...]
    folder: str
    image: str
    uid: int
    gid: int

    def argv(self, program: str, *arguments: str) -> list[str]:
        if self.image:
            return [*self.prefix, f"--entrypoint={program}", self.image, *arguments]
        return [*self.prefix, f"{self.folder}/{program}", *arguments]


class OfflineDirectoryReader:
    """A reader of data directories for one configured database. `environment_id` labels its containers."""

    def __init__(self, name: str, database: str, server: Server, environment_id: str, host: Host) -> None:
        """Take `name`, the dataset's, and `database`, that in `server`, whose container's image has the programs."""
        self._name = name
        self._database = database
        self._container = Container.of(server)
        self._labels = f"holdfast.application={environment_id}"
        self._host = host

    def known(self, scratch: Path, unpacked: Path, newest: int) -> bool:
        """Return whether the files unpacked so far tell the version.

        Raise RefusedError where that version cannot be read here.
        """
        for pattern in (
            "PG_VERSION",
            "*/PG_VERSION",
            "*/*/PG_VERSION",
        ):  # each database's own file has the same version
            for path in unpacked.glob(pattern):
                self._run(scratch, _version(path), newest)
                return True
        return False

    def dump(self, scratch: Path, unpacked: Path, newest: int) -> Path:
        """Dump the wanted database of a directory below `unpacked`, which it changes; no server runs afterwards.

        `scratch` is a private folder that holds `unpacked`; `newest` is the newest version that a dump may have. Raise
        RefusedError for a directory that was not shut down cleanly or cannot be read here, StepError where a program
        fails.
        """
        data = _found(unpacked)
        _refuse_parts(data)
        major = _version(data / "PG_VERSION")
        run = self._run(scratch, major, newest)
        (data / "postgresql.auto.conf").unlink(missing_ok=True)
        data.chmod(0o700)
        out = scratch / "out"
        for folder in (scratch / "run", out):
            folder.mkdir(0o700, exist_ok=True)
        # The scratch folder keeps its owner, so that programs of that account cannot place links where Holdfast writes.
        for folder in (unpacked, scratch / "run", out):
            give_away(folder, run.uid, run.gid)
        let_read(scratch, run.gid, 0o710)
        self._refuse_unclean(run, data)
        with self._serving(run, scratch, data, major) as role:
            options = ["-w", "-h", str(scratch / "run"), "-p", "5432", "-U", role]
            wanted = self._chosen(run, options)
            quoted = wanted.replace("\\", "\\\\").replace("'", "\\'")
            self._do(
                run,
                "pg_dump",
                *options,
                "--format=custom",
                "--compress=1",
                "--lock-wait-timeout=60s",
                f"--file={out / 'dump'}",
                f"--dbname=dbname='{quoted}'",
            )
        return taken_back(out / "dump", scratch / "dump")

    # --- where programs come from --------------------------------------------------------------------

    def _run(self, scratch: Path, major: int, newest: int) -> Run:
        if major > newest:
            raise RefusedError(
                f"the data directory is of PostgreSQL {major}, but the server of database {self._name} is {newest}",
                next_step="Import it into a server of that version or a newer one.",
            )
        if self._container is not None:
            return self._run_in(self._container, scratch, major)
        places = [place.format(major) for place in _PLACES]
        folder = next((place for place in places if os.access(f"{place}/postgres", os.X_OK)), "")
        if not folder:
            raise RefusedError(
                f"the data directory is of PostgreSQL {major}, but this machine has no programs of that version",
                next_step=f"Install PostgreSQL {major} ({places[0]}), or set databases.{self._name}.container to a"
                " container whose image has it.",
            )
        if os.geteuid() != 0:
            return Run((), folder, "", os.geteuid(), os.getegid())
        user = account()
        if user is None:
            raise RefusedError(
                f"a PostgreSQL server does not run as root, and there is no account {ACCOUNT}",
                next_step=f"Create the account: useradd --system {ACCOUNT}",
            )
        ids = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}")
        prefix = ("setpriv", *ids, "--clear-groups", "--no-new-privs")
        if self._host.run([*prefix, "test", "-x", str(scratch.parent)], cwd="/", check=False).exit_code != 0:
            raise RefusedError(
                f"the account {ACCOUNT}, under which the private server runs, cannot reach {scratch.parent}",
                next_step="Choose with --scratch another folder, which every account may enter.",
            )
        return Run(prefix, folder, "", user.pw_uid, user.pw_gid)

    def _run_in(self, container: Container, scratch: Path, major: int) -> Run:
        """Return the way to run in one-off containers of the container's image, with only the scratch folder.

        They have no network and are labelled as the operation's.
        """
        engine = container.engine
        image = self._host.capture(
            [engine, "container", "inspect", "--format={{.Image}}", container.name], timeout_seconds=_ENGINE_SECONDS
        ).strip()
        user = account()
        uid, gid = os.geteuid(), os.getegid()
        mapping = ["--userns=keep-id"] if engine == "podman" and uid != 0 else []
        if uid == 0:
            uid, gid = (user.pw_uid, user.pw_gid) if user is not None else (_NOBODY, _NOBODY)
        places = ":".join(place.format(major) for place in _PLACES)
        # Single-user mode looks up the name of its account, which the image may not have under that number.
        (scratch / "passwd").write_text(f"root:x:0:0::/:/bin/sh\n{ACCOUNT}:x:{uid}:{gid}::/:/bin/sh\n")
        (scratch / "passwd").chmod(0o644)
        prefix = [
            engine,
            "run",
            "--rm",
            "--interactive",
            "--network=none",
            "--pull=never",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            f"--user={uid}:{gid}",
            *mapping,
            "--workdir=/",
            f"--label={self._labels}",
            f"--label=holdfast.operation={self._host.operation or 'none'}",
            f"--env=PATH={_USUAL_PATH}:{places}",
            "--env=LC_ALL=C",
            f"--mount=type=bind,source={scratch},target={scratch}",
            f"--mount=type=bind,source={scratch / 'passwd'},target=/etc/passwd,readonly",
        ]
        run = Run(tuple(prefix), "", image, uid, gid)
        try:
            output = self._do(run, "postgres", "--version").strip()
        except CommandFailedError as error:
            if error.exit_code_of_command not in _NOT_THERE:
                raise
            output = "no server of that version"
        found = re.search(r"(\d+)", output)
        if found is None or int(found[1]) != major:
            raise RefusedError(
                f"the data directory is of PostgreSQL {major}, but the image of container {container.name}"
                f" has {output}",
                next_step=f"Start a container of PostgreSQL {major} on a copy of the directory, make a dump in it with"
                " `pg_dump --format=custom`, and import that.",
            )
        return run

    def _do(self, run: Run, program: str, *arguments: str) -> str:
        """Run a program to its end; return the end of its output. Raise CommandFailedError."""
        return self._host.run(run.argv(program, *arguments), cwd="/", environment={"LC_ALL": "C"}).output_tail

    # --- the server ----------------------------------------------------------------------------------

    def _refuse_unclean(self, run: Run, data: Path) -> None:
        output = self._do(run, "pg_controldata", "-D", str(data))
        found = re.search(r"^Database cluster state:\s*(.+?)\s*$", output, re.MULTILINE)
        state = found[1] if found is not None else "unknown"
        if state != _CLEAN:
            raise _unclean(f"its state is `{state}`, not `{_CLEAN}`")

    @contextmanager
    def _serving(self, run: Run, scratch: Path, data: Path, major: int) -> Iterator[str]:
        """Run a server of only this folder; yield the one role that may connect, which is created for this purpose."""
        role = f"holdfast_{secrets.token_hex(8)}"
        files = {"server.conf": _CONFIGURATION, "hba.conf": f"local all {role} trust\n", "ident.conf": ""}
        if major >= 17:
            files["server.conf"] += "event_triggers = off\n"  # otherwise a login could run one
        for name, text in files.items():
            (scratch / name).write_text(text)
            let_read(scratch / name, run.gid, 0o640)
        places = {"config_file": "server.conf", "hba_file": "hba.conf", "ident_file": "ident.conf"}
        settings = [f"-c{name}={scratch / file}" for name, file in places.items()]
        settings.append(f'-cunix_socket_directories="{scratch / "run"}"')
        # Settings kept per database could make a session load a library; a dump of one database has none of them.
        orders = f"DELETE FROM pg_db_role_setting;\nCREATE ROLE {role} SUPERUSER LOGIN;\n"
        single = run.argv("postgres", "--single", "-O", "-F", "-D", str(data), *settings, "template1")
        self._host.feed(single, [orders.encode()])
        with open(scratch / "log", "w+b") as log:
            process = self._host.start_pipes(run.argv("postgres", "-D", str(data), *settings), errors=log)
            try:
                self._wait(process, data, scratch / "log")
                yield role
            finally:
                self._stop(process, scratch)

    def _wait(self, process: Process, data: Path, log: Path) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not _ready(data):
            if process.poll() is not None or time.monotonic() > deadline:
                raise StepError(
                    "the private server of the data directory did not start",
                    state=log.read_text(errors="replace")[-2000:],
                    next_step="If it lacks a locale or a library, run Holdfast on the machine from which the directory"
                    f" comes. {_BY_HAND}",
                )
            self._host.check_cancelled()
            time.sleep(0.05)

    def _stop(self, process: Process, scratch: Path) -> None:
        process.send_signal(signal.SIGINT)  # a fast shutdown; the container engine's client forwards the signal
        deadline = time.monotonic() + _STOP_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        end_session(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self.end(scratch)

    def _chosen(self, run: Run, options: Sequence[str]) -> str:
        """Return the configured name where the directory has that database, else its only one. Raise RefusedError."""
        sql = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datallowconn ORDER BY datname"
        output = self._host.capture(run.argv("psql", "-XAtq", "-0", *options, "-d", "template1", "-c", sql), cwd="/")
        names = [name for name in output.split("\0") if name.strip("\n")]
        if self._database in names:
            return self._database
        others = [name for name in names if name != "postgres"]
        if len(others) != 1:
            held = f"the databases {', '.join(map(literal, others))}" if others else "no database but postgres"
            raise RefusedError(
                f"the data directory holds {held}, and none of them is {self._database}", next_step=_BY_HAND
            )
        return others[0]

    # --- ending --------------------------------------------------------------------------------------

    def end(self, scratch: Path) -> None:
        """End what runs in a scratch folder or for this operation. Idempotent. Raise StepError."""
        if self._container is not None and self._host.operation:
            self.end_operation(self._host.operation)
        if end_processes_in(str(scratch), wait_seconds=_STOP_SECONDS):
            raise StepError(
                f"a private server in {scratch} cannot be ended", next_step="End it, then run: holdfast recover"
            )

    def end_operation(self, operation: str) -> None:
        """Remove the one-off containers of an operation. Idempotent. Raise StepError."""
        if self._container is None:
            return
        engine = self._container.engine
        filters = [f"--filter=label={self._labels}", f"--filter=label=holdfast.operation={operation}"]
        look = [engine, "ps", "--all", "--quiet", "--no-trunc", *filters]
        try:
            while found := self._host.capture(look, timeout_seconds=_ENGINE_SECONDS).split():
                with contextlib.suppress(CommandFailedError):  # one that is removing itself; the next look lists none
                    self._host.capture([engine, "rm", "--force", "--volumes", *found], timeout_seconds=_ENGINE_SECONDS)
                time.sleep(0.05)
        except (CommandFailedError, CommandTimeoutError) as error:
            raise StepError(
                f"{engine} does not say whether a container of {operation} still runs: {error.state or error.what}",
                next_step=f"Check that {engine} answers, then run: holdfast recover",
            ) from error


def _ready(data: Path) -> bool:
    try:
        if not stat.S_ISREG((data / "postmaster.pid").lstat().st_mode):
            return False
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) > _READY_LINE and lines[_READY_LINE].strip() == "ready"


def _unclean(why: str) -> RefusedError:
    return RefusedError(
        f"the data directory was copied from a server that was running or had crashed: {why}",
        state="Such a copy may be inconsistent, so it is not loaded. Nothing was changed.",
        next_step=f"Stop that server, copy its directory again, and run the command again. Or: {_BY_HAND}",
    )


def _found(unpacked: Path) -> Path:
    """Return the one data directory, which may be below other folders. Raise RefusedError."""
    found = []
    base = len(unpacked.parts)
    for here, directories, _ in os.walk(unpacked):
        path = Path(here)
        if (path / "PG_VERSION").is_file() and (path / "global" / "pg_control").is_file() and (path / "base").is_dir():
            found.append(path)
            directories.clear()
        elif len(path.parts) - base >= _DEEPEST:
            directories.clear()
    if len(found) != 1:
        what = ", ".join(str(path.relative_to(unpacked)) for path in found)
        raise RefusedError(
            f"it holds several data directories: {what}" if found else "it holds no data directory of PostgreSQL",
            next_step="Make an archive of one directory: the one with PG_VERSION, base and global in it.",
        )
    return found[0]


def _version(path: Path) -> int:
    text = path.read_text(errors="replace").strip()
    major = re.fullmatch(r"(\d{1,4})", text)
    if major is None:
        raise RefusedError(
            f"the data directory is of PostgreSQL {text[:20]!r}, which is not a known version", next_step=_BY_HAND
        )
    return int(major[1])


def _refuse_parts(data: Path) -> None:
    """Raise RefusedError for files that are not a complete directory of a server that had ended."""
    if (data / "postmaster.pid").exists():
        raise _unclean("postmaster.pid is in it")
    for name in ("backup_label", "recovery.signal", "standby.signal", "recovery.conf"):
        if (data / name).exists():
            raise RefusedError(
                f"{name} is in the data directory: it is of a base backup or a standby, and needs a recovery first",
                next_step=_BY_HAND,
            )
    if any(path.is_symlink() for path in (data / "pg_tblspc").glob("*")):
        raise RefusedError("the data directory has tablespaces in other folders", next_step=_BY_HAND)
    for name in ("pg_wal", "pg_xact"):
        if not (data / name).is_dir():
            raise RefusedError(f"the data directory has no {name}: it is incomplete", next_step=_BY_HAND)


def open_data_directory(opening: Opening) -> OfflineDirectoryReader:
    return OfflineDirectoryReader(
        opening.name, opening.settings.name, opening.server, opening.loaded.environment_id, opening.host
    )
