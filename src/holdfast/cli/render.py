"""The only module that prints: results, errors and progress, for people or as one JSON object.

A broken terminal or a closed pipe never fails an operation. rich is imported only where something is drawn on a
terminal.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO, cast

import msgspec

from holdfast.cli.forecast import Forecast
from holdfast.cli.text import human_bytes, visible
from holdfast.errors import CancelledError, ConfigurationError, HoldfastError
from holdfast.model import Plan

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

ENVELOPE_VERSION = 1
_BOLD, _DIM, _RED, _PLAIN = "\033[1m", "\033[2m", "\033[31m", "\033[0m"
_LEAST_WIDTH = 20
_BEGIN = re.compile(r"\s*(?:\d+\. |note: |\S+ {2,})?")
_LEAST_WRAPPED, _SHORTEST_WORD, _LONGEST_WORD, _GAP = 12, 7, 20, 2


class Column(msgspec.Struct, frozen=True):
    """A column of a table: numbers are on the right.

    Where the terminal is narrow, the text of a column that `wraps` goes on in further lines; if that is not enough,
    `optional` columns are left out, the last one first.
    """

    heading: str
    right: bool = False
    wraps: bool = False
    optional: bool = False

    def least_width(self, cells: Sequence[str]) -> int:
        """Return the width that this column needs at least."""
        whole = max(len(cell) for cell in (self.heading, *cells))
        if not self.wraps:
            return whole
        words = (len(word) for cell in (self.heading, *cells) for word in cell.split())
        return min(whole, max(_LEAST_WRAPPED, min(max(words, default=0), _LONGEST_WORD)))


def note_lines(text: str, width: int) -> list[str]:
    """Return an indented text in lines of whole words."""
    if width <= _LEAST_WIDTH:
        return [f"  {text}"]
    lines = textwrap.wrap(text, width - 4, break_long_words=False, break_on_hyphens=False) or [""]
    return [f"{'  ' if number == 0 else '    '}{line}" for number, line in enumerate(lines)]


def wrapped(line: str, width: int) -> list[str]:
    """Return a line in lines of whole words, which hang below its text: behind a number, a key or an indent."""
    if width <= _LEAST_WIDTH or len(line) <= width:
        return [line]
    begin = _BEGIN.match(line)
    hang = " " * min(len(begin[0]) if begin is not None else 0, width // 2)
    return textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False, subsequent_indent=hang)


class Renderer:
    """A printer: text to standard output, progress and errors to standard error; `--json` prints one object.

    With `quiet` only results and errors are printed. `color` is `always`, `never`, or `auto`: on a terminal, unless
    NO_COLOR is set or the terminal is a dumb one.
    """

    def __init__(
        self, command: str, *, as_json: bool = False, verbosity: int = 0, quiet: bool = False, color: str = "auto"
    ) -> None:
        self.command = command
        self.as_json = as_json
        self.verbosity = verbosity
        self.quiet = quiet
        self.color = color
        self._live: Live | None = None

    # --- the terminal ------------------------------------------------------------------------------

    @property
    def draws(self) -> bool:
        """Return whether standard error is a terminal on which a line can be drawn again."""
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    @property
    def to_person(self) -> bool:
        """Return whether somebody reads the output on a terminal."""
        return sys.stdout.isatty() and not self.as_json and not self.quiet

    def styles(self, stream: TextIO) -> bool:
        """Return whether a stream gets colours."""
        if self.color != "auto":
            return self.color == "always"
        return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def paint(self, text: str, style: str, stream: TextIO) -> str:
        return f"{style}{text}{_PLAIN}" if self.styles(stream) else text

    def write(self, stream: TextIO, text: str) -> None:
        try:
            stream.write(text)
            stream.flush()
        except (BrokenPipeError, OSError, ValueError):
            # The reader is gone. The operation goes on, and Python must not complain at its exit.
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            except (OSError, ValueError):
                pass

    def live(self, line: Callable[[int], str]) -> Live:
        """Return the line at the bottom of the terminal, which from now on shows what the function returns."""
        if self._live is None:
            self._live = Live(self, line)
        self._live.line = line
        return self._live

    def _end_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    # --- text --------------------------------------------------------------------------------------

    def line(self, text: str = "", *, whole: bool = False) -> None:
        """Print a line of the result, on a terminal in lines of whole words; `whole` is for commands and output.

        Characters that control a terminal become visible.
        """
        if self.as_json:
            return
        self._end_live()
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() and not whole else 0
        shown = visible(text)
        lines = [part for line in shown.split("\n") for part in wrapped(line, width)] if width else [shown]
        self.write(sys.stdout, "\n".join([*lines, ""]))

    def aside(self, text: str) -> None:
        """Print notes and progress to standard error."""
        if self._live is not None:
            self._live.above(lambda width: [visible(text)])
        else:
            self.write(sys.stderr, f"{visible(text)}\n")

    def note(self, text: str) -> None:
        """Print an indented text to standard error, on a terminal in lines of whole words."""
        width = shutil.get_terminal_size().columns if sys.stderr.isatty() else 0
        for line in note_lines(text, width):
            self.aside(line)

    def table(self, columns: Sequence[Column | str], rows: Sequence[Sequence[str]], *, empty: str = "") -> None:
        """Print a table that fits the terminal, or in a pipe one of its own width; `empty` is said if it has no rows.

        Columns without any content are left out.
        """
        if self.as_json:
            return
        if not rows and empty:
            self.line(empty)
            return
        all_columns = [Column(one) if isinstance(one, str) else one for one in columns]
        used = [n for n, one in enumerate(all_columns) if any(row[n] for row in rows) or (one.heading and not rows)]
        shown = [all_columns[n] for n in used]
        cells = [[visible(row[n]).replace("\n", " ") for n in used] for row in rows]
        self._end_live()
        self.write(sys.stdout, self._drawn(shown, cells) if sys.stdout.isatty() else _aligned(shown, cells))

    def _drawn(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
        from rich.table import Table
        from rich.text import Text

        chosen, least = fitted(columns, rows, shutil.get_terminal_size().columns)
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
        for number in chosen:
            one = columns[number]
            table.add_column(
                Text(one.heading),
                justify="right" if one.right else "left",
                no_wrap=not one.wraps,
                overflow="fold" if one.wraps else "ellipsis",
                min_width=least[number] if one.wraps else None,
            )
        for row in rows:
            table.add_row(*(Text(row[number]) for number in chosen))
        console = self.console(sys.stdout)
        with console.capture() as captured:
            console.print(table)
        return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())

    def console(self, stream: TextIO) -> Console:
        """Return rich's console on a stream, which leaves the cursor visible even if this process is killed."""
        from rich.console import Console

        class Visible(Console):
            def show_cursor(self, show: bool = True) -> bool:
                return False

        return Visible(
            file=cast(TextIO, _Stream(self, stream)),
            force_terminal=True,
            color_system="standard" if self.styles(stream) else None,
            markup=False,
            highlight=False,
            emoji=False,
        )

    def result(self, data: Mapping[str, object], *, exit_code: int = 0) -> None:
        """Print the JSON object of a command that has an answer, even a bad one."""
        self._end_live()
        if self.as_json:
            self.write(sys.stdout, json.dumps(self._envelope(exit_code == 0, exit_code, data=data)) + "\n")

    def _envelope(self, ok: bool, exit_code: int, **more: object) -> dict[str, object]:
        return {"holdfast": ENVELOPE_VERSION, "command": self.command, "ok": ok, "exit_code": exit_code, **more}

    def error(self, error: HoldfastError, redacted: str) -> None:
        self._end_live()
        if self.as_json:
            detail = {
                "class": type(error).__name__,
                "what": redacted,
                "state": error.state,
                "next_step": error.next_step,
                "problems": list(error.problems) if isinstance(error, ConfigurationError) else [],
                **({"undone_by": dict(error.undone_by)} if error.undone_by else {}),
            }
            self.write(sys.stdout, json.dumps(self._envelope(False, error.exit_code, error=detail)) + "\n")
            return
        if isinstance(error, CancelledError):  # what somebody asked for is no error
            self.write(sys.stderr, f"{self._wrapped(redacted[:1].upper() + redacted[1:])}\n")
        else:
            said = self._wrapped(f"Error: {redacted}").removeprefix("Error:")
            self.write(sys.stderr, f"{self.paint('Error:', _RED, sys.stderr)}{said}\n")
        if isinstance(error, ConfigurationError):
            for problem in error.problems:
                self.write(sys.stderr, f"{self._wrapped(f'  {problem}')}\n")
        for text in (error.state, error.next_step):
            if text:
                self.write(sys.stderr, f"{self._wrapped(text)}\n")

    def _wrapped(self, text: str) -> str:
        """Return a text for standard error, on a terminal in lines of whole words.

        Tables, output of programs and commands to copy stay as they are.
        """
        width = shutil.get_terminal_size().columns if sys.stderr.isatty() else 0
        lines = []
        for line in visible(text).split("\n"):
            is_prose = not line.startswith("   ") and "  | " not in line and ": holdfast " not in line
            lines += wrapped(line, width) if is_prose else [line]
        return "\n".join(lines)

    def hints(self, hints: Sequence[tuple[str, str]]) -> None:
        """Print what to look at and what to type next."""
        width = max((len(heading) for heading, _ in hints), default=0)
        for heading, text in hints:
            label = self.paint(f"{heading}:".ljust(width + 1), _DIM, sys.stdout)
            self.write(sys.stdout, f"  {label}  {visible(text)}\n")

    def plan(self, plan: Plan, commands: Mapping[int, Sequence[str]], expected: Forecast) -> None:
        """Print a plan for `--dry-run`."""
        self.line(f"Plan: {plan.title}")
        for note in plan.notes:
            self.line(f"  note: {note}")
        for number, step in enumerate(plan.all_steps, 1):
            if number == len(plan.steps) + 1:
                self.line(
                    "  ---- commit: a failure before it undoes everything; after it only closing steps remain ----"
                )
            self.line(f"  {number:2}. {step.title}{expected.of_step(number - 1)}")
            for command in commands.get(number, ()):
                self.line(f"        {'' if ' -> ' in command else '$ '}{command}", whole=True)
        for path, size in plan.steps[0].parameters.get("need_bytes", {}).items() if plan.steps else ():
            self.line(f"  needs {human_bytes(size)} in {path}")
        for text in expected.lines(plan.kind):
            self.line(text)


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> tuple[list[int], dict[int, int]]:
    """Return which columns a terminal has room for, and the least width of each."""
    chosen = list(range(len(columns)))
    least = {number: columns[number].least_width([row[number] for row in rows]) for number in chosen}
    for number in reversed(chosen):
        if sum(least[one] + _GAP for one in chosen) - _GAP > width and columns[number].optional:
            chosen = [one for one in chosen if one != number]
    for number in reversed(chosen):
        excess = sum(least[one] + _GAP for one in chosen) - _GAP - width
        if excess > 0 and columns[number].wraps:
            least[number] = min(least[number], max(least[number] - excess, _SHORTEST_WORD))
    return chosen, least


