"""An upgrade of the stand-in of OroPlatform and its way back, by the steps of the manual and by Holdfast.

Both run one after the other, each on a site of its own; a visitor asks the login page all the time.
`python -m tests.bench.oro [--rounds N] [--write]`: the last option writes the page in docs/.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.written import Measured, middle
from tests.e2e.cli import run, succeed
from tests.memory import make_folder
from tests.servers import postgresql
from tests.standins.oro.site import Oro
from tests.standins.visitor import Visitor

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks-oro.md"
_ROUNDS = 3
_TITLES = ("upgrade with migrations of two bundles", "back to the version and data from before")


@contextmanager
def installed() -> Iterator[Oro]:
    made = Oro(make_folder("hfo"), consumers=3)
    try:
        succeed(made, "install", "v5.1.0")
        yield made
    finally:
        made.end()


def measured(made: Oro, action: Callable[[], object]) -> Measured:
    """Return the seconds that an action took, and the longest time in which a visitor had no good answer."""
    began = datetime.now(UTC)
    with Visitor(made.port, "/user/login") as visitor:
        action()
        taken = (datetime.now(UTC) - began).total_seconds()
        assert made.get("/user/login")[0] == 200
    return taken, visitor.longest_seconds


class Manual:
    """The steps of the manual, on a site whose services run under supervisord, as the manual has them."""

    def __init__(self, made: Oro) -> None:
        self._made = made
        self._dump = made.folder / "before.dump"

    def _supervisor(self, action: str, *names: str) -> str:
        """Run supervisorctl, for each service by itself and side by side, because it takes them in turn."""
        socket = self._made.folder / "state/supervisor/s.sock"
        argv = [sys.executable, "-m", "supervisor.supervisorctl", "-s", f"unix://{socket}", action]
        begun = [
            subprocess.Popen([*argv, *name], stdout=subprocess.PIPE, text=True)
            for name in ([[name] for name in names] or [[]])
        ]
        return "".join(one.communicate()[0] for one in begun)

    def _services(self, *kinds: str) -> list[str]:
        names = [line.split()[0] for line in self._supervisor("status").splitlines()]
        return [name for name in names if name.partition("-2")[0].rstrip("23") in kinds]

    def _console(self, *arguments: str) -> None:
        done = self._made.console(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    def _server(self, program: str, *arguments: str) -> None:
        place = ["-h", self._made.store.place["HOST"], "-p", str(postgresql.PostgresqlServer.port), "-U", "postgres"]
        subprocess.run([program, *place, *arguments], check=True, capture_output=True)

    def _check_out(self, version: str) -> None:
        """Put the code of a version over that of the installation, as `git checkout` does there."""
        release = (self._made.app / "current").resolve()
        git = ["git", "-C", str(self._made.repository), "archive", version]
        archive = subprocess.run(git, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", str(release), "--no-overwrite-dir"], input=archive, check=True)

    def upgrade(self) -> None:
        self._server("pg_dump", "-Fc", "-f", str(self._dump), self._made.store.name)
        self._console("oro:maintenance:lock")
        behind = self._services("schedule", "consumer", "websocket")
        self._supervisor("stop", *behind)
        self._check_out("v5.1.1")
        self._console("oro:platform:update", "--force", "--timeout=0", "--skip-download-translations")
        self._console("cache:warmup")
        self._supervisor("restart", *self._services("fpm", "web"))
        self._supervisor("start", *behind)
        self._console("oro:maintenance:unlock")

    def go_back(self) -> None:
        self._console("oro:maintenance:lock")
        behind = self._services("schedule", "consumer", "websocket")
        self._supervisor("stop", *behind, *self._services("fpm", "web"))
        self._server("pg_restore", "--clean", "--if-exists", "-d", self._made.store.name, str(self._dump))
        self._server("psql", "-d", self._made.store.name, "-qc", "DROP TABLE IF EXISTS acme_tag")
        release = (self._made.app / "current").resolve()
        for path in (*release.glob("src/*/Bundle/*/Migrations/Schema/v1_1*"),):
            if path.name in ("v1_10_1", "v1_11") or "Acme" in str(path):
                subprocess.run(["rm", "-r", str(path)], check=True)
        (release / "src/Acme/Bundle/ShopBundle/Migrations/Data/ORM/LoadTags.php").unlink()
        self._check_out("v5.1.0")
        self._console("cache:warmup")
        self._supervisor("start", *self._services("fpm", "web"), *behind)
        self._console("oro:maintenance:unlock")


def by_the_manual() -> list[Measured]:
    with installed() as made:
        manual = Manual(made)
        return [measured(made, manual.upgrade), measured(made, manual.go_back)]


def by_holdfast() -> tuple[list[Measured], list[tuple[str, float]]]:
    """Return both, and the steps of the upgrade with their seconds."""
    with installed() as made:
        found = [measured(made, lambda: succeed(made, "upgrade", "v5.1.1"))]
        steps = json.loads(succeed(made, "log", "show", "latest", "--json"))["data"]["steps"]
        refused = run(made, "rollback").stderr
        instant = refused.partition("--discard-writes-since ")[2].split()[0]
        found.append(measured(made, lambda: succeed(made, "rollback", "--discard-writes-since", instant)))
        return found, [(step["title"], step["seconds"]) for step in steps]


def compared(rounds: int) -> list[str]:
    manual: list[list[Measured]] = []
    ours: list[list[Measured]] = []
    steps: list[tuple[str, float]] = []
    for _ in range(rounds):
        manual.append(by_the_manual())
        found, steps = by_holdfast()
        ours.append(found)
    lines = ["| | by the manual, s | away, s | by Holdfast, s | away, s | away, ratio |", "|---|---|---|---|---|---|"]
    for part, title in enumerate(_TITLES):
        numbers = [middle(one, part, which) for one in (manual, ours) for which in (0, 1)]
        lines.append(f"| {title} | {' | '.join(f'{one:.1f}' for one in numbers)} | {numbers[3] / numbers[1]:.2f} |")
    titles = [title for title, _ in steps]
    window = steps[titles.index("close the gate") : titles.index("open the gate") + 1]
    lines += ["", "The window of Holdfast's upgrade (of the last round), step by step:", "", "| step | seconds |"]
    return [*lines, "|---|---|", *(f"| {title} | {seconds:.2f} |" for title, seconds in window), ""]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    lines = [
        "# An upgrade of OroPlatform, beside the steps of its manual",
        "",
        f"Measured on {datetime.now(UTC):%Y-%m-%d} by `python -m tests.bench.oro --rounds {options.rounds} --write`:"
        f" the stand-in of OroPlatform with three consumers, rounds in turns ({options.rounds}), the middle one. A"
        " visitor asks the login page all the time; *away* is the longest time without a good answer. The stand-in's"
        " commands take tenths of a second where those of the real application take tens of seconds, so that what is"
        " compared is the procedure around them.",
        "",
        *compared(options.rounds),
        "The manual sets the application's own maintenance lock first and stops the consumers then. Consumers that run"
        " while the lock is set ignore their signal, so each upgrade waits for their time-out (20 s here) and kills"
        " them. The manual keeps a dump, no uploads, and verifies nothing.",
        "",
    ]
    print("\n".join(lines))
    if options.write:
        PAGE.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
