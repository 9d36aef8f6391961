"""The progress of an operation: one line of any width, plain lines in a pipe, nothing with `--quiet`."""

from __future__ import annotations

import io
import re

import pytest

from holdfast.cli.progress import Moment, ProgressObserver, ended_line, progress_line
from holdfast.cli.render import Renderer
from holdfast.errors import HoldfastError
from tests.terminal import Terminal

COPY = Moment("copy changed files of media", 7, 17, 8.0, done=30 << 20, amount=120 << 20, unit="bytes")


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (120, "[ 7/17] ███████░░░░░░░░░░░░░  37% copy changed files of media  30.0 of 120.0 MiB, 3.8 MiB/s, 24 s left"),
        (79, "[ 7/17]  37% copy changed files of me…  30.0 of 120.0 MiB, 3.8 MiB/s, 24 s left"),
        (60, "[ 7/17]  37% copy changed fil…  30.0 of 120.0 MiB, 24 s left"),
        (39, "[ 7/17]  37% copy changed f…  24 s left"),
        (20, "[ 7/17] copy change…"),
        (9, "[ 7/17] …"),
    ],
)
def test_a_line_keeps_what_matters_most_at_each_width(width: int, line: str) -> None:
    assert progress_line(COPY, width) == line


@pytest.mark.parametrize(
    "moment",
    [COPY, Moment("x" * 80, 1, 1, 0.0), Moment("verify", 3, 12, 40.0, undo=True, unit="contents", done=16, amount=51)],
)
def test_no_line_is_wider_than_the_terminal(moment: Moment) -> None:
    assert all(len(progress_line(moment, width)) <= width for width in range(1, 140))


def test_the_bar_follows_the_times_that_the_steps_took_before() -> None:
    expected = (1.0, 8.0, 1.0)
    assert Moment("a", 2, 3, 4.0, expected=expected).fraction == pytest.approx(0.5)
    assert Moment("a", 2, 3, 4.0, done=3, amount=4, unit="bytes", expected=expected).fraction == pytest.approx(0.7)
    assert Moment("a", 2, 3, 90.0, expected=expected).fraction < 0.9, "a late step is never done"
    assert Moment("a", 2, 3, 4.0, expected=(None, 8.0, 1.0)).fraction == pytest.approx((1 + 0.5) / 3)
    assert Moment("a", 1, 4, 0.0, undo=True).fraction == 0.75
    assert progress_line(Moment("migrate", 2, 3, 4.0, expected=expected), 60).endswith("migrate  4 s, 4 s left")


def test_the_end_of_a_step_keeps_its_duration() -> None:
    assert ended_line("copy changed files", 2.0, 80, failed=False) == "✓ copy changed files (2.0 s)"
    assert ended_line("copy changed files", 2.0, 24, failed=True) == "✗ copy changed … (2.0 s)"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Tty(io.StringIO):
    """What a process writes to a terminal, which is an emulated one."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.terminal = Terminal(columns)

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.terminal.feed(text.encode())
        return len(text)


@pytest.fixture(params=[80, 70, 40])
def tty(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Tty:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(request.param))
    return Tty(request.param)


def story(renderer: Renderer, clock: Clock) -> None:
    """Tell of a step that copies, and of one that fails and is undone."""
    observer = ProgressObserver(renderer, clock)
    observer.step_started("copy changed files of media and of the attachments", 1, 2, undo=False)
    for second in range(40):
        clock.now += 1
        observer.progress(second << 20, 40 << 20, "bytes")
    observer.say("12 files changed during the snapshot of the attachments; they are copied again afterwards")
    observer.step_ended("copy changed files of media and of the attachments", 40.0, undo=False, failed=False)
    observer.step_started("migrate", 2, 2, undo=False)
    observer.step_ended("migrate", 1.0, undo=False, failed=True)
    observer.step_started("copy changed files of media and of the attachments", 1, 2, undo=True)
    observer.step_ended("copy changed files of media and of the attachments", 1.0, undo=True, failed=False)


def test_a_terminal_shows_one_moving_line_and_keeps_only_the_ends(tty: Tty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", tty)
    renderer = Renderer("upgrade")
    story(renderer, Clock())
    renderer.result({})
    lines = tty.terminal.lines
    assert [line[:1] for line in lines if line[:1].strip()] == ["✓", "✗", "✓"]
    assert not any("[" in line for line in lines), "the moving line was left behind"
    assert all(len(line) < tty.terminal.columns for line in lines)
    assert "\x1b[?25l" not in tty.terminal.raw.decode(), "a killed process must not leave a terminal without a cursor"


def test_what_is_printed_stands_above_the_moving_line(tty: Tty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", tty)
    renderer = Renderer("upgrade")
    ProgressObserver(renderer, Clock()).step_started("migrate", 1, 4, undo=False)
    renderer.aside("$ python3 manage.py migrate")
    assert [line[:6] for line in tty.terminal.lines] == ["$ pyth", "[1/4] "]
    renderer.error(HoldfastError("no"), "no")
    assert tty.terminal.lines == ["$ python3 manage.py migrate", "Error: no"]


def test_a_pipe_gets_plain_lines_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    story(Renderer("upgrade"), Clock())
    lines = capsys.readouterr().err.splitlines()
    title = "copy changed files of media and of the attachments"
    assert lines[0] == f"{title}: 4.0 of 40.0 MiB, 819.2 KiB/s, 45 s left"
    assert len([line for line in lines if line.startswith(f"{title}: ") and "left" in line]) == 40 // 5
    assert lines[-1] == f"undo: {title}: done (1.0 s)"
    assert not any(re.search(r"[\r\x1b]", line) for line in lines)


@pytest.mark.parametrize("renderer", [Renderer("upgrade", quiet=True), Renderer("upgrade", as_json=True)])
def test_nothing_with_quiet_or_json(renderer: Renderer, tty: Tty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", tty)
    story(renderer, Clock())
    assert tty.terminal.raw == b""


def test_a_dumb_terminal_gets_plain_lines(tty: Tty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", tty)
    monkeypatch.setenv("TERM", "dumb")
    story(Renderer("upgrade"), Clock())
    assert tty.terminal.raw and b"\x1b" not in tty.terminal.raw
