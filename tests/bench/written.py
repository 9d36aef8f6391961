"""An update and its way back by an application's own pages, and by Holdfast, on the stand-ins of two applications.

Both run one after the other, each on a site of its own; a visitor asks all the time.
`python -m tests.bench.written [--application NAME] [--rounds N] [--write]`: the last option writes the page in docs/.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, TypeVar

from tests.e2e.cli import run
from tests.memory import make_folder
from tests.servers import podman
from tests.standins.connect_access import ConnectAccess
from tests.standins.uso import Uso
from tests.standins.visitor import Visitor

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks-containers.md"
_ROUNDS = 3
_StandInT = TypeVar("_StandInT", ConnectAccess, Uso)
Measured = tuple[float, float]
"""The seconds that an action took, and those in which a visitor had no good answer."""


class Procedure(ABC, Generic[_StandInT]):
    """One application with the commands of its own pages."""

    name: str
    title: str

    @abstractmethod
    def create(self, folder: Path) -> _StandInT:
        """Write the application's files; nothing runs yet."""

    @abstractmethod
    def update(self, made: _StandInT) -> None:
        """Update it to v2 by its page."""

    @abstractmethod
    def go_back(self, made: _StandInT) -> None:
        """Go back to v1 and the data from before the update, by its page."""

    @contextmanager
    def site(self, *, adopted: bool) -> Iterator[_StandInT]:
        folder = make_folder()
        made = self.create(folder)
        try:
            made.start()
            if adopted:
                holdfast(made, "adopt")
            yield made
        finally:
            made.remove()
            shutil.rmtree(folder, ignore_errors=True)

    def by_the_page(self) -> list[Measured]:
        with self.site(adopted=False) as made:
            return [
                measured(made.web_port, lambda: self.update(made)),
                measured(made.web_port, lambda: self.go_back(made)),
            ]

    def by_holdfast(self) -> tuple[list[Measured], list[tuple[str, float]]]:
        """Return both, and the steps of the update with their seconds."""
        with self.site(adopted=True) as made:
            found = [measured(made.port, lambda: holdfast(made, "upgrade", "v2") and None)]
            steps = json.loads(holdfast(made, "log", "show", "latest", "--json"))["data"]["steps"]
            refused = run(made, "rollback").stderr
            instant = refused.partition("--discard-writes-since ")[2].split()[0]
            arguments = ("rollback", "--discard-writes-since", instant)
            found.append(measured(made.port, lambda: holdfast(made, *arguments) and None))
            return found, [(step["title"], step["seconds"]) for step in steps]


class ConnectAccessPages(Procedure[ConnectAccess]):
    name = "connect-access"
    title = "Connect Access on Docker Compose"

    def create(self, folder: Path) -> ConnectAccess:
        return ConnectAccess(folder)

    def update(self, made: ConnectAccess) -> None:
        made.compose("run", "--rm", "postgres", "backup")
        made.publish("v2")
        made.git("pull", "--quiet", "origin", "master")
        made.compose("build")
        made.manage("migrate")  # after the build: before it, as the page has it, nothing is migrated
        made.compose("down")
        made.compose("up", "-d")
        made.wait()

    def go_back(self, made: ConnectAccess) -> None:
        (backup,) = made.backups()
        made.compose("run", "--rm", "postgres", "restore", backup)
        made.git("checkout", "--quiet", "v1")
        for arguments in (["build"], ["down"], ["up", "-d"]):
            made.compose(*arguments)
        made.wait()


class UsoPages(Procedure[Uso]):
    name = "uso"
    title = "USO on Podman"

    def create(self, folder: Path) -> Uso:
        podman.compose()
        return Uso(folder, command=podman.command())

    def update(self, made: Uso) -> None:
        made.compose("down")
        made.backup()
        made.publish("v2")
        made.git("pull", "--quiet", "origin", "main")
        made.build()
        made.compose("up", "-d")
        made.wait()

    def go_back(self, made: Uso) -> None:
        made.compose("down")
        made.restore(next(made.instance.glob("backup-*.tar.gz")))
        made.git("checkout", "--quiet", "v1")
        made.build()
        made.compose("up", "-d")
        made.wait()


PROCEDURES: tuple[Procedure[ConnectAccess] | Procedure[Uso], ...] = (ConnectAccessPages(), UsoPages())


def holdfast(made: ConnectAccess | Uso, *arguments: str) -> str:
    done = run(made, *arguments)
    if done.returncode != 0:
        raise SystemExit(f"{arguments}: {done.stderr}")
    return done.stdout


def measured(port: int, action: Callable[[], None]) -> Measured:
    began = time.monotonic()
    with Visitor(port) as visitor:
        action()
        taken = time.monotonic() - began
    return taken, visitor.longest_seconds


def middle(rounds: list[list[Measured]], part: int, which: int) -> float:
    return sorted(found[part][which] for found in rounds)[len(rounds) // 2]


def compared(procedure: Procedure[ConnectAccess] | Procedure[Uso], rounds: int) -> list[str]:
    """Return the lines of the page about one application."""
    page: list[list[Measured]] = []
    ours: list[list[Measured]] = []
    steps: list[tuple[str, float]] = []
    for _ in range(rounds):
        page.append(procedure.by_the_page())
        found, steps = procedure.by_holdfast()
        ours.append(found)
    lines = [
        f"## {procedure.title}",
        "",
        "| | by the page, s | away, s | by Holdfast, s | away, s | away, ratio |",
        "|---|---|---|---|---|---|",
    ]
    for part, title in enumerate(("update to a version with a migration", "back to the version and data from before")):
        numbers = [middle(one, part, which) for one in (page, ours) for which in (0, 1)]
        shown = " | ".join(f"{number:.1f}" for number in numbers)
        lines.append(f"| {title} | {shown} | {numbers[3] / numbers[1]:.2f} |")
    titles = [title for title, _ in steps]
    window = steps[titles.index("close the gate") : titles.index("open the gate") + 1]
    lines += [
        "",
        "One window of Holdfast's update (of the last round), step by step:",
        "",
        "| step | seconds |",
        "|---|---|",
        *(f"| {title} | {seconds:.2f} |" for title, seconds in window),
        "",
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--application", choices=[procedure.name for procedure in PROCEDURES])
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    lines = [
        "# Updates in containers, beside the commands of the application's own pages",
        "",
        f"Measured on {datetime.now(UTC):%Y-%m-%d} by `python -m tests.bench.written --rounds {options.rounds}"
        f" --write`: the stand-ins of two applications, {options.rounds} rounds in turns, the middle one of each. A"
        " visitor asks the health page all the time; *away* is the longest time without a good answer.",
        "",
    ]
    for procedure in PROCEDURES:
        if options.application in (None, procedure.name):
            lines += compared(procedure, options.rounds)
    lines += [
        "The pages' commands verify nothing and keep no uploads; those of Connect Access migrate while the old version"
        " serves, those of USO stop everything for a copy of the database's folder. Images are of this machine's own"
        " programs: a real build by the page adds its minutes to the way back, and with USO to the update too; it adds"
        " none to Holdfast's.",
        "",
    ]
    print("\n".join(lines))
    if options.write:
        PAGE.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
