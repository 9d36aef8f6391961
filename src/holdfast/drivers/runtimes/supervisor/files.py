"""The files into which supervisord writes what services print; a full one is renamed to `.1`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_BLOCK_BYTES = 65536
_POLL_SECONDS = 0.2


def output(path: Path, *, lines: int, follow: bool) -> Iterator[bytes]:
    """Yield the last lines of a file and of the one before it; with `follow` also what is added, without end."""
    try:
        file = open(path, "rb")
    except FileNotFoundError:
        return
    with file:
        size = os.fstat(file.fileno()).st_size
        last = last_lines(file, lines)
        missing = lines - last.count(b"\n")
        if missing > 0:
            try:
                with open(f"{path}.1", "rb") as older:
                    yield last_lines(older, missing)
            except FileNotFoundError:
                pass
        yield last
        file.seek(size)
        if follow:
            yield from _added(path, file)


def last_lines(file: IO[bytes], lines: int) -> bytes:
    """Return the last lines of a file."""
    position = file.seek(0, os.SEEK_END)
    found = b""
    while position and found.count(b"\n") <= lines:
        length = min(_BLOCK_BYTES, position)
        position -= length
        file.seek(position)
        found = file.read(length) + found
    return b"".join(found.splitlines(keepends=True)[-lines:]) if lines > 0 else b""


def _added(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """Yield what is added to a file, and to the one that takes its place."""
    current = file
    try:
        while True:
            if data := current.read(_BLOCK_BYTES):
                yield data
                continue
            if _is_replaced(path, current):
                newer = open(path, "rb")
                if current is not file:
                    current.close()
                current = newer
                continue
            time.sleep(_POLL_SECONDS)
    finally:
        if current is not file:
            current.close()


def _is_replaced(path: Path, file: IO[bytes]) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(file.fileno())
    if (found.st_dev, found.st_ino) != (here.st_dev, here.st_ino):
        return True
    if here.st_size < file.tell():  # it was emptied
        file.seek(0)
    return False
