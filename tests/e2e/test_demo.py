"""The demo is a test of its own: every figure in its table is asserted, and so is what it leaves when it ends early."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from holdfast.cli.demo import demo as command
from holdfast.demo import repository, story
from holdfast.demo.load import Load
from holdfast.demo.stop import Stop
from holdfast.errors import HoldfastError
from holdfast.system.processes import Process, end_processes_with, processes_with
from tests.proof import patience
from tests.site import gate_port

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def installed(folder: Path) -> Path:
    """Install a wheel of this tree in a path with a blank; return its interpreter. It uses the tests' libraries."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
    tree = folder / "tree"
    shutil.copytree(_ROOT, tree, ignore=shutil.ignore_patterns(".*", "build", "tests", "docs", "*.egg-info"))
    subprocess.run([*build, "--wheel-dir", folder, tree], check=True, timeout=patience.limit(60))
    (wheel,) = folder.glob("holdfast-*.whl")
    place = folder / "my environment"
    venv.create(place, with_pip=False)
    (packages,) = place.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
        names = archive.namelist()
    assert any(name.endswith("/licenses/LICENSE") for name in names) and "holdfast/py.typed" in names
    (packages / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return place / "bin" / "python"


@pytest.mark.combination
def test_the_demo_holds_from_a_wheel_in_a_path_with_a_blank(installed: Path) -> None:
    folder = installed.parents[1]
    done = subprocess.run(
        [installed, "-m", "holdfast", "demo", "--json"],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=patience.limit(240),
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    figures = json.loads(done.stdout)["data"]
    assert figures["ok"] and figures["problems"] == []
    assert figures["failed"] == 0 and figures["lost"] == 0
    assert figures["served"] > 100 and figures["held"] > 0
    assert figures["acknowledged"] > 50
    assert figures["rows"] == 3000 + figures["acknowledged"]


# --- what is left ----------------------------------------------------------------------------------


def variable_of(place: Path) -> str:
    """Return the beginning of what all processes of a demo have in their environment, if its folder is in a place."""
    return f"HOLDFAST_INSTANCE=guestbook.production@{place}/"


@pytest.fixture
def place(folder: Path) -> Iterator[Path]:
    """Give a folder in which a demo makes its own."""
    yield folder
    end_processes_with(variable_of(folder), grace_seconds=0, wait_seconds=10)


def demo_in(place: Path) -> subprocess.Popen[str]:
    """Start a demo in a process of its own, as a shell does."""
    return subprocess.Popen(
        [sys.executable, "-m", "holdfast", "demo"],
        env={**os.environ, "TMPDIR": str(place)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_hear_signals,
    )


def _hear_signals() -> None:
    """Undo what the process that runs the tests may have inherited, as from nohup or a job in the background."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def read_until(process: subprocess.Popen[str], line: str) -> None:
    """Read a process's output up to a line."""
    assert process.stdout is not None
    seen = []
    for text in process.stdout:
        seen.append(text)
        if text.rstrip("\n") == line:
            return
    raise AssertionError(f"it ended without the line {line!r}:\n{''.join(seen)}")


def eventually(condition: Callable[[], object]) -> None:
    deadline = patience.deadline(60)
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def commands(found: list[Process]) -> str:
    return "\n".join(process.command for process in found)


@pytest.mark.parametrize("numbers", [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM]], ids=["SIGINT twice", "SIGTERM"])
def test_a_signal_in_an_upgrade_leaves_nothing(place: Path, numbers: list[signal.Signals]) -> None:
    process = demo_in(place)
    try:
        read_until(process, "$ holdfast upgrade v2")
        eventually(lambda: list(place.glob("holdfast-demo-*/guestbook/releases/*-v2")))
        running = commands(processes_with(variable_of(place)))
        for part in ("supervisord", "front.server", "app.py", "-m holdfast upgrade v2"):
            assert part in running
        for number in numbers:
            process.send_signal(number)
        rest, _ = process.communicate(timeout=patience.limit(60))
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, rest
    assert rest.splitlines()[-1] == f"The demo was stopped ({numbers[0].name}); everything it made was removed"
    assert "Traceback" not in rest and "All of it held." not in rest
    assert processes_with(variable_of(place)) == []
    assert list(place.iterdir()) == []


def test_a_lost_terminal_in_the_first_step_leaves_nothing(place: Path) -> None:
    process = demo_in(place)
    try:
        read_until(process, "$ holdfast install v1")
        eventually(lambda: processes_with(variable_of(place)))
        process.send_signal(signal.SIGHUP)
        rest, _ = process.communicate(timeout=patience.limit(60))
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, rest
    assert rest.splitlines()[-1] == "The demo was stopped (SIGHUP); everything it made was removed"
    assert processes_with(variable_of(place)) == []
    assert list(place.iterdir()) == []


# --- what failed -----------------------------------------------------------------------------------


@pytest.fixture
def demo(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Give what runs the demo in this process, where its parts can be replaced."""
    monkeypatch.setattr(tempfile, "tempdir", str(place))

    def run(*options: str) -> Result:
        return CliRunner().invoke(command, options, prog_name="holdfast demo")

    return run


def test_the_first_step_that_fails_is_the_last(
    demo: Callable[..., Result], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "VERSIONS", repository.VERSIONS[:1])  # so that there is no v2
    done = demo()
    assert done.exit_code == 1, done.output
    assert "$ holdfast backup create" in done.output
    assert "$ holdfast upgrade v3" not in done.output
    error = done.stderr.splitlines()
    assert error[0] == "Error: chapter 3 failed: `holdfast upgrade v2` ended with exit code 4"
    assert error[1:3] == ["Expected: exit code 0.", "The command printed:"]
    assert error[3].startswith("    Error: ") and "v2" in error[3]
    assert error[-2] == "The demo stopped here; everything it made was removed."
    assert "holdfast demo --keep" in error[-1]
    assert "All of it held." not in done.output
    assert processes_with(variable_of(place)) == []
    assert list(place.iterdir()) == []


def test_a_failed_demo_keeps_its_folder_if_asked(
    demo: Callable[..., Result], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "VERSIONS", ())
    done = demo("--keep", "--json")
    assert done.exit_code == 1, done.output
    envelope = json.loads(done.stdout)
    assert not envelope["ok"] and envelope["exit_code"] == 1
    assert envelope["error"]["what"] == "chapter 1 failed: `holdfast install v1` ended with exit code 4"
    (kept,) = place.iterdir()
    assert f"its folder is kept: {kept}" in envelope["error"]["state"]
    assert envelope["error"]["next_step"].endswith(f"holdfast log list --config {kept}/guestbook/holdfast.toml")
    assert processes_with(variable_of(place)) == []


# --- what held -------------------------------------------------------------------------------------

DIGEST = hashlib.sha256(b"upload").hexdigest()
Damage = Callable[[story.Story, sqlite3.Connection], object]


def nothing(told: story.Story, database: sqlite3.Connection) -> None:
    pass


def a_request_failed(told: story.Story, database: sqlite3.Connection) -> None:
    told.load.counts.answers["failed"] = 1
    told.load.counts.failures.append("backup: GET / got 500")


DAMAGES: dict[str, tuple[Damage, str]] = {
    "row": (
        lambda _, database: database.execute("DELETE FROM entries WHERE id = 7"),
        "rows of the installation that are missing: 1, the first is row 7",
    ),
    "write": (
        lambda _, database: database.execute("DELETE FROM entries WHERE id = 3001"),
        "acknowledged writes that are lost: 1, the first is row 3001",
    ),
    "file": (
        lambda told, _: (told.application / "shared" / "media" / "upload").write_bytes(b"damaged"),
        "rows that disagree with their files: 3001, the first is row 1",
    ),
    "request": (a_request_failed, "requests of visitors that failed: 1 (backup: GET / got 500)"),
    "service": (lambda told, _: told.load.counts.answers.clear(), "requests served: 0, writes acknowledged: 1"),
}


def played(damage: Damage) -> Callable[[story.Story], None]:
    """Return what stands for all chapters: it leaves their data, after a damage."""

    def chapters(told: story.Story) -> None:
        media = told.application / "shared" / "media"
        media.mkdir(parents=True)
        (media / "upload").write_bytes(b"upload")
        with closing(sqlite3.connect(told.application / "shared" / "guestbook.sqlite3")) as database:
            database.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, file TEXT, sha256 TEXT)")
            rows = [(number, "upload", DIGEST) for number in range(1, 3002)]
            database.executemany("INSERT INTO entries VALUES (?, ?, ?)", rows)
            told.load.counts.answers["served"] = 1
            told.load.acknowledged[3001] = DIGEST
            damage(told, database)
            database.commit()

    return chapters


def test_all_of_it_held(demo: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "VERSIONS", ())
    monkeypatch.setattr(story, "_chapters", played(nothing))
    done = demo()
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "All of it held."


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_did_not_hold_is_told(demo: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    damage, told = DAMAGES[kind]
    monkeypatch.setattr(repository, "VERSIONS", ())
    monkeypatch.setattr(story, "_chapters", played(damage))
    done = demo()
    assert done.exit_code == 1, done.output
    assert done.stderr.splitlines()[0] == f"Error: the account failed: {told}"
    assert "All of it held." not in done.output


def test_visitors_who_get_another_version_are_a_failure(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    told = story.Story.begin(lambda line: None, Stop())
    monkeypatch.setattr(told.load, "served_version", lambda: "v1")
    told.look_at_visitors("`holdfast recover`", "v1")
    with pytest.raises(HoldfastError, match="visitors get v1 after `holdfast recover`"):
        told.look_at_visitors("`holdfast recover`", "v2")
    told.load.counts.failures.append("GET / got 500")
    with pytest.raises(HoldfastError, match=r"failed by the end of `holdfast recover`: 1 \(GET / got 500\)"):
        told.look_at_visitors("`holdfast recover`", "v1")


def test_an_answer_that_is_not_the_applications_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load(gate_port(), readers=0, writers=1)
    monkeypatch.setattr(load, "_request", lambda method, path, body=None: (201, b"<html>"))
    load.start()
    try:
        eventually(lambda: load.counts.failures)
    finally:
        load.stop()
    assert load.acknowledged == {}
    assert load.counts.answers["served"] == 0


def test_its_repository_alone_is_written_to_a_new_folder(folder: Path) -> None:
    argv = [sys.executable, "-m", "holdfast", "demo", "--repository", str(folder / "repository")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    git = ["git", "-C", str(folder / "repository")]
    tags = subprocess.run([*git, "tag"], capture_output=True, text=True, check=True).stdout.split()
    assert tags == ["v1", "v2", "v3", "v4", "v5", "v6", "v6.1"]
    assert (folder / "repository" / "app.py").exists()
    again = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert again.returncode == 4 and "exists already" in again.stderr
