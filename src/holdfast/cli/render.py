"""The only module that prints: results, errors and progress, for people or as one JSON object.

A broken terminal or a closed pipe never fails an operation.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from holdfast.errors import ConfigurationError, HoldfastError
from holdfast.model import Plan

ENVELOPE_VERSION = 1
_PLAIN_SECONDS = 5.0
_BAR_AFTER_SECONDS = 0.5


def human_bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def human_seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


class Renderer:
    """A printer: text to standard output, progress and errors to standard error; `--json` prints one object."""

    def __init__(self, command: str, *, as_json: bool = False, verbosity: int = 0) -> None:
        self.command = command
        self.as_json = as_json
        self.verbosity = verbosity

    def _write(self, stream: TextIO, text: str) -> None:
        try:
            stream.write(text)
            stream.flush()
        except (BrokenPipeError, OSError, ValueError):
            # The reader is gone. The operation goes on, and Python must not complain at its exit.
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            except (OSError, ValueError):
                pass

    def line(self, text: str = "") -> None:
        if not self.as_json:
            self._write(sys.stdout, text + "\n")

    def aside(self, text: str) -> None:
        """Print notes and progress to standard error."""
        self._write(sys.stderr, text + "\n")

    def note(self, text: str) -> None:
        """Print an indented text to standard error, on a terminal in lines of whole words."""
        width = shutil.get_terminal_size().columns if sys.stderr.isatty() else 0
        lines = textwrap.wrap(text, width - 4, break_long_words=False, break_on_hyphens=False) if width > 20 else [text]
        for number, line in enumerate(lines):
            self.aside(f"{'  ' if number == 0 else '    '}{line}")

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print columns aligned by width; on a terminal the headings are bold and long lines are cut."""
        if self.as_json:
            return
        widths = [max(len(str(row[column])) for row in [headings, *rows]) for column in range(len(headings))]
        for number, row in enumerate([headings, *rows]):
            text = "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            if sys.stdout.isatty():
                columns = shutil.get_terminal_size().columns
                text = text if len(text) <= columns else f"{text[: columns - 1]}…"
                text = f"\033[1m{text}\033[0m" if number == 0 else text
            self.line(text)

    def result(self, data: Mapping[str, object], *, exit_code: int = 0) -> None:
        """Print the JSON object of a command that has an answer, even a bad one."""
        if self.as_json:
            self._write(sys.stdout, json.dumps(self._envelope(exit_code == 0, exit_code, data=data)) + "\n")

    def _envelope(self, ok: bool, exit_code: int, **more: object) -> dict[str, object]:
        return {"holdfast": ENVELOPE_VERSION, "command": self.command, "ok": ok, "exit_code": exit_code, **more}

    def error(self, error: HoldfastError, redacted: str) -> None:
        if self.as_json:
            detail = {
                "class": type(error).__name__,
                "what": redacted,
                "state": error.state,
                "next_step": error.next_step,
                "problems": list(error.problems) if isinstance(error, ConfigurationError) else [],
            }
            self._write(sys.stdout, json.dumps(self._envelope(False, error.exit_code, error=detail)) + "\n")
            return
        label = "\033[31mError:\033[0m" if sys.stderr.isatty() else "Error:"
        self._write(sys.stderr, f"{label} {redacted}\n")
        if isinstance(error, ConfigurationError):
            for problem in error.problems:
                self._write(sys.stderr, f"  {problem}\n")
        for text in (error.state, error.next_step):
            if text:
                self._write(sys.stderr, text + "\n")

    def plan(self, plan: Plan, commands: Mapping[int, Sequence[str]], seconds: Mapping[int, float | None]) -> None:
        """Print a plan for `--dry-run`."""
        self.line(f"Plan: {plan.title}")
        for note in plan.notes:
            self.line(f"  note: {note}")
        for number, step in enumerate(plan.all_steps, 1):
            if number == len(plan.steps) + 1:
                self.line(
                    "  ---- commit: a failure before it undoes everything; after it only closing steps remain ----"
                )
            expected = seconds.get(number)
            self.line(f"  {number:2}. {step.title}" + (f"  (about {human_seconds(expected)})" if expected else ""))
            for command in commands.get(number, ()):
                self.line(f"        $ {command}")
        for path, size in plan.steps[0].parameters.get("need_bytes", {}).items() if plan.steps else ():
            self.line(f"  needs {human_bytes(size)} in {path}")


class ProgressObserver:
    """The display of a running plan: a bar on a terminal, plain lines in a pipe."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._started = 0.0
        self._last = 0.0
        self._title = ""
        self._terminal = sys.stderr.isatty() and not renderer.as_json

    def step_started(self, title: str, position: int, total: int, *, undo: bool) -> None:
        self._title = f"{'undo: ' if undo else ''}{title}"
        self._started = self._last = time.monotonic()
        if self._terminal:
            self._renderer._write(sys.stderr, f"[{position}/{total}] {self._title} ...")

    def step_ended(self, title: str, seconds: float, *, undo: bool, failed: bool) -> None:
        word = "FAILED" if failed else "done"
        took = human_seconds(seconds)
        if self._terminal:
            self._renderer._write(sys.stderr, f"\r\033[K{'✗' if failed else '✓'} {self._title} ({took})\n")
        elif not self._renderer.as_json:
            self._renderer.aside(f"{self._title}: {word} ({took})")

    def progress(self, done: int, total: int | None, unit: str) -> None:
        now = time.monotonic()
        if now - self._started < _BAR_AFTER_SECONDS:
            return
        if self._terminal:
            self._show_bar(done, total, unit)
        elif now - self._last > _PLAIN_SECONDS and not self._renderer.as_json:
            self._last = now
            self._renderer.aside(
                f"{self._title}: {_amount(done, total, unit)}, {_rate(done, now - self._started, unit)}"
            )

    def _show_bar(self, done: int, total: int | None, unit: str) -> None:
        now = time.monotonic()
        if now - self._last < 0.1:
            return
        self._last = now
        remaining = ""
        if total and 0 < done < total:
            remaining = f", {human_seconds((now - self._started) * (total - done) / done)} left"
        text = f"{self._title}: {_amount(done, total, unit)}, {_rate(done, now - self._started, unit)}{remaining}"
        bar = ""
        if total:
            filled = int(24 * min(1.0, done / total))
            bar = "█" * filled + "░" * (24 - filled) + " "
        self._renderer._write(sys.stderr, f"\r\033[K{bar}{text}")

    def say(self, line: str) -> None:
        if self._terminal:
            self._renderer._write(sys.stderr, f"\r\033[K  {line}\n")
        elif not self._renderer.as_json:
            self._renderer.aside(f"  {line}")


def _amount(done: int, total: int | None, unit: str) -> str:
    show = human_bytes if unit == "bytes" else (lambda value: f"{value:.0f} {unit}")
    return f"{show(done)} of {show(total)}" if total else show(done)


def _rate(done: int, seconds: float, unit: str) -> str:
    if seconds <= 0:
        return "-"
    return f"{human_bytes(done / seconds)}/s" if unit == "bytes" else f"{done / seconds:.0f} {unit}/s"
