"""Archives of pg_dump: written, checked and loaded, as files or through pipes into a container.

Facts from the manuals of pg_dump and pg_restore, and measured on 15: parallel jobs need files, both to dump into a
folder and to load; the table of contents is at the beginning of an archive, so a truncated one is noticed only when all
of it is read. The default level of compression takes two to three times the processor of level 1 for 2 to 6 % less;
every pg_restore reads both.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from holdfast.drivers.databases.postgresql.client import Clients
from holdfast.drivers.databases.postgresql.search_path import with_search_path
from holdfast.errors import CommandFailedError, DamagedError, RefusedError, StepError
from holdfast.system import durable

_CHUNK_BYTES = 1 << 20
_COMPRESSION = "--compress=1"
_PARALLEL_BYTES = 256 << 20  # a smaller database is dumped before further sessions are connected


class Archives:
    def __init__(self, name: str, clients: Clients) -> None:
        """Take `name`, the dataset's, for messages."""
        self._name = name
        self._clients = clients

    def write(self, database: str, snapshot: str, target: Path, size_bytes: int) -> None:
        """Dump an exported snapshot in place of an earlier attempt, and check that it is complete. Raise StepError."""
        _clear(target)
        options = [f"--snapshot={snapshot}", "--no-password", database]
        if self._clients.container is not None:
            with open(target, "xb", opener=_private) as file:
                self._clients.run("pg_dump", "--format=custom", _COMPRESSION, *options, output=file)
            self._read("--file=/dev/null", dump=target)
            return
        options.append(f"--file={target}")
        if size_bytes < _PARALLEL_BYTES or self._clients.server.jobs < 2 or not self._write_folder(options, target):
            target.touch(0o600)
            self._clients.run("pg_dump", "--format=custom", _COMPRESSION, *options)
        self.check(target)

    def _write_folder(self, options: Sequence[str], target: Path) -> bool:
        """Dump by several sessions at the same time; return whether they could.

        All sessions but the first give up where another one waits for a table's exclusive lock (manual of pg_dump,
        `--jobs`).
        """
        target.mkdir(0o700)
        try:
            jobs = f"--jobs={self._clients.server.jobs}"
            self._clients.run("pg_dump", "--format=directory", _COMPRESSION, jobs, *options)
        except CommandFailedError:
            _clear(target)
            return False
        return True

    def check(self, dump: Path) -> None:
        """Raise DamagedError for a dump whose contents cannot be read.

        Raise RefusedError for one that cannot be loaded here, SqlError where the server with the programs is gone.
        """
        self.refuse_folder(dump)
        self._read("--list", dump=dump)

    @contextlib.contextmanager
    def without_extensions(self, names: Collection[str], dump: Path) -> Iterator[list[str]]:
        """Yield arguments that let pg_restore leave out extensions, which the database then lacks.

        Clients inside a container read the archive as their input and cannot read a list as well: none is left out.
        """
        if not names or self._clients.container is not None:
            yield []
            return
        with tempfile.NamedTemporaryFile() as listed, tempfile.NamedTemporaryFile() as chosen:
            with open(listed.name, "wb") as file:
                self.restore("--list", dump=dump, output=file)
            entries = {f"EXTENSION - {name} " for name in names} | {f"COMMENT - EXTENSION {name} " for name in names}
            lines = Path(listed.name).read_text().splitlines()
            kept = [line for line in lines if not any(entry in f"{line} " for entry in entries)]
            Path(chosen.name).write_text("\n".join(kept) + "\n")
            yield [f"--use-list={chosen.name}"]

    def _read(self, word: str, *, dump: Path) -> None:
        try:
            with open(os.devnull, "wb") as nowhere:
                self.restore(word, dump=dump, output=nowhere)
        except StepError as error:
            if self._clients.container is not None:  # the container may be gone, with its server; then say that
                with self._clients.session(self._clients.server.maintenance) as session:
                    session.value("SELECT 1")
            raise DamagedError(
                f"database {self._name}: {dump.name} is not a complete dump: {error.state or error}"
            ) from error

    def refuse_folder(self, dump: Path) -> None:
        """Raise RefusedError for a folder with clients inside a container, where a pipe transports only one file."""
        if self._clients.container is not None and dump.is_dir():
            raise RefusedError(
                f"database {self._name}: {dump.name} is a folder, which cannot be given to clients inside a container",
                next_step=f"Set host and port in databases.{self._name} and remove container, so that Holdfast reaches"
                " the server with the clients of this machine.",
            )

    def restore(self, *options: str, dump: Path, jobs: int = 1, output: BinaryIO | None = None) -> None:
        """Run pg_restore on an archive. Raise CommandFailedError."""
        if self._clients.container is None:
            options += (f"--jobs={jobs}",) if jobs > 1 else ()
            self._clients.run("pg_restore", *options, str(dump), output=output)
            return
        with open(dump, "rb") as file:
            self._clients.run("pg_restore", *options, stdin=file, output=output)

    def load(self, *options: str, dump: Path, jobs: int, search_path: str | None) -> None:
        """Load an archive into a database. Raise CommandFailedError.

        With a search path, functions find the names that they use without a schema; `""` stands for the path that the
        role has anyway.
        """
        if search_path is None:
            self.restore(*options, dump=dump, jobs=jobs)
            return
        environment = self._clients.environment(**({"search_path": search_path} if search_path else {}))
        if dump.is_dir():
            with _twin(dump) as twin:
                self._clients.run("pg_restore", *options, f"--jobs={jobs}", str(twin), environment=environment)
            return
        self._clients.feed("pg_restore", *options, chunks=with_search_path(_chunks(dump)), environment=environment)

    def schema(self, *options: str, dump: Path, output: BinaryIO) -> None:
        """Write the definitions in an archive as SQL, without owners and grants. Raise CommandFailedError."""
        self.restore("--schema-only", "--no-owner", "--no-acl", "--file=-", *options, dump=dump, output=output)

    def schema_of(self, database: str, output: BinaryIO) -> None:
        """Write the definitions in a database the same way. Raise CommandFailedError."""
        options = ("--schema-only", "--no-owner", "--no-acl", "--no-password", database)
        self._clients.run("pg_dump", *options, output=output)


@contextlib.contextmanager
def _twin(dump: Path) -> Iterator[Path]:
    """Yield a folder that reads like the dump's own but keeps the session's search path; the data are links."""
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        for entry in dump.iterdir():
            if entry.name == "toc.dat":
                (Path(folder) / entry.name).write_bytes(b"".join(with_search_path(_chunks(entry))))
            else:
                (Path(folder) / entry.name).symlink_to(entry.absolute())
        yield Path(folder)


def _chunks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _clear(target: Path) -> None:
    """Remove what an earlier attempt wrote."""
    if target.is_dir():
        durable.remove_tree(target)
    target.unlink(missing_ok=True)
