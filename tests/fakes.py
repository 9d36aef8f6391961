"""Small real code behind each driver protocol, in memory or in plain files. The contract suites hold them to it."""

from __future__ import annotations

import itertools
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from holdfast.drivers.interchange import dump_source
from holdfast.drivers.interchange.dump_source import DumpSource
from holdfast.drivers.protocols.datasets import Dataset, SnapshotFn
from holdfast.drivers.runtimes.processes import ProcessRuntime
from holdfast.errors import DamagedError, NotFoundError, RefusedError, StepError
from holdfast.model import Copying, Facts, GateState, Problem, ServiceInstance, ServiceStatus, Snapshot
from holdfast.model.packages import Newer, Package
from holdfast.system.host import Host
from tests.contract.fake_files import FakeFiles
from tests.contract.memory_vault import MemoryVault, sha256

__all__ = ["FakeDatabase", "FakeFiles", "FakeGate", "FakePackages", "FakeRuntime", "MemoryVault", "Step"]


@dataclass(frozen=True)
class Step:
    """A step of a plan that no class stands for, as the engine takes any."""

    name: str
    title: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


class FakeRuntime(ProcessRuntime):
    """Instances as entries of a dictionary; one whose command is `false` does not stay up."""

    def __init__(self) -> None:
        super().__init__(Host())
        self.up = False
        self.instances: dict[str, tuple[ServiceInstance, int]] = {}
        self._pids = itertools.count(100)
        self._output: dict[str, str] = {}
        self.killed_after: dict[str, float] = {}
        """Seconds after which those have to be killed that do not end by themselves."""

    def prepare(self) -> None:
        self.up = True

    def statuses(self) -> dict[str, ServiceStatus]:
        if not self.up:
            return {}
        return {name: ServiceStatus(name, True, pid, 1.0, "running") for name, (_, pid) in self.instances.items()}

    def start(self, *instances: ServiceInstance) -> None:
        self.prepare()
        for instance in instances:
            self._start(instance)

    def _start(self, instance: ServiceInstance) -> None:
        known = self.instances.get(instance.name)
        instance = replace(instance, comes_back=True)
        if known is not None and known[0] == instance:
            return
        self._output[instance.name] = f"started {' '.join(instance.command)}\n"
        if instance.command[0].endswith("false"):
            self.instances.pop(instance.name, None)
            raise StepError(f"{instance.name} does not stay up", state=self._output[instance.name])
        self.instances[instance.name] = (instance, next(self._pids))

    def stop(self, *names: str, keep: bool = False, at_most_seconds: float | None = None) -> dict[str, float]:
        stopped = [name for name in names if self.instances.pop(name, None) is not None]
        return {name: self.killed_after[name] for name in stopped if name in self.killed_after}

    def release_of(self, name: str) -> str | None:
        return self.instances[name][0].release if name in self.instances else None

    def output_tail(self, name: str) -> str:
        return self._output.get(name, "")

    def outputs(self) -> list[str]:
        return list(self._output)

    def output(
        self, name: str, *, lines: int, since_seconds: float | None = None, follow: bool = False
    ) -> Iterator[bytes]:
        yield "".join(self._output.get(name, "").splitlines(keepends=True)[-lines:]).encode()

    def shut_down(self) -> None:
        self.instances.clear()
        self.up = False

    def check(self) -> list[Problem]:
        return [] if self.up else [Problem("runtime", "warning", "it is down")]


