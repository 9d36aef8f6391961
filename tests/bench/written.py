"""An update and its way back by an application's own pages, and by Holdfast, on the stand-in of Connect Access.

Both run one after the other, each on a site of its own; a visitor asks all the time.
`python -m tests.bench.written [--write]`: the option writes the page in docs/.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tests.e2e.cli import run
from tests.memory import make_folder
from tests.standins.connect_access import ConnectAccess
from tests.standins.visitor import Visitor

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks-containers.md"
_ROUNDS = 3


@contextmanager
def site(*, adopted: bool) -> Iterator[ConnectAccess]:
    folder = make_folder()
    made = ConnectAccess(folder)
    try:
        made.start()
        if adopted:
            holdfast(made, "adopt")
        yield made
    finally:
        made.remove()
        shutil.rmtree(folder, ignore_errors=True)


def holdfast(made: ConnectAccess, *arguments: str) -> str:
    done = run(made, *arguments)
    if done.returncode != 0:
        raise SystemExit(f"{arguments}: {done.stderr}")
    return done.stdout


def measured(port: int, action: Callable[[], None]) -> tuple[float, float]:
    """Seconds that an action took, and those in which a visitor had no good answer."""
    began = time.monotonic()
    with Visitor(port) as visitor:
        action()
        taken = time.monotonic() - began
    return taken, visitor.longest_seconds


def by_the_page(made: ConnectAccess) -> list[tuple[float, float]]:
    def update() -> None:
        made.compose("run", "--rm", "postgres", "backup")
        made.publish("v2")
        made.git("pull", "--quiet", "origin", "master")
        made.compose("build")
        made.manage("migrate")  # after the build: before it, as the page has it, nothing is migrated
        made.compose("down")
        made.compose("up", "-d")
        made.wait()

    def back() -> None:
        made.compose("run", "--rm", "postgres", "restore", backup)
        made.git("checkout", "--quiet", "v1")
        for arguments in (["build"], ["down"], ["up", "-d"]):
            made.compose(*arguments)
        made.wait()

    found = [measured(made.web_port, update)]
    (backup,) = made.backups()
    return [*found, measured(made.web_port, back)]


def by_holdfast(made: ConnectAccess) -> list[tuple[float, float]]:
    found = [measured(made.port, lambda: holdfast(made, "upgrade", "v2") and None)]
    refused = run(made, "rollback").stderr
    instant = refused.partition("--discard-writes-since ")[2].split()[0]
    arguments = ("rollback", "--discard-writes-since", instant)
    return [*found, measured(made.port, lambda: holdfast(made, *arguments) and None)]


def middle(rounds: list[list[tuple[float, float]]], part: int, which: int) -> float:
    return sorted(found[part][which] for found in rounds)[len(rounds) // 2]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    page: list[list[tuple[float, float]]] = []
    ours: list[list[tuple[float, float]]] = []
    for _ in range(_ROUNDS):
        with site(adopted=False) as made:
            page.append(by_the_page(made))
        with site(adopted=True) as made:
            ours.append(by_holdfast(made))
    lines = [
        "# Updates in containers, beside the commands of the application's own pages",
        "",
        f"Measured on {datetime.now(UTC):%Y-%m-%d} by `python -m tests.bench.written --write`: the stand-in of Connect"
        f" Access on Docker Compose, {_ROUNDS} rounds in turns, the middle one of each. A visitor asks the health page"
        " all the time; *away* is the longest time without a good answer.",
        "",
        "| | by the page, s | away, s | by Holdfast, s | away, s | away, ratio |",
        "|---|---|---|---|---|---|",
    ]
    for part, title in enumerate(("update to a version with a migration", "back to the version and data from before")):
        numbers = [middle(rounds, part, which) for rounds in (page, ours) for which in (0, 1)]
        shown = " | ".join(f"{number:.1f}" for number in numbers)
        lines.append(f"| {title} | {shown} | {numbers[3] / numbers[1]:.2f} |")
    lines += [
        "",
        "The page's commands migrate while the old version serves, verify nothing, and keep no uploads. Images are of"
        " this machine's own programs: a real build by the page adds its minutes to the way back, and none to"
        " Holdfast's.",
        "",
    ]
    print("\n".join(lines))
    if write:
        PAGE.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
