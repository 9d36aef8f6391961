"""Archives of pg_dump: written, looked at, loaded; as files that its programs reach, or through pipes of a container.

Facts from the manuals of pg_dump and pg_restore, and measured on 15: parallel jobs need files, to dump a folder and to
load; the contents of an archive stand at its beginning, so that one which was cut short shows it only when all of it is
read.
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
_PARALLEL_BYTES = 256 << 20  # a smaller database is dumped before more sessions are there


class Archives:
    def __init__(self, name: str, clients: Clients) -> None:
        """`name` is the dataset's, for messages."""
        self._name = name
        self._clients = clients

    def write(self, database: str, snapshot: str, target: Path, size_bytes: int) -> None:
        """Dumps an exported snapshot, over what an earlier attempt left; seen to be whole. Raises StepError."""
        _clear(target)
        words = [f"--snapshot={snapshot}", "--no-password", database]
        if self._clients.container is not None:
            with open(target, "xb", opener=_private) as file:
                self._clients.run("pg_dump", "--format=custom", *words, output=file)
            self._read("--file=/dev/null", dump=target)
            return
        words.append(f"--file={target}")
        if size_bytes < _PARALLEL_BYTES or self._clients.server.jobs < 2 or not self._write_folder(words, target):
            target.touch(0o600)
            self._clients.run("pg_dump", "--format=custom", *words)
        self.check(target)

    def _write_folder(self, words: Sequence[str], target: Path) -> bool:
        """By several sessions at the same time, where that is worth it.

        All but the first of them give up where somebody waits for a table's exclusive lock (manual of pg_dump, `--jobs`).
        """
        target.mkdir(0o700)
        try:
            self._clients.run("pg_dump", "--format=directory", f"--jobs={self._clients.server.jobs}", *words)
        except CommandFailedError:
            _clear(target)
            return False
        return True

    def check(self, dump: Path) -> None:
        """Raises DamagedError for what has no contents that can be read, RefusedError for what cannot be loaded here,
        SqlError where nobody is there to read it."""
        self.refuse_folder(dump)
        self._read("--list", dump=dump)

    @contextlib.contextmanager
    def without_extensions(self, names: Collection[str], dump: Path) -> Iterator[list[str]]:
        """Words that let pg_restore leave out extensions, which are in no database afterwards.

        Clients inside a container have the archive for their input, and can read no list besides: none is left out.
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
            if self._clients.container is not None:  # which may have gone, with its server
                with self._clients.session(self._clients.server.maintenance) as session:
                    session.value("SELECT 1")
            raise DamagedError(
                f"database {self._name}: {dump.name} is no whole dump: {error.state or error}"
            ) from error

    def refuse_folder(self, dump: Path) -> None:
        """A pipe leads one file into a container."""
        if self._clients.container is not None and dump.is_dir():
            raise RefusedError(
                f"database {self._name}: {dump.name} is a folder, which cannot be given to clients inside a container",
                next_step=f"Reach the server from outside: databases.{self._name} with host and port, without container.",
            )

    def restore(self, *words: str, dump: Path, jobs: int = 1, output: BinaryIO | None = None) -> None:
        """Runs pg_restore on an archive. Raises CommandFailedError."""
        if self._clients.container is None:
            words += (f"--jobs={jobs}",) if jobs > 1 else ()
            self._clients.run("pg_restore", *words, str(dump), output=output)
            return
        with open(dump, "rb") as file:
            self._clients.run("pg_restore", *words, stdin=file, output=output)

    def load(self, *words: str, dump: Path, jobs: int, search_path: str | None) -> None:
        """Load an archive into a database. Raises CommandFailedError.

        With a search path, functions find what they name without a schema; `""` is the one that the role has anyway.
        """
        if search_path is None:
            self.restore(*words, dump=dump, jobs=jobs)
            return
        environment = self._clients.environment(**({"search_path": search_path} if search_path else {}))
        if dump.is_dir():
            with _twin(dump) as twin:
                self._clients.run("pg_restore", *words, f"--jobs={jobs}", str(twin), environment=environment)
            return
        self._clients.feed("pg_restore", *words, chunks=with_search_path(_chunks(dump)), environment=environment)

    def schema(self, *words: str, dump: Path, output: BinaryIO) -> None:
        """Write the definitions in an archive as SQL, without owners and grants. Raises CommandFailedError."""
        self.restore("--schema-only", "--no-owner", "--no-acl", "--file=-", *words, dump=dump, output=output)

    def schema_of(self, database: str, output: BinaryIO) -> None:
        """Write the definitions in a database the same way. Raises CommandFailedError."""
        words = ("--schema-only", "--no-owner", "--no-acl", "--no-password", database)
        self._clients.run("pg_dump", *words, output=output)


@contextlib.contextmanager
def _twin(dump: Path) -> Iterator[Path]:
    """Make a folder that is read as a dump's own, with the search path of the session; the data are links."""
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
    """Removes what an earlier attempt wrote."""
    if target.is_dir():
        durable.remove_tree(target)
    target.unlink(missing_ok=True)
