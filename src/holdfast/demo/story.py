"""`holdfast demo`: the whole story on a small but real application, under constant load.

Every command is the real one in a process of its own, as an operator types it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.demo import repository
from holdfast.demo.load import Load
from holdfast.errors import HoldfastError
from holdfast.host import Host
from holdfast.ports import free_loopback_port
from holdfast.processes import end_processes_with

Line = Callable[[str], None]
Table = Callable[[Sequence[str], Sequence[Sequence[str]]], None]

_COMMAND_SECONDS = 120


@dataclass
class Story:
    folder: Path
    line: Line
    host: Host
    port: int
    load: Load
    operations: list[tuple[str, str, float, float]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def application(self) -> Path:
        return self.folder / "guestbook"

    # --- commands ----------------------------------------------------------------------------------

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "holdfast", *words, "--yes", "--config", str(self.application / "holdfast.toml")]

    def run(self, words: str, *, expect: int = 0, name: str = "") -> str:
        """Runs one command as an operator would; shows it, its essential output, and how long visitors waited."""
        self.line(f"$ holdfast {words}")
        if name:
            self.load.phase(name)
        started = time.monotonic()
        result = self.host.run(self.argv(*words.split()), check=False, timeout_seconds=_COMMAND_SECONDS)
        seconds = time.monotonic() - started
        time.sleep(0.3)  # so that visitors notice the end of it
        for text in _essential(result.output_tail):
            self.line(f"    {text}")
        if result.exit_code != expect:
            self.problems.append(f"`holdfast {words}` ended with {result.exit_code} instead of {expect}")
            self.line(f"    !! ended with exit code {result.exit_code}, expected {expect}")
        if name:
            self.operations.append(
                (name, "ok" if expect == 0 else "undone by itself", seconds, self.load.longest_gap(name))
            )
        return result.output_tail

    def kill_in_migration(self, tag: str) -> None:
        """Starts an upgrade and kills it with SIGKILL while its migration runs."""
        self.line(f"$ holdfast upgrade {tag}        # and SIGKILL in the middle of its migration")
        name = f"upgrade to {tag}, killed, recovered"
        self.load.phase(name)
        started = time.monotonic()
        pid = self.host.start_server(self.argv("upgrade", tag), cwd=self.folder, log_path=self.folder / "killed.log")
        media = self.application / "shared" / "media"
        deadline = time.monotonic() + 30
        while not (media / "piece-5.txt").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        left = len(list(media.glob("piece-*.txt")))
        self.line(f"    killed; the migration had committed {left} of its 20 pieces and goes on without its master")
        if left == 0:
            self.problems.append("the upgrade was not killed in its migration")
        self.run("status", expect=0)
        self.run("recover")
        seconds = time.monotonic() - started
        self.operations.append((name, "recovered: old version, old data", seconds, self.load.longest_gap(name)))

    # --- looking -----------------------------------------------------------------------------------

    def rows_and_files(self) -> tuple[int, int]:
        """Reads every row and its file; a row without its file, or with another content, is a problem."""
        media = self.application / "shared" / "media"
        database = self.application / "shared" / "guestbook.sqlite3"
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True, timeout=30)) as connection:
            rows = connection.execute("SELECT id, file, sha256 FROM entries").fetchall()
        digests: dict[str, str] = {}
        for number, file, digest in rows:
            if file not in digests:
                path = media / file
                digests[file] = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
            if digests[file] != digest:
                self.problems.append(f"row {number} and its file disagree")
        return len(rows), len(digests)

    def lost_writes(self) -> int:
        database = self.application / "shared" / "guestbook.sqlite3"
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True, timeout=30)) as connection:
            present = dict(connection.execute("SELECT id, sha256 FROM entries"))
        lost = [number for number, digest in self.load.acknowledged.items() if present.get(number) != digest]
        if lost:
            self.problems.append(f"{len(lost)} acknowledged writes are lost")
        return len(lost)


def _essential(output: str) -> list[str]:
    """What the command says at its end, and what was undone."""
    kept = []
    for text in output.splitlines():
        if text.startswith(("undo:", "  |")) or ": done (" in text or "secret of" in text:
            continue
        if text.strip():
            kept.append(text)
    return kept[-9:]


@contextlib.contextmanager
def _stage(line: Line, keep: bool) -> Iterator[Story]:
    folder = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
    host = Host()
    port = free_loopback_port()
    story = Story(folder, line, host, port, Load(port))
    state = folder / "state"
    try:
        repository.build(folder / "repository", host)
        repository.write_configuration(story.application, folder / "repository", state, folder / "vault", port)
        yield story
    finally:
        story.load.stop()
        end_processes_with(f"HOLDFAST_INSTANCE=guestbook.production@{state}", grace_seconds=5, wait_seconds=10)
        if keep:
            line(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _chapters(story: Story) -> None:
    line = story.line

    def chapter(number: int, title: str) -> None:
        line("")
        line(f"{number}. {title}")

    chapter(1, "A guestbook with 3,000 rows and 300 uploads goes live; readers and writers never stop from here")
    story.run("install v1")
    story.load.start()
    time.sleep(1)
    chapter(2, "A backup under load: database and files at one instant")
    story.run("backup create", name="backup")
    chapter(3, "The upgrade to v2 migrates the schema")
    story.run("upgrade v2", name="upgrade to v2")
    chapter(4, "v3 deletes half of the rows, damages uploads and dies in its migration: undone by itself")
    story.run("upgrade v3", expect=6, name="upgrade to v3 (dies half-way)")
    chapter(5, "v4 migrates and starts, but answers 500: undone by itself, no visitor ever saw it")
    story.run("upgrade v4", expect=6, name="upgrade to v4 (answers 500)")
    chapter(6, "The power of SIGKILL: the upgrade to v5 dies in the middle of its migration")
    story.kill_in_migration("v5")
    line("  ... and again, undisturbed")
    story.run("upgrade v5", name="upgrade to v5")
    chapter(7, "The rolling upgrade to v6: its migration is declared compatible, so nobody has to wait")
    story.run("upgrade v6 --rolling", name="rolling upgrade to v6")
    chapter(8, "The database file is deleted; the last backup brings it back (visitors rest meanwhile)")
    story.load.pause()
    story.run("backup create")
    for ending in ("", "-wal", "-shm"):
        (story.application / "shared" / f"guestbook.sqlite3{ending}").unlink(missing_ok=True)
    line("$ rm shared/guestbook.sqlite3*")
    story.run("backup restore latest --no-safety")
    story.load.go_on()
    time.sleep(1)
    story.run("backup verify")


def tell(line: Line, table: Table, *, keep: bool = False) -> dict[str, Any]:
    """Plays the story; the figures and whether all of it held."""
    started = time.monotonic()
    line("Holdfast demo: a real application in a temporary folder, upgraded, broken, killed and restored under load.")
    with _stage(line, keep) as story:
        try:
            _chapters(story)
            story.load.stop()
            rows, files = story.rows_and_files()
            lost = story.lost_writes()
        except (HoldfastError, OSError, sqlite3.Error) as error:
            story.problems.append(f"{type(error).__name__}: {error}")
            rows = files = lost = 0
        return _report(story, table, rows, files, lost, time.monotonic() - started)


def _report(story: Story, table: Table, rows: int, files: int, lost: int, seconds: float) -> dict[str, Any]:
    answers = story.load.counts.answers
    line = story.line
    if answers["failed"]:
        story.problems.append(f"{answers['failed']} requests failed: {story.load.counts.failures[:3]}")
    if "rolling upgrade to v6" in story.load.counts.gaps and answers["served"] == 0:
        story.problems.append("nothing was served")
    line("")
    table(
        ["OPERATION", "END", "TOOK", "LONGEST WAIT OF VISITORS"],
        [[name, end, f"{took:.1f} s", f"{gap:.2f} s"] for name, end, took, gap in story.operations],
    )
    line("")
    table(
        ["MEASURED", ""],
        [
            ["requests served", f"{answers['served']:,}"],
            ["held with 503", f"{answers['503']:,}"],
            ["other failures", f"{answers['failed']:,}"],
            ["acknowledged writes checked", f"{len(story.load.acknowledged):,} ({lost} lost)"],
            ["rows checked, each with its file", f"{rows:,}"],
            ["files checked by digest", f"{files:,}"],
            ["whole demo", f"{seconds:.0f} s"],
        ],
    )
    for problem in story.problems:
        line(f"PROBLEM: {problem}")
    line("")
    line("All of it held." if not story.problems else "Something did not hold: see above.")
    return {
        "ok": not story.problems, "problems": story.problems, "served": answers["served"], "held": answers["503"],
        "failed": answers["failed"], "acknowledged": len(story.load.acknowledged), "lost": lost, "rows": rows,
        "files": files, "seconds": round(seconds, 1),
        "operations": [{"name": n, "end": e, "seconds": round(t, 2), "longest_gap_seconds": round(g, 3)} for n, e, t, g in story.operations],
    }  # fmt: skip