class FakeDatabase:
    """An SQLite database in memory; a dump is its bytes behind their digest."""

    kind = "fake"
    extension = "fake"
    candidate_has_views = True

    def __init__(self, live: bytes | None = None) -> None:
        self._identities = (f"fake:{number}" for number in itertools.count(1))
        self.live: tuple[str, bytes] | None = (next(self._identities), live) if live is not None else None
        self.beside: dict[str, tuple[str, bytes]] = {}
        self.given: dict[str, bytes] = {}
        self.held = False
        self.private_folder: Path | None = None
        self.claimed_by: str | None = None
        self.open_handles: list[str] = []
        self.ahead_fails: Exception | None = None
        self.prepared_with: list[Facts] = []
        self.how = Copying(made="magic", ahead="a spell is prepared")

    def execute(self, sql: str) -> None:
        """A visitor's write."""
        if self.held:
            raise sqlite3.OperationalError("database is locked")
        with closing(sqlite3.connect(":memory:")) as connection:
            if self.live is not None:
                connection.deserialize(self.live[1])
            connection.executescript(sql)
            identity = self.live[0] if self.live is not None else next(self._identities)
            self.live = (identity, connection.serialize())

    def _bytes(self, dump: Path | None) -> bytes:
        if dump is None:
            if self.live is None:
                raise StepError("the database does not exist")
            return self.live[1]
        digest, content = dump.read_bytes()[:64], dump.read_bytes()[64:]
        if sha256(content).encode() != digest:
            raise DamagedError(f"{dump} is not a complete dump")
        return content

    def inspect(self) -> Facts:
        return {
            "exists": self.live is not None,
            "identity": self.live[0] if self.live is not None else None,
            "size_bytes": len(self.live[1]) if self.live is not None else 0,
            "tool": "fake 1",
        }

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return self._query(self._bytes(None), sql)

    @staticmethod
    def _query(content: bytes, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.deserialize(content)
            connection.execute("PRAGMA query_only=1")
            try:
                return connection.execute(sql).fetchall()
            except sqlite3.DatabaseError as error:
                raise StepError(str(error)) from error

    def schema_version(self) -> str:
        number = self.query("PRAGMA user_version")[0][0]
        return str(number) if number else ""

    def tables(self, *, budget_seconds: float = 10) -> dict[str, Facts]:
        return self._tables(self._bytes(None), budget_seconds)

    def _tables(self, content: bytes, budget_seconds: float) -> dict[str, Facts]:
        found: dict[str, Facts] = {}
        for (table,) in self._query(content, "SELECT name FROM sqlite_master WHERE type='table' ORDER BY name"):
            quoted = '"' + table.replace('"', '""') + '"'
            columns = [row[1] for row in self._query(content, f"PRAGMA table_info({quoted})")]
            rows = self._query(content, f"SELECT count(*) FROM {quoted}")[0][0] if budget_seconds > 0 else None
            found[table] = {"rows": rows, "columns": columns}
        return found

    def joint_snapshot(self, others: Sequence[Dataset]) -> None:
        """Each has a memory of its own."""

    @contextmanager
    def freeze_writes(self, limit_seconds: float | None) -> Iterator[SnapshotFn]:
        if limit_seconds is not None and (self.live is None or self.held):
            raise StepError(f"writers cannot be held within {limit_seconds:g} s")
        self.held = limit_seconds is not None

        def fix(target: Path, queries: Sequence[str], budget_seconds: float) -> Callable[[], Snapshot]:
            content = self._bytes(None)
            self.held = False
            return lambda: self._write(content, target, queries, budget_seconds)

        try:
            yield fix
        finally:
            self.held = False

    def _write(self, content: bytes, target: Path, queries: Sequence[str], budget_seconds: float) -> Snapshot:
        target.write_bytes(sha256(content).encode() + content)
        target.chmod(0o600)
        answers = [self._query(content, sql) for sql in queries]
        return Snapshot(self._tables(content, budget_seconds), answers=answers)

    def check(self) -> list[Problem]:
        return []

    def owner(self) -> str | None:
        return self.claimed_by

    def claim(self, owner: str) -> None:
        self.claimed_by = self.claimed_by or owner

    def session_environment(self, operation: str) -> dict[str, str]:
        return {}

    def end_sessions(self, operation: str) -> None:
        pass

    def tokens(self) -> list[str]:
        return list(self.beside)

    def copying(self) -> Copying:
        return self.how

    def copy_ahead(self, token: str) -> Facts:
        if self.ahead_fails is not None:
            raise self.ahead_fails
        return {"of": token}

    def prepare(self, token: str, source: Path | None, facts: Facts) -> str:
        if source is None:
            self._refuse_open()
            self.prepared_with.append(facts)
        content = self._bytes(source)
        identity = next(self._identities)
        self.beside[token] = (identity, content)
        return identity

    @contextmanager
    def candidate(self, token: str, identity: str) -> Iterator[FakeDatabase]:
        content = next((content for known, content in self.beside.values() if known == identity), None)
        if content is None:
            raise StepError(f"{identity} is gone")
        yield FakeDatabase(content)

    def dump(self, token: str, identity: str, target: Path, budget_seconds: float) -> Snapshot:
        content = next((content for known, content in self.beside.values() if known == identity), None)
        if content is None:
            raise StepError(f"{identity} is gone")
        return self._write(content, target, [], budget_seconds)

    def load(self, token: str, source: DumpSource) -> str:
        if source.format != dump_source.SQLITE:
            raise RefusedError(f"the fake does not read {source.format}")
        identity = next(self._identities)
        self.beside[token] = (identity, b"".join(source.chunks()))
        return identity

    def _refuse_open(self) -> None:
        if self.open_handles:
            raise RefusedError(f"the database is still open in {', '.join(self.open_handles)}")

    def swap(self, token: str, identity: str | None, aside: str) -> None:
        if (self.live[0] if self.live is not None else None) == identity:
            return
        found = [key for key, (known, _) in self.beside.items() if known == identity]
        if identity is not None and not found:
            raise StepError(f"{identity} is gone")
        self._refuse_open()
        present, self.live = self.live, self.beside.pop(found[0]) if found else None
        if present is not None:
            names = (aside if number == 1 else f"{aside}.{number}" for number in itertools.count(1))
            self.beside[next(name for name in names if name not in self.beside)] = present

    def hand_over(self, token: str, name: str, *, rehearsal: bool = False) -> None:
        if token in self.beside:
            if name in self.given:
                raise RefusedError(f"{name} is taken")
            if not rehearsal:
                self.given[name] = self.beside.pop(token)[1]

    def discard(self, token: str) -> None:
        for key in [key for key in self.beside if key == token or key.startswith(f"{token}.")]:
            del self.beside[key]


class FakeGate:
    def __init__(self) -> None:
        self._state = GateState()
        self._tokens = (f"token-{number}" for number in itertools.count(1))

    def state(self) -> GateState:
        return self._state

    def close(self, reason: Mapping[str, Any], preview_target: str | None = None) -> None:
        self._state = replace(self._state, operation=dict(reason))
        if preview_target not in (None, self._state.preview_target):
            self._state = replace(self._state, preview_target=preview_target, preview_token=next(self._tokens))

    def open(self) -> None:
        self._state = replace(self._state, operation=None, preview_target=None, preview_token=None)

    def hold(self, reason: Mapping[str, Any] | None) -> None:
        self._state = replace(self._state, hold=dict(reason) if reason is not None else None)

    def route(self, release: str, target: str) -> None:
        self._state = replace(self._state, release=release, target=target)

    def answers(self) -> bool:
        return True

    def instance(self) -> ServiceInstance | None:
        return None

    def check(self) -> list[Problem]:
        return []


class FakePackages:
    """Commits are dictionaries of files; a package is the JSON of one."""

    def __init__(self, folder: Path, commits: Mapping[str, Mapping[str, str]], names: Mapping[str, str]) -> None:
        self._folder = folder
        self._commits = commits
        self._names = names
        self._built: dict[str, Package] = {}

    def resolve(self, reference: str) -> tuple[str, str]:
        if reference in self._names:
            return self._names[reference], reference.replace("/", "-")
        found = [commit for commit in self._commits if len(reference) >= 4 and commit.startswith(reference)]
        if len(found) != 1:
            raise NotFoundError(f"there is no {reference!r}")
        return found[0], found[0][:12]

    def file_of(self, commit: str, name: str) -> str | None:
        return self._commits[commit].get(name)

    def fetch(self) -> None:
        pass

    def precedes(self, commit: str, later: str) -> bool:
        order = list(self._commits)
        return commit in order and later in order and order.index(commit) < order.index(later)

    def newer(self, commit: str) -> Newer:
        """Commits stand in their order; a name is a branch's."""
        order = list(self._commits)
        if commit not in order:
            raise NotFoundError(f"there is no {commit!r}")
        ahead = {name: order.index(at) - order.index(commit) for name, at in self._names.items()}
        return Newer(tags=[], follows=False, ahead={name: count for name, count in ahead.items() if count > 0})

    def build(self, commit: str, label: str, run: str) -> Package:
        for package in self._built.values():
            if (
                package.commit == commit
                and sha256((Path(package.path) / "package.tar.zst").read_bytes()) == package.digest
            ):
                return package
        identifier = f"{label}-{commit[:12]}"
        return self._store(identifier, label, commit, json.dumps(self._commits[commit]).encode())

    def _store(self, identifier: str, label: str, commit: str, content: bytes) -> Package:
        folder = self._folder / identifier
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.tar.zst").write_bytes(content)
        self._built[identifier] = Package(
            identifier, label, commit, sha256(content), len(content), "2026-01-01T00:00:00Z", str(folder)
        )
        return self._built[identifier]

    def abandon(self, run: str) -> None:
        pass

    def packages(self) -> list[Package]:
        return list(self._built.values())

    def unpack(self, package: Package, target: Path, marker: Mapping[str, Any]) -> None:
        content = (Path(package.path) / "package.tar.zst").read_bytes()
        if sha256(content) != package.digest:
            raise DamagedError(f"package {package.id} is damaged")
        shutil.rmtree(target, ignore_errors=True)
        for name, text in json.loads(content).items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_text(text)
        (target / ".holdfast-release.json").write_text(json.dumps(dict(marker)))

    def adopt(self, archive: Path) -> Package:
        try:
            package = msgspec.convert(json.loads(archive.with_name("code.json").read_text()), Package)
        except (OSError, ValueError) as error:
            raise DamagedError(f"{archive} has no manifest: {error}") from error
        if sha256(archive.read_bytes()) != package.digest or Path(package.id).name != package.id:
            raise DamagedError(f"{archive} is damaged")
        if package.id in self._built:
            return self._built[package.id]
        return self._store(package.id, package.label, package.commit, archive.read_bytes())

    def remove(self, *ids: str) -> None:
        for id in ids:
            if self._built.pop(id, None) is not None:
                shutil.rmtree(self._folder / id)
