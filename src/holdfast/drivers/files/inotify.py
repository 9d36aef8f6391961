"""A binding of inotify(7): watches of directories, and the names of changed entries in them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

_LIBC = ctypes.CDLL(None, use_errno=True)
_HEADER = struct.Struct("iIII")
_READ_BYTES = 1 << 16

MODIFY, ATTRIB, CLOSE_WRITE = 0x2, 0x4, 0x8
MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x40, 0x80, 0x100, 0x200
DELETE_SELF, MOVE_SELF, UNMOUNT, OVERFLOW, IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
IS_DIRECTORY = 0x40000000
_ONLY_DIRECTORIES = 0x01000000
NAMES = MOVED_FROM | MOVED_TO | CREATE | DELETE
_WANTED = NAMES | MODIFY | ATTRIB | CLOSE_WRITE | DELETE_SELF | MOVE_SELF | _ONLY_DIRECTORIES


class Event(NamedTuple):
    watch: int
    mask: int
    name: bytes


class Inotify:
    """One inotify instance of the kernel. Raise OSError where none is available."""

    def __init__(self) -> None:
        self.descriptor = _checked(_LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def watch(self, directory: int) -> int:
        """Return the number of the watch of an open directory, the same one each time. Raise OSError."""
        place = f"/proc/self/fd/{directory}".encode()
        return _checked(_LIBC.inotify_add_watch(self.descriptor, place, _WANTED))

    def events(self) -> Iterator[Event]:
        """Yield the events so far, without waiting."""
        while True:
            with contextlib.suppress(BlockingIOError):
                data = os.read(self.descriptor, _READ_BYTES)
                position = 0
                while position < len(data):
                    number, mask, _, length = _HEADER.unpack_from(data, position)
                    position += _HEADER.size + length
                    yield Event(number, mask, data[position - length : position].rstrip(b"\0"))
                continue
            return

    def close(self) -> None:
        os.close(self.descriptor)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
