"""Reading from and writing to the pipes of running commands, in steps short enough that a stop is noticed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import time
from collections.abc import Callable, Iterator
from typing import IO

_PIPE_BYTES = 1 << 20  # what pipe(7) lets every user have
# A program that writes 4 KiB at a time would wake this process for each of them, so let the pipe fill first.
_FULL_BYTES = 1 << 18
_FILL_SECONDS = 0.002


def enlarge(pipe: IO[bytes]) -> None:
    """Make room for several orders and answers, as far as the user's limit for pipes allows it."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def read_available(pipe: IO[bytes], take: Callable[[bytes], None]) -> bool:
    """Pass on what a pipe that does not block has now; return False at its end."""
    while True:
        try:
            chunk = os.read(pipe.fileno(), 65536)
        except BlockingIOError:
            return True
        if not chunk:
            return False
        take(chunk)


def read_pieces(descriptor: int) -> Iterator[bytes]:
    """Yield what a process prints until it closes its end; now and then yield nothing, so that a stop is noticed."""
    while True:
        if not select.select([descriptor], [], [], 0.1)[0]:
            yield b""
            continue
        chunk = os.read(descriptor, _PIPE_BYTES)
        if not chunk:
            return
        yield chunk
        if len(chunk) < _FULL_BYTES:
            time.sleep(_FILL_SECONDS)


def write_all(pipe: IO[bytes], chunk: bytes, check: Callable[[], None]) -> None:
    """Write everything into a pipe, and call `check` again and again, which raises to stop. Raise BrokenPipeError."""
    descriptor = pipe.fileno()
    os.set_blocking(descriptor, False)
    view = memoryview(chunk)
    while view:
        check()
        if select.select([], [descriptor], [], 0.1)[1]:
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(descriptor, view) :]
