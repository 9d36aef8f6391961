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
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.demo import repository
from holdfast.demo.load import Load
from holdfast.demo.stop import Stop
from holdfast.errors import CancelledError, CommandTimeoutError, HoldfastError
from holdfast.system.host import Host
from holdfast.system.ports import free_loopback_port
from holdfast.system.processes import end_processes_with

Line = Callable[[str], None]
Table = Callable[[Sequence[str], Sequence[Sequence[str]]], None]

_COMMAND_SECONDS = 120
_ROWS = 3000
_FILES = 300


@dataclass
class Story:
    folder: Path
    line: Line
    stop: Stop
    host: Host
    port: int
    load: Load
    chapter: str = "the preparations"
    operations: list[tuple[str, str, float, float]] = field(default_factory=list)
    printed: str = ""  # by the last command

    @classmethod
    def begin(cls, line: Line, stop: Stop) -> Story:
        """Return a story with a temporary folder of its own, in which nothing has happened yet."""
        port = free_loopback_port()
        folder = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
        story = cls(folder, line, stop, Host(cancelled=stop.requested), port, Load(port))
        story.host.log = story._hear
        return story

    @property
    def application(self) -> Path:
        return self.folder / "guestbook"

    @property
    def configuration(self) -> Path:
        return self.application / "holdfast.toml"

    @property
    def environment_id(self) -> str:
        """Return the identity of the application, with which the instances of all its services begin.

        The demo's own commands have it without the name of a service, so that none of them is taken for a service. What
        they start inherits it.
        """
        return f"guestbook.production@{self.folder / 'state'}"

    def prepare(self) -> None:
        """Make the repository and the configuration."""
        source = self.folder / "repository"
        repository.build(source, self.host)
        repository.write_configuration(
            self.application, source, self.folder / "state", self.folder / "vault", self.port, rows=_ROWS, files=_FILES
        )
        self.stop.check()

    def begin_chapter(self, number: int, title: str) -> None:
        """Show the title of a chapter; a failure from now on is one of this chapter."""
        self.stop.check()
        self.chapter = f"chapter {number}"
        self.line("")
        self.line(f"{number}. {title}")

    # --- commands ----------------------------------------------------------------------------------

    def argv(self, *command: str) -> list[str]:
        return [sys.executable, "-m", "holdfast", *command, "--yes", "--config", str(self.configuration)]

    def environment(self) -> dict[str, str]:
        """Return the variables that the demo adds to the environment of its commands."""
        return {"HOLDFAST_INSTANCE": self.environment_id}

    def _hear(self, record: Mapping[str, object]) -> None:
        """Keep what a command prints, for a failure of it."""
        if record["kind"] == "output":
            self.printed += str(record["text"])

    def run(self, command: str, *, serves: str = "", expect: int = 0, name: str = "") -> None:
        """Run one command as an operator would; show it, its essential output, and how long visitors waited.

        `serves` is the version that answers visitors afterwards. Raise HoldfastError if anything is not as expected.
        """
        self.stop.check()
        self.line(f"$ holdfast {command}")
        self.printed = ""
        if name:
            self.load.phase(name)
        started = time.monotonic()
        try:
            result = self.host.run(
                self.argv(*command.split()),
                environment=self.environment(),
                check=False,
                timeout_seconds=_COMMAND_SECONDS,
            )
        except CommandTimeoutError:
            raise self.failure(
                f"`holdfast {command}` was ended after {_COMMAND_SECONDS} seconds", f"exit code {expect} before that"
            ) from None
        seconds = time.monotonic() - started
        if result.exit_code != expect:
            raise self.failure(f"`holdfast {command}` ended with exit code {result.exit_code}", f"exit code {expect}")
        for text in _essential(result.output_tail):
            self.line(f"    {text}")
        self.look_at_visitors(f"`holdfast {command}`", serves)
        if name:
            self.operations.append(
                (name, "ok" if expect == 0 else "undone by itself", seconds, self.load.longest_gap(name))
            )

    def kill_in_migration(self, tag: str, *, serves: str) -> None:
        """Start an upgrade, kill it with SIGKILL while its migration runs, and recover.

        Raise HoldfastError if anything is not as expected.
        """
        self.stop.check()
        self.line(f"$ holdfast upgrade {tag}        # and SIGKILL in the middle of its migration")
        name = f"upgrade to {tag}, killed, recovered"
        self.load.phase(name)
        started = time.monotonic()
        log = self.folder / "killed.log"
        media = self.application / "shared" / "media"
        pid = self.host.start_server(
            self.argv("upgrade", tag), cwd=self.folder, log_path=log, environment=self.environment()
        )
        try:
            deadline = time.monotonic() + 30
            while not (media / "piece-5.txt").exists():
                ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is not None or time.monotonic() > deadline:
                    self.printed = log.read_text(errors="replace")
                    happened = "ended" if ended is not None else "had 30 seconds, but did not get there"
                    raise self.failure(
                        f"`holdfast upgrade {tag}` {happened}", "an upgrade that can be killed in its migration"
                    )
                self.stop.sleep(0.02)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        left = len(list(media.glob("piece-*.txt")))
        if not left:  # its migration ends by removing them
            self.printed = log.read_text(errors="replace")
            raise self.failure(
                f"`holdfast upgrade {tag}` was killed after its migration", "to be killed in the middle of it"
            )
        self.line(f"    killed; the migration had committed {left} of its 20 pieces and is still running")
        self.run("status")
        self.run("recover", serves=serves)
        seconds = time.monotonic() - started
        self.operations.append((name, "recovered, with its old data", seconds, self.load.longest_gap(name)))

    def look_at_visitors(self, after: str, serves: str) -> None:
        """Let visitors notice the end of a command. Raise HoldfastError if they did not get what they should."""
        self.stop.sleep(0.3)
        failures = self.load.counts.failures
        if failures:
            raise self.failure(
                f"requests of visitors that failed by the end of {after}: {_counted(failures)}",
                "every request to be answered, or held with 503",
            )
        if serves:
            found = self.load.served_version()
            if found != serves:
                raise self.failure(f"visitors get {found} after {after}", f"an answer of {serves}")

    def failure(self, what: str, expected: str) -> HoldfastError:
        """Return the error that ends the demo, with what the last command printed."""
        printed = textwrap.indent(self.printed.strip() or "(nothing)", "    ")
        return HoldfastError(
            f"{self.chapter} failed: {what}", state=f"Expected: {expected}.\nThe command printed:\n{printed}"
        )

    # --- looking -----------------------------------------------------------------------------------

    def examine(self) -> tuple[int, int, int, list[str]]:
        """Return how many rows and files there are, how many acknowledged writes are lost, and all that is wrong."""
        media = self.application / "shared" / "media"
        database = self.application / "shared" / "guestbook.sqlite3"
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True, timeout=30)) as connection:
            rows = connection.execute("SELECT id, file, sha256 FROM entries").fetchall()
        digests: dict[str, str] = {}
        disagree = []
        for number, file, digest in rows:
            if file not in digests:
                path = media / file
                digests[file] = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
            if digests[file] != digest:
                disagree.append(number)
        present = {number: digest for number, _, digest in rows}
        missing = [number for number in range(1, _ROWS + 1) if number not in present]
        lost = [number for number, digest in self.load.acknowledged.items() if present.get(number) != digest]
        problems = []
        if disagree:
            problems.append(f"rows that disagree with their files: {len(disagree)}, the first is row {disagree[0]}")
        if missing:
            problems.append(f"rows of the installation that are missing: {len(missing)}, the first is row {missing[0]}")
        if lost:
            problems.append(f"acknowledged writes that are lost: {len(lost)}, the first is row {lost[0]}")
        return len(rows), len(digests), len(lost), problems

    # --- the end -----------------------------------------------------------------------------------

    def clean_up(self, *, keep: bool) -> list[str]:
        """End all processes of the demo and remove its folder; return what could not be removed."""
        self.load.ask_to_stop()
        # Visitors may wait for an answer of the processes that are ended here, so join them afterwards.
        left = end_processes_with(f"HOLDFAST_INSTANCE={self.environment_id}", grace_seconds=5, wait_seconds=10)
        self.load.stop()
        remains = [f"process {process.pid} ({process.command})" for process in left]
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
            if self.folder.exists():
                remains.append(f"folder {self.folder}")
        return remains