def _aligned(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as wide as its contents, for a pipe."""
    cells = [[one.heading for one in columns], *rows]
    widths = [max(len(row[n]) for row in cells) for n in range(len(columns))]
    lines = []
    for row in cells:
        placed = [
            cell.rjust(width) if one.right else cell.ljust(width)
            for cell, width, one in zip(row, widths, columns, strict=True)
        ]
        lines.append(f"{'  '.join(placed).rstrip()}\n")
    return "".join(lines)


class _Stream:
    """A stream as rich needs it, which a broken terminal does not fail."""

    def __init__(self, renderer: Renderer, stream: TextIO) -> None:
        self._renderer = renderer
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        self._renderer.write(self._stream, text)
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()


class Live:
    """The line at the bottom of the terminal, drawn four times a second by a thread of rich's."""

    def __init__(self, renderer: Renderer, line: Callable[[int], str]) -> None:
        from rich.live import Live as RichLive

        self.line = line
        self._console = renderer.console(sys.stderr)
        self._drawing = RichLive(
            console=self._console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            get_renderable=self._drawn,
        )
        self._drawing.start()

    @property
    def width(self) -> int:
        return self._console.width - 1

    def _drawn(self) -> RenderableType:
        from rich.text import Text

        return Text(visible(self.line(self.width)), no_wrap=True, overflow="ellipsis")

    def above(self, lines: Callable[[int], Sequence[str]]) -> None:
        """Print lines that stay, above the moving one; the function gets the width of the terminal."""
        from rich.text import Text

        self._console.print(Text("\n".join(visible(line) for line in lines(self.width))), soft_wrap=False)

    def stop(self) -> None:
        self._drawing.stop()
