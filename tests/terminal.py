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

_LINES = 400


class Terminal:
    """A screen of so many columns, and of more lines than a test prints."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.raw = b""
        self._screen = pyte.Screen(columns, _LINES)
        self._screen.set_mode(pyte.modes.LNM)
        self._stream = pyte.ByteStream(self._screen)

    def feed(self, data: bytes) -> None:
        self.raw += data
        self._stream.feed(data)

    @property
    def lines(self) -> list[str]:
        """Return the lines that stand there, without empty ones at the end."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip("\n").split("\n")


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