def _essential(output: str) -> list[str]:
    """Return what the command says at its end, and what was undone."""
    kept = []
    for text in output.splitlines():
        if text.startswith(("undo:", "  |")) or ": done (" in text or "secret of" in text:
            continue
        if text.strip():
            kept.append(text)
    return kept[-9:]


def _counted(failures: Sequence[str]) -> str:
    """Return how many requests failed, and the first of them."""
    return f"{len(failures)} ({'; '.join(failures[:3])}{'; ...' if len(failures) > 3 else ''})"


def _chapters(story: Story) -> None:
    line = story.line
    chapter = story.begin_chapter
    chapter(1, "A guestbook with 3,000 rows and 300 uploads goes live; readers and writers never stop from here")
    story.run("install v1", serves="v1")
    story.load.start()
    story.stop.sleep(1)
    chapter(2, "A backup under load: database and files at one instant")
    story.run("backup create", serves="v1", name="backup")
    chapter(3, "The upgrade to v2 migrates the schema")
    story.run("upgrade v2", serves="v2", name="upgrade to v2")
    chapter(4, "v3 deletes half of the rows, damages uploads and dies in its migration: undone by itself")
    story.run("upgrade v3", serves="v2", expect=6, name="upgrade to v3 (dies half-way)")
    chapter(5, "v4 migrates and starts, but answers 500: undone by itself, no visitor ever saw it")
    story.run("upgrade v4", serves="v2", expect=6, name="upgrade to v4 (answers 500)")
    chapter(6, "The power of SIGKILL: the upgrade to v5 dies in the middle of its migration")
    story.kill_in_migration("v5", serves="v2")
    line("  ... and again, undisturbed")
    story.run("upgrade v5", serves="v5", name="upgrade to v5")
    chapter(7, "The rolling upgrade to v6: its migration is declared compatible, so nobody has to wait")
    story.run("upgrade v6 --rolling", serves="v6", name="rolling upgrade to v6")
    chapter(
        8, "The database file is deleted; the last backup brings it back (visitors see the maintenance page meanwhile)"
    )
    story.load.pause()
    story.run("backup create", serves="v6")
    for ending in ("", "-wal", "-shm"):
        (story.application / "shared" / f"guestbook.sqlite3{ending}").unlink(missing_ok=True)
    line("$ rm shared/guestbook.sqlite3*")
    story.run("backup restore latest --no-safety", serves="v6")
    story.load.go_on()
    story.stop.sleep(1)
    story.run("backup verify", serves="v6")


