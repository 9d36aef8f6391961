"""What the suites of sanitized dumps share: plans, dumps, and the memory of a process that made one.

`python -m tests.contract.sanitizing` is that process. It reads a pickled `Dumping` from its input, never from its
arguments, where the key would be in the sight of everybody.
"""

from __future__ import annotations

import gzip
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from holdfast.drivers.protocols.sanitizing import SanitizedDump, Sanitizer
from holdfast.sanitize import output, rules
from holdfast.sanitize.deciding import DatabasePlan, Decided, decide
from holdfast.system.host import Host
from tests.memory import memory_of


class MakeSanitizer(Protocol):
    """A sanitizer of one database, for a process that has its own host."""

    def __call__(self, *, host: Host) -> Sanitizer: ...


class Dumping(NamedTuple):
    """What the process that makes a dump needs to know."""

    make: MakeSanitizer
    text: str
    key: str
    folder: Path
    preview: str | None
    """A table whose rows are previewed before the dump."""


def decided(found: Sanitizer, text: str) -> Decided:
    """Decide on the rules of a text for the database as it is."""
    schema = found.schema()
    return decide(schema, rules.parse(text, "sanitize.toml", lambda _: ""), found.contents(schema), found.quote)


def plan_of(found: Sanitizer, text: str) -> DatabasePlan:
    """Return the plan for rules that have no problem."""
    made = decided(found, text)
    assert made.problems == (), made.problems
    assert found.problems(made.plan) == []
    return made.plan


def written(found: Sanitizer, plan: DatabasePlan, key: str, folder: Path, jobs: int = 1) -> tuple[bytes, SanitizedDump]:
    """Write a dump that is the only thing in its folder, and return its content."""
    folder.mkdir(exist_ok=True)
    dump = found.write(plan, key, folder, "gz", lambda _: None, jobs)
    output.join(dump.parts, folder / "dump.gz")
    assert [path.name for path in folder.iterdir()] == ["dump.gz"]
    return gzip.decompress((folder / "dump.gz").read_bytes()), dump


def memory_of_a_dump(make: MakeSanitizer, text: str, key: str, folder: Path, *, preview: str | None = None) -> bytes:
    """Return the memory of a process of its own that has just made a dump, and is ended then."""
    folder.mkdir(exist_ok=True)
    order = Dumping(make, text, key, folder, preview)
    argv = [sys.executable, "-m", "tests.contract.sanitizing"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(pickle.dumps(order))
        process.stdin.close()
        assert process.stdout.readline() == b"written\n"
        found = memory_of(process.pid)
        process.kill()
    assert key.encode() in found, "it is the memory of the process that made the dump"
    return found


def _dump() -> None:
    order = cast(Dumping, pickle.load(sys.stdin.buffer))
    found = order.make(host=Host())
    plan = plan_of(found, order.text)
    if order.preview is not None:
        found.preview(plan, order.preview, 5, order.key)
    found.write(plan, order.key, order.folder, "gz", lambda _: None, 1)
    print("written", flush=True)
    time.sleep(600)  # until it is ended by the test


if __name__ == "__main__":
    _dump()
