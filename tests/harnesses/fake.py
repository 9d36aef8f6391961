"""The fakes that stand in unit tests: they pass the suites of the real drivers."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from holdfast.drivers.protocols.files import Files
from holdfast.drivers.protocols.gates import Gate
from tests.fakes import FakeDatabase, FakeFiles, FakeGate, FakePackages, FakeRuntime, MemoryVault
from tests.harnesses.harness import (
    History,
    OpenHarness,
    OpenPackages,
    OpenRuntime,
    OpenVault,
    SqlHarness,
    VaultHarness,
    WriterHeldError,
)


class FakeHarness(SqlHarness):
    def free_name(self) -> str:
        return "fakeother"


@contextmanager
def opened(folder: Path) -> Iterator[FakeHarness]:
    database = FakeDatabase()

    def execute(sql: str) -> None:
        try:
            database.execute(sql)
        except sqlite3.OperationalError as error:
            raise WriterHeldError(str(error)) from error

    @contextmanager
    def other(name: str) -> Iterator[FakeDatabase]:
        yield FakeDatabase(database.given[name])

    yield FakeHarness(database, folder, execute, other=other)


def packages(folder: Path, history: History) -> AbstractContextManager[FakePackages]:
    names = {"v1": history.first, "main": history.second, "feature/x": history.second}
    return nullcontext(FakePackages(folder / "packages", history.files, names))


def vault(folder: Path) -> VaultHarness:
    found = MemoryVault()

    def damage(id: str, name: str) -> None:
        content = found.sets[id].files[name]
        found.sets[id].files[name] = bytes([content[0] ^ 1]) + content[1:]

    return VaultHarness(found, damage)


ANSWERS_SQL = True
DATASETS: Mapping[str, OpenHarness] = {"fake": opened}
FILES: Mapping[str, Callable[[Path], Files]] = {"fake": FakeFiles}
VAULTS: Mapping[str, OpenVault] = {"fake": vault}
GATES: Mapping[str, Callable[[Path], Gate]] = {"fake": lambda folder: FakeGate()}
RUNTIMES: Mapping[str, OpenRuntime] = {"fake": lambda folder: nullcontext(FakeRuntime())}
# The fake has neither patches nor a registry, which have suites of their own.
PACKAGES: Mapping[str, OpenPackages] = {"fake": packages}  # type: ignore[dict-item]