def tell(line: Line, table: Table, stop: Stop, *, keep: bool = False) -> dict[str, object]:
    """Play the story and return its figures.

    Raise HoldfastError after the first step that fails, and CancelledError after a signal. In each case nothing of the
    demo is left, but for its folder if it is to be kept.
    """
    started = time.monotonic()
    line("Holdfast demo: a real application in a temporary folder, upgraded, broken, killed and restored under load.")
    story = Story.begin(line, stop)
    failure: HoldfastError | None = None
    figures: dict[str, object] = {}
    try:
        story.prepare()
        _chapters(story)
        figures = _account(story, table, started)
    except HoldfastError as error:
        failure = error
    except (OSError, sqlite3.Error) as error:
        failure = story.failure(f"{type(error).__name__}: {error}", "no error of the demo's own")
    finally:
        remains = story.clean_up(keep=keep)
    _end(story, failure, remains, keep)
    return figures


def _end(story: Story, failure: HoldfastError | None, remains: Sequence[str], keep: bool) -> None:
    """Say how the demo ended. Raise HoldfastError unless all of it held, and CancelledError after a signal."""
    end = (
        f"its processes have ended and its folder is kept: {story.folder}" if keep else "everything it made was removed"
    )
    if remains:
        end = f"this is left: {', '.join(remains)}"
    if story.stop.requested():
        raise CancelledError(f"the demo was stopped ({story.stop.signal_name}); {end}")
    if failure is not None:
        failure.state = "\n".join(filter(None, (failure.state, f"The demo stopped here; {end}.")))
        failure.next_step = (
            f"To see what each command did, run: holdfast log list --config {story.configuration}"
            if keep
            else "To look at the application and its log afterwards, run: holdfast demo --keep"
        )
        raise failure
    if remains:
        raise HoldfastError(f"the demo held, but could not clean up; {end}")
    if keep:
        story.line(f"The folder is kept: {story.folder}")
    story.line("All of it held.")


def _account(story: Story, table: Table, started: float) -> dict[str, object]:
    """Show the figures and return them. Raise HoldfastError if something in them did not hold."""
    story.chapter = "the account"
    story.load.stop()
    rows, files, lost, problems = story.examine()
    seconds = time.monotonic() - started
    answers = story.load.counts.answers
    line = story.line
    line("")
    line("WAIT is the longest time that a visitor waited for an answer.")
    table(
        ["OPERATION", "END", "TOOK", "WAIT"],
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
    line("")
    if story.load.counts.failures:
        problems.append(f"requests of visitors that failed: {_counted(story.load.counts.failures)}")
    if not answers["served"] or not story.load.acknowledged:
        problems.append(f"requests served: {answers['served']}, writes acknowledged: {len(story.load.acknowledged)}")
    if problems:
        raise HoldfastError(
            f"the account failed: {'; '.join(problems)}",
            state="Expected: every row with its file, every acknowledged write, and no failed request.",
        )
    return {
        "ok": True,
        "problems": [],
        "served": answers["served"],
        "held": answers["503"],
        "failed": answers["failed"],
        "acknowledged": len(story.load.acknowledged),
        "lost": lost,
        "rows": rows,
        "files": files,
        "seconds": round(seconds, 1),
        "operations": [
            {"name": n, "end": e, "seconds": round(t, 2), "longest_gap_seconds": round(g, 3)}
            for n, e, t, g in story.operations
        ],
    }
