"""A terminal: bytes go through an emulator, which says what stands on the screen, and what has scrolled off it."""

from __future__ import annotations

import errno
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from fcntl import ioctl
from pathlib import Path

import pyte

from tests.proof import patience

_LINES, _WIDE = 120, 300


class Terminal:
    """A screen of so many columns, and of more lines than a test prints."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.raw = b""
        self._screen, self._wide = pyte.Screen(columns, _LINES), pyte.Screen(_WIDE, _LINES)
        self._streams = [pyte.ByteStream(screen) for screen in (self._screen, self._wide)]
        for screen in (self._screen, self._wide):
            screen.set_mode(pyte.modes.LNM)

    def feed(self, data: bytes) -> None:
        self.raw += data
        for stream in self._streams:
            stream.feed(data)

    @property
    def lines(self) -> list[str]:
        """Return the lines that stand there, without empty ones at the end."""
        return _shown(self._screen)

    @property
    def written(self) -> list[str]:
        """Return the lines as they were written, even those that the terminal had to wrap."""
        return _shown(self._wide)


def _shown(screen: pyte.Screen) -> list[str]:
    return "\n".join(line.rstrip() for line in screen.display).rstrip("\n").split("\n")


def run(argv: Sequence[str], columns: int, *, folder: Path, typed: str = "", **variables: str) -> tuple[Terminal, int]:
    """Run a command to its end on a terminal of its own; return what it showed and its exit code."""
    terminal = Terminal(columns)
    inner, outer = pty.openpty()
    ioctl(outer, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, columns, 0, 0))
    environment: Mapping[str, str] = {
        **{key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")},
        "TERM": "xterm-256color",
        **variables,
    }
    process = subprocess.Popen(
        argv, stdin=outer, stdout=outer, stderr=outer, cwd=folder, env=environment, start_new_session=True
    )
    os.close(outer)
    if typed:
        os.write(inner, typed.encode())
    end = patience.deadline(60)
    try:
        while time.monotonic() < end:
            ready, _, _ = select.select([inner], [], [], 0.1)
            if not ready:
                if process.poll() is not None:
                    break
                continue
            try:
                data = os.read(inner, 65536)
            except OSError as error:
                if error.errno != errno.EIO:  # the other end is closed
                    raise
                break
            if not data:
                break
            terminal.feed(data)
        return terminal, process.wait(timeout=patience.limit(10))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(inner)


def holdfast(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "holdfast", *arguments]
