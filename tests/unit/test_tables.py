"""Tables fit the terminal: text wraps, columns that can be missed go, nothing is cut without a sign."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from holdfast.cli import backup as backup_list
from holdfast.cli.render import Column, Renderer
from holdfast.errors import CancelledError, HoldfastError
from tests.unit.test_progress import Tty

COLUMNS = [
    "BACKUP",
    Column("REASON", wraps=True),
    Column("RELEASE", optional=True),
    Column("SIZE", right=True),
    Column("NEW", right=True, optional=True),
    "",
]
ROWS = [
    ["2026-11-30-021222", "before the upgrade to v2", "v1", "1.0 KiB", "12 B", "pinned"],
    ["2026-11-30-031222", "-", "v2", "123.0 MiB", "100.0 MiB", ""],
]


def drawn(
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
    rows: Sequence[Sequence[str]] = ROWS,
    headings: Sequence[Column | str] = COLUMNS,
) -> list[str]:
    tty = Tty(columns)
    monkeypatch.setattr("sys.stdout", tty)
    monkeypatch.setenv("COLUMNS", str(columns))
    Renderer("backup list").table(headings, rows, empty="none yet")
    return tty.terminal.lines


def test_a_wide_terminal_shows_every_column(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(120, monkeypatch) == [
        "BACKUP             REASON                    RELEASE       SIZE        NEW",
        "2026-11-30-021222  before the upgrade to v2  v1         1.0 KiB       12 B  pinned",
        "2026-11-30-031222  -                         v2       123.0 MiB  100.0 MiB",
    ]


def test_a_narrow_one_wraps_and_then_leaves_columns_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(80, monkeypatch)[1:3] == [
        "2026-11-30-021222  before the upgrade to   v1         1.0 KiB       12 B  pinned",
        "                   v2",
    ]
    assert drawn(60, monkeypatch)[0].split() == ["BACKUP", "REASON", "RELEASE", "SIZE"]
    assert all(len(line) <= 40 for line in drawn(40, monkeypatch))


@pytest.mark.parametrize("marks", ["safety", "safety, pinned"])
def test_the_marks_of_a_backup_are_whole_at_80_columns(marks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, age, reason = "2026-11-30-021222", "12 minutes ago", "before the installation of v2"
    row = [name, age, reason, "quiesce", "v2", "123.5 MiB", "44.0 KiB", "main, media", marks]
    lines = drawn(80, monkeypatch, [row], backup_list.LISTED)
    assert all(word in " ".join(lines).split() for word in f"{name} {age} {reason} main, media {marks}".split())


def test_an_empty_table_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Renderer("backup list").table(COLUMNS, [], empty="none yet")
    assert capsys.readouterr().out == "none yet\n"


def test_a_pipe_gets_every_column_uncut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    Renderer("backup list").table(COLUMNS, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "2026-11-30-021222  before the upgrade to v2  v1         1.0 KiB       12 B  pinned"


@pytest.mark.parametrize(
    ("color", "variables", "colored"),
    [
        ("auto", {}, True),
        ("auto", {"NO_COLOR": "1"}, False),
        ("auto", {"NO_COLOR": ""}, True),
        ("auto", {"TERM": "dumb"}, False),
        ("always", {"NO_COLOR": "1"}, True),
        ("never", {}, False),
    ],
)
def test_colors_are_the_operators_choice(
    color: str, variables: dict[str, str], colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tty = Tty(80)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", tty)
    for key, value in {"TERM": "xterm", "NO_COLOR": "", **variables}.items():
        monkeypatch.setenv(key, value)
    renderer = Renderer("backup list", color=color)
    renderer.table(COLUMNS, ROWS)
    renderer.error(HoldfastError("no"), "no")
    assert (tty.terminal.raw.count(b"\x1b[") > 0) is colored
    assert tty.terminal.lines[-1] == "Error: no"


def test_what_a_cell_contains_cannot_control_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = drawn(120, monkeypatch, [["id", "\x1b[2Jgone [bold]\nx", "", "", "", ""]])
    assert lines[1] == r"id      \x1b[2Jgone [bold] x"


def test_what_somebody_stopped_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    Renderer("restore").error(
        CancelledError("stopped at the confirmation", state="Nothing was changed."), "stopped at x"
    )
    assert capsys.readouterr().err == "Stopped at x\nNothing was changed.\n"


def test_an_error_wraps_at_words(monkeypatch: pytest.MonkeyPatch) -> None:
    tty = Tty(40)
    monkeypatch.setattr("sys.stderr", tty)
    monkeypatch.setenv("COLUMNS", "40")
    error = HoldfastError("no", state="The state before the operation is back, and all is well.", next_step="")
    Renderer("upgrade").error(error, "service web: not healthy after 2 s: GET /health answered 500")
    assert tty.terminal.lines == [
        "Error: service web: not healthy after 2",
        "s: GET /health answered 500",
        "The state before the operation is back,",
        "and all is well.",
    ]
