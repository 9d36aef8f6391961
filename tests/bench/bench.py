"""`python -m tests.bench.bench`: Holdfast beside other tools, in one run, as ratios against the budgets.

Every tool's figure ends when what it wrote is on the disk; the files that are read are in the page cache. Only
figures of one run may be compared. Tools that are not installed are skipped by name.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.bench import proxies
from tests.bench.peers import PEERS, TIMEOUT_SECONDS, Times, version

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"
_MEMORY_MB = 200
_HELP_MS = 150
_LARGE_BYTES = 20 << 20
_FOLDERS = 200
_ROUNDS = 3
_ONCE = ("gzip", "rsync", "restic", "borg")


@dataclass(frozen=True)
class Row:
    """One figure. `ratio` is Holdfast's to the peer's; it holds if it is at most the budget, where there is one."""

    what: str
    figure: str
    peer: str = ""
    ratio: float | None = None
    budget: float | None = None
    told: str = ""

    def cells(self) -> list[str]:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        budget = self.told or ("" if self.budget is None else f"at most {self.budget:g}")
        holds = "" if self.ratio is None or self.budget is None else ("yes" if self.ratio <= self.budget else "**no**")
        return [self.what, self.figure, self.peer, ratio, budget, holds]


# --- files ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tree:
    """Random content, so that nothing can be compressed; every `large_every`-th file has 20 MiB."""

    title: str
    files: int
    bytes_each: int
    large_every: int = 0

    def make(self, root: Path) -> None:
        for number in range(_FOLDERS):
            (root / f"{number:03d}").mkdir(parents=True)
        for number in range(self.files):
            large = self.large_every and number % self.large_every == 0
            content = os.urandom(_LARGE_BYTES if large else self.bytes_each)
            (root / f"{number % _FOLDERS:03d}" / f"file{number}").write_bytes(content)
        os.sync()


@dataclass(frozen=True)
class Run:
    seconds: float
    peak_mb: float


def holdfast(what: str, vault: Path, root: Path) -> Run:
    """One operation in a fresh process, its start included."""
    order = json.dumps({"do": what, "vault": str(vault), "root": str(root)})
    os.sync()
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.operation", order],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=True,
    )
    os.sync()
    seconds = time.monotonic() - began
    return Run(seconds, float(json.loads(done.stdout)["peak_mb"]))


def measure_tree(tree: Tree, folder: Path, skip: list[str], say: Callable[[str], None]) -> tuple[list[Row], list[Row]]:
    """Rows of speed and of memory, from medians. Nothing is deleted between rounds: ext4 is slow to reuse what was just
    deleted."""
    source = folder / "source"
    say(f"{tree.title}: making them")
    tree.make(source)
    # A file changed in the last two seconds is read again by the next backup; a tree at rest is what is measured.
    time.sleep(2.1)
    found: dict[str, list[Times]] = {}
    runs: dict[str, list[Run]] = {}
    for number in range(1, _ROUNDS + 1):
        # What takes long is bound by the processor, which is steadier than a disk, and needs much space.
        left_out = skip if number == 1 else list(_ONCE)
        place = folder / f"round{number}"
        place.mkdir()
        _round(source, place, left_out, found, runs, lambda text, number=number: say(f"{tree.title}, {number}: {text}"))
    memory = []
    for name, several in runs.items():
        peak_mb = max(run.peak_mb for run in several)
        memory.append(
            Row(f"{tree.title}: {name}", f"{peak_mb:.0f} MB", "", peak_mb / _MEMORY_MB, 1.0, f"at most {_MEMORY_MB} MB")
        )
    seconds = {name: statistics.median(run.seconds for run in several) for name, several in runs.items()}
    return _speed_rows(tree, {name: _median(several) for name, several in found.items()}, seconds), memory


def _round(
    source: Path,
    folder: Path,
    skip: list[str],
    found: dict[str, list[Times]],
    runs: dict[str, list[Run]],
    say: Callable[[str], None],
) -> None:
    """Every tool once. Copies differ by a factor of two or more with what was written before them: one stands right
    before the restore, one right after it."""

    def peer(name: str, title: str, place: Path) -> None:
        if name not in skip:
            say(title)
            place.mkdir(exist_ok=True)
            found.setdefault(title, []).append(PEERS[name](source, place))

    for name in ("cp", "tar"):
        peer(name, name, folder)
    for title, what, root in (
        ("first backup", "backup", source),
        ("second backup, nothing changed", "backup", source),
        ("restore", "restore", folder / "holdfast-out"),
        ("verify", "verify", source),
    ):
        if what == "restore":
            peer("cp", "cp before", folder / "before")
        say(f"Holdfast, {title}")
        runs.setdefault(title, []).append(holdfast(what, folder / "vault", root))
        if what == "restore":
            peer("cp", "cp after", folder / "after")
    for name in _ONCE:
        peer(name, name, folder)


def _median(several: list[Times]) -> Times:
    def of(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    first = of(one.first for one in several)
    assert first is not None
    return Times(first, of(one.second for one in several), of(one.restore for one in several))


def _speed_rows(tree: Tree, found: dict[str, Times], runs: dict[str, float]) -> list[Row]:
    small = tree.bytes_each <= 4096
    first, second, restore = runs["first backup"], runs["second backup, nothing changed"], runs["restore"]
    rows = []

    def row(what: str, ours: float, peer: str, seconds: float | None, budget: float | None, told: str = "") -> None:
        if seconds is not None:
            rows.append(
                Row(f"{tree.title}: {what}", f"{ours:.2f} s", f"{peer} {seconds:.2f} s", ours / seconds, budget, told)
            )

    def of(peer: str) -> Times:
        return found.get(peer, Times(0.0, None, None))

    row("first backup", first, "cp -a, run before it", of("cp").first, None if small else 1.5)
    row("first backup", first, "tar -cf", of("tar").first, 1.5 if small else None)
    if "gzip" in found:
        row("first backup", first, "tar -czf", of("gzip").first, None if small else 1 / 15, "" if small else "1/15")
    if "rsync" in found:
        row("first backup", first, "rsync -a", of("rsync").first, None)
    for peer, budget, told in (
        ("restic", 1 / 2, "1/2") if small else ("restic", 1 / 3, "1/3"),
        ("borg", None, "") if small else ("borg", 1 / 3, "1/3"),
    ):
        if peer in found:
            row("first backup", first, peer, of(peer).first, budget, told)
    for peer, program, limit in (
        ("restic", "restic", 0.5),
        ("borg", "borg", None),
        ("rsync -a --link-dest", "rsync", None),
    ):
        row("second backup, nothing changed", second, peer, of(program).second, limit)
    row("restore", restore, "cp -a, right before it", of("cp before").first, 1.5)
    row("restore", restore, "cp -a, right after it", of("cp after").first, 1.5)
    for peer in ("restic", "borg"):
        row("restore", restore, peer, of(peer).restore, None)
    rows.append(Row(f"{tree.title}: verify, every byte", f"{runs['verify']:.2f} s"))
    return rows


# --- the rest -------------------------------------------------------------------------------------------


def measure_help() -> Row:
    program = Path(sys.executable).with_name("holdfast")
    times = []
    for _ in range(10):
        began = time.monotonic()
        subprocess.run([str(program), "--help"], stdout=subprocess.DEVNULL, check=True, timeout=30)
        times.append((time.monotonic() - began) * 1000)
    median = statistics.median(times)
    return Row(
        "`holdfast --help`, median of 10", f"{median:.0f} ms", "", median / _HELP_MS, 1.0, f"at most {_HELP_MS} ms"
    )


def measure_front(folder: Path) -> list[Row]:
    loads, costs = proxies.measure(folder)
    front, peers = loads["front"], [name for name in ("nginx", "caddy") if name in costs]
    added = {name: load.alone_ms - loads["direct"].alone_ms for name, load in loads.items()}
    rows = []
    for peer in peers:
        one = loads[peer]
        rows += [
            Row(
                "front: requests a second, 16 connections",
                f"{front.requests:.0f}",
                f"{peer} {one.requests:.0f}",
                front.requests / one.requests,
            ),
            Row(
                "front: 99th percentile, 16 connections",
                f"{front.p99_ms:.2f} ms",
                f"{peer} {one.p99_ms:.2f} ms",
                front.p99_ms / one.p99_ms,
            ),
        ]

    def beside(what: str, figure: Callable[[str], str]) -> Row:
        return Row(what, figure("front"), ", ".join(f"{peer} {figure(peer)}" for peer in peers))

    rows += [
        beside("front: added to the median, 1 connection", lambda name: f"{added[name]:.2f} ms"),
        beside("front: processor time of its start", lambda name: f"{costs[name].start_seconds:.2f} s"),
        beside("front: memory after its start", lambda name: f"{costs[name].idle_mb:.0f} MB"),
        beside("front: peak memory, with an upload of 600 MB", lambda name: f"{costs[name].peak_mb:.0f} MB"),
        beside("front: failed requests", lambda name: str(loads[name].errors)),
    ]
    return rows


def table(title: str, rows: list[Row]) -> str:
    head = ["what", "Holdfast", "beside", "ratio", "budget", "holds"]
    lines = [head, ["---"] * len(head), *(row.cells() for row in rows)]
    return f"## {title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def page(tables: list[str], command: str, skipped: list[str], loads: tuple[float, float]) -> str:
    versions = [version(name) for name in ("tar", "rsync", "restic", "borg", "nginx")]
    facts = [
        f"Measured {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC by `{command}`; this page is written by it.",
        f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} cores, "
        f"load average {loads[0]:.1f} at the start and {loads[1]:.1f} at the end (each tool here adds to it).",
        "Beside: " + ", ".join(one for one in versions if one) + ".",
        "Every figure of files is the median of three rounds (tar -czf, rsync, restic, borg: of one) and ends when"
        " what was written is on the disk; what is read is in the page cache. Compare ratios of one run only: figures"
        " move by a factor of two or more from run to run, and with other work on the machine.",
        "A ratio is Holdfast's figure divided by the other's; below 1 is faster, except for requests a second.",
    ]
    if skipped:
        facts.append(f"Skipped, not installed: {', '.join(skipped)}.")
    return "# Benchmarks\n\n" + "\n\n".join(facts) + "\n\n" + "\n".join(tables)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench", description=__doc__)
    parser.add_argument("--small", action="store_true", help="a quick check: 1,000 and 10,000 files")
    parser.add_argument("--media", type=int, default=12_000, help="files in the tree of media")
    parser.add_argument("--media-bytes", type=int, default=129_000, help="size of most of them")
    parser.add_argument("--tiny", type=int, default=200_000, help="files in the tree of small files")
    parser.add_argument("--tiny-bytes", type=int, default=1000)
    parser.add_argument(
        "--only", choices=["media", "tiny", "parts", "help", "front"], action="append", help="leave out the rest"
    )
    parser.add_argument("--folder", type=Path, help="where the data is made and deleted again (default: TMPDIR)")
    parser.add_argument("--write", nargs="?", type=Path, const=PAGE, help="write docs/benchmarks.md, or another page")
    options = parser.parse_args()
    if options.small:
        options.media, options.tiny = 1000, 10_000
    return options


def _need_bytes(trees: list[Tree]) -> int:
    """Each tree on the disk stands there once made; six times copied or restored and five times packed in the first
    round, four times and twice in the others."""
    times = 12 + 6 * (_ROUNDS - 1)
    sizes = [times * tree.files * (tree.bytes_each // 4096 + 1) * 4096 for tree in trees]
    sizes += [times * _LARGE_BYTES * (tree.files // tree.large_every + 1) for tree in trees if tree.large_every]
    return sum(sizes)


def main() -> None:
    options = parse()
    chosen: list[str] = options.only or ["media", "tiny", "parts", "help", "front"]
    trees = {
        "media": Tree(f"{options.media:,} files of media", options.media, options.media_bytes, 1000),
        "tiny": Tree(f"{options.tiny:,} files of {options.tiny_bytes} bytes", options.tiny, options.tiny_bytes),
    }
    wanted = [trees[name] for name in ("media", "tiny") if name in chosen]
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench", dir=options.folder))
    try:
        need, free = max((_need_bytes([tree]) for tree in wanted), default=0), shutil.disk_usage(folder).free
        if free < need:
            raise SystemExit(
                f"{folder.parent} has {free >> 20} MiB free; this run needs {need >> 20} MiB (--folder, --small)"
            )
        print(run(options, chosen, wanted, folder), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(options: argparse.Namespace, chosen: list[str], trees: list[Tree], folder: Path) -> str:
    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    load = os.getloadavg()[0]
    skipped = [name for name in ("rsync", "restic", "borg") if version(name) is None]
    tables: list[str] = []
    memory: list[Row] = []
    for number, tree in enumerate(trees):
        place = folder / str(tree.files)
        place.mkdir()
        speed, peaks = measure_tree(tree, place, skipped, say)
        tables.append(table(tree.title, speed))
        memory += peaks
        # What is deleted keeps the disk and a core at work long after, to the cost of what is measured next.
        if shutil.disk_usage(folder).free < 1.2 * _need_bytes(trees[number + 1 :]):
            say(f"{tree.title}: deleting them")
            shutil.rmtree(place)
    if "parts" in chosen:
        from tests.bench import parts  # it uses this module

        tables.append(parts.section(parts.measure(folder / "parts", options.tiny, say), parts.COMMAND))
    if memory:
        tables.append(table("Peak memory of Holdfast", memory))
    if "help" in chosen:
        tables.append(table("Command line", [measure_help()]))
    if "front" in chosen:
        missing = proxies.missing()
        skipped += missing
        if not missing:
            say("front: beside nginx")
            tables.append(table("The front proxy", measure_front(folder)))
    command = " ".join(["python -m tests.bench.bench", *sys.argv[1:]])
    text = page(tables, command, skipped, (load, os.getloadavg()[0]))
    if options.write:
        options.write.write_text(text)
    return text


if __name__ == "__main__":
    main()
