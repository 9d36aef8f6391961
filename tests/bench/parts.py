"""Looking into a backup and bringing back one file of it: whole commands beside those of other tools, in one run.

`python -m tests.bench.parts [--files N] [--write]`: the last option writes the section in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.bench import PAGE, Row, Tree, table
from tests.bench.peers import timed, version

COMMAND = "python -m tests.bench.parts"
TITLE = "One file of a backup"
_ROUNDS = 3
_LIMIT_SECONDS = 2.0
_CONFIGURATION = """
[application]
name = "bench"
state = "{folder}/state"
[source]
repository = "{folder}"
[files.media]
path = "{folder}/media"
[vaults.local]
kind = "local"
path = "{folder}/vault"
[backup]
consistency = "live"
"""
Command = Callable[[int], float]
"""Run one command once, in the round of that number; return its seconds."""


class Ground:
    """A tree with two backups of each tool; a file changed between them."""

    def __init__(self, folder: Path, files: int, say: Callable[[str], None]) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.media = folder / "media"
        say(f"{files:,} files: making them")
        Tree("", files, 1000).make(self.media)
        (folder / "holdfast.toml").write_text(_CONFIGURATION.format(folder=folder))
        time.sleep(2.1)  # a file changed in the last two seconds is read again
        chosen = files // 2 + 1
        self.path = f"{chosen % 200:03d}/file{chosen}"
        self._restic = {
            "RESTIC_REPOSITORY": str(folder / "restic"),
            "RESTIC_PASSWORD": "bench",
            "RESTIC_CACHE_DIR": str(folder / "restic-cache"),
        }
        self._borg = {
            "BORG_REPO": str(folder / "borg"),
            "BORG_PASSPHRASE": "bench",
            "BORG_BASE_DIR": str(folder / "borg-own"),
        }
        self.tools = [name for name in ("restic", "borg") if version(name) is not None]
        if "restic" in self.tools:
            self.restic("init")
        if "borg" in self.tools:
            self.borg("init", "--encryption", "repokey-blake2")
        for number, name in enumerate(("first", "second")):
            say(f"{files:,} files: {name} backups")
            (self.media / self.path).write_text(f"content {number}" * 50)
            time.sleep(2.1)
            self.holdfast("create")
            if "restic" in self.tools:
                self.restic("backup", str(self.media))
            if "borg" in self.tools:
                self.borg("create", f"::{name}", "media")

    def holdfast(self, *arguments: str) -> float:
        program = Path(sys.executable).with_name("holdfast")
        return timed([str(program), "backup", *arguments, "--yes"], cwd=self.folder)

    def restic(self, *arguments: str) -> float:
        return timed(["restic", "--quiet", *arguments], environment=self._restic)

    def borg(self, *arguments: str, cwd: Path | None = None) -> float:
        return timed(["borg", *arguments], environment=self._borg, cwd=cwd or self.folder)

    def borg_extract(self, number: int) -> float:
        place = self.folder / f"borg-out{number}"
        place.mkdir()
        return self.borg("extract", "::second", f"media/{self.path}", cwd=place)

    def restored_live(self, number: int) -> float:
        (self.media / self.path).unlink()
        seconds = self.holdfast("restore", "latest", "--path", f"media/{self.path}")
        assert (self.media / self.path).read_text().startswith("content 1"), number
        return seconds


def measure(folder: Path, files: int, say: Callable[[str], None]) -> list[Row]:
    ground = Ground(folder, files, say)
    name = ground.path.rpartition("/")[2]
    place = str(ground.media / ground.path)
    ids = sorted(path.name for path in (folder / "vault" / "backups").iterdir())
    measured: list[tuple[str, Command, dict[str, Command]]] = [
        (
            "restore one file into the live tree, journalled",
            ground.restored_live,
            {},
        ),
        (
            "restore one file into a new folder",
            lambda number: ground.holdfast(
                "restore", "latest", "--path", f"media/{ground.path}", "--to", str(folder / f"out{number}")
            ),
            {
                "restic": lambda number: ground.restic(
                    "restore", "latest", "--include", place, "--target", str(folder / f"restic-out{number}")
                ),
                "borg": ground.borg_extract,
            },
        ),
        (
            "list one folder",
            lambda number: ground.holdfast("files", "latest", f"media/{ground.path[:3]}"),
            {"restic": lambda number: ground.restic("ls", "latest", str(ground.media / ground.path[:3]))},
        ),
        (
            "find a name in two backups",
            lambda number: ground.holdfast("find", name),
            {"restic": lambda number: ground.restic("find", name)},
        ),
        (
            "compare two backups",
            lambda number: ground.holdfast("diff", *ids[:2]),
            {
                "restic": lambda number: ground.restic("diff", *_snapshots(folder)),
                "borg": lambda number: ground.borg("diff", "::first", "second"),
            },
        ),
        ("compare a backup with the live tree", lambda number: ground.holdfast("diff", "latest"), {}),
    ]
    rows = []
    for what, ours, peers in measured:
        say(what)
        peers = {tool: command for tool, command in peers.items() if tool in ground.tools}
        commands = {"": ours, **peers}
        found = {tool: [command(number) for number in range(_ROUNDS)] for tool, command in commands.items()}
        rows += _rows(f"{files:,} files: {what}", {tool: statistics.median(times) for tool, times in found.items()})
    return rows


def _snapshots(folder: Path) -> Sequence[str]:
    """Ids of restic's snapshots, oldest first."""
    found = sorted((folder / "restic" / "snapshots").iterdir(), key=lambda path: path.stat().st_mtime)
    return [path.name for path in found]


def _rows(what: str, seconds: dict[str, float]) -> list[Row]:
    ours = seconds.pop("")
    rows = []
    if "one file" in what:
        rows.append(Row(what, f"{ours:.2f} s", "", ours / _LIMIT_SECONDS, 1.0, f"at most {_LIMIT_SECONDS:g} s"))
    for tool, peer in seconds.items():
        rows.append(Row(what, f"{ours:.2f} s", f"{tool} {peer:.2f} s", ours / peer))
    return rows or [Row(what, f"{ours:.2f} s")]


def section(rows: list[Row], command: str) -> str:
    """The part of the page, with the command that wrote it."""
    told = (
        f"Measured {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC by `{command}`: whole commands with their"
        f" start, medians of {_ROUNDS} rounds. restic and borg encrypt and decrypt, Holdfast does not."
    )
    heading, _, lines = table(TITLE, rows).partition("\n\n")
    return f"{heading}\n\n{told}\n\n{lines}"


def write(text: str) -> None:
    """Put the section into the page, in the place of an earlier one."""
    page = PAGE.read_text()
    earlier = re.compile(rf"## {TITLE}\n.*?(?=\n## |\Z)", re.S)
    if earlier.search(page):
        page = earlier.sub(lambda _: text, page)
    else:
        page = page.replace("## Peak memory", f"{text}\n## Peak memory", 1)
    PAGE.write_text(page)


def main() -> None:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="where the data is made and deleted again (default: TMPDIR)")
    parser.add_argument("--write", action="store_true", help="write the section in docs/benchmarks.md")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench", dir=options.folder))
    try:
        rows = measure(folder, options.files, lambda text: print(text, file=sys.stderr, flush=True))
        text = section(rows, " ".join([COMMAND, *sys.argv[1:]]))
        print(text)
        if options.write:
            write(text)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
