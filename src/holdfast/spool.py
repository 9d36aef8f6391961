"""A file without a name between a process that writes it and this one, which reads it as it grows.

A pipe makes its writer wait and wakes its reader for every write; a file does neither. What was read is given back to
the filesystem at once (fallocate(2), FALLOC_FL_PUNCH_HOLE), so that only what is still to be read takes space.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from holdfast import durable

_CHUNK_BYTES = 1 << 20
_HELD_BYTES = 16 << 20
_POLL_SECONDS = 0.005


class Spool:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._read_bytes = 0
        self._freed_bytes = 0

    @classmethod
    def made_in(cls, folder: Path) -> Spool | None:
        """None where the filesystem cannot take back what was read. Raises OSError."""
        file = tempfile.TemporaryFile(dir=folder, buffering=0)
        if durable.punch(file.fileno(), 0, _CHUNK_BYTES):
            return cls(file)
        file.close()
        return None

    def fileno(self) -> int:
        """For the process that writes."""
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()

    def read_while(self, ended: Callable[[], object]) -> Iterator[bytes]:
        """What is written, until `ended` is no longer None; nothing now and then, so that the reader can look around."""
        while True:
            last = ended() is not None  # asked before reading: what it wrote is there
            while chunk := os.pread(self._file.fileno(), _CHUNK_BYTES, self._read_bytes):
                self._read_bytes += len(chunk)
                yield chunk
                self._give_back()
            if last:
                return
            yield b""
            time.sleep(_POLL_SECONDS)

    def _give_back(self) -> None:
        if self._read_bytes - self._freed_bytes >= _HELD_BYTES:
            durable.punch(self._file.fileno(), self._freed_bytes, self._read_bytes - self._freed_bytes)
            self._freed_bytes = self._read_bytes
