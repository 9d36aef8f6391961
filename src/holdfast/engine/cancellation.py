"""Signals during an operation: the first Ctrl-C or SIGTERM requests a stop, the second ends Holdfast at once.

SIGHUP is ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType, TracebackType

from holdfast.errors import CancelledError

_OPEN = 8  # the exit code for an operation that waits for a recovery
_FIRST = b"\nStopping, and undoing what was done. (Ctrl-C again leaves it to `holdfast recover`.)\n"
_TOO_LATE = b"\nThe operation is brought to its end first. (Ctrl-C again leaves it to `holdfast recover`.)\n"
_SECOND = b"\nholdfast: stopped waiting; the operation is still open. Run: holdfast recover\n"


class Cancellation:
    """A flag that long work polls. As a context manager it installs signal handlers and restores the former ones."""

    def __init__(self) -> None:
        self._requested = False
        self._undoing = False
        self._previous: dict[int, object] = {}

    def requested(self) -> bool:
        """Return whether a stop was requested; False during an undo, which is never given up half-way."""
        return self._requested and not self._undoing

    def check(self) -> None:
        """Raise CancelledError once a stop was requested."""
        if self.requested():
            raise CancelledError("stopped on request")

    def begin_undo(self) -> None:
        self._undoing = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):  # no terminal any more
            os.write(2, _SECOND if self._requested else _TOO_LATE if self._undoing else _FIRST)
        if self._requested:
            os._exit(_OPEN)  # the journal is durable at every point; nothing to clean up
        self._requested = True

    def __enter__(self) -> Cancellation:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        self._previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal itself returned
        self._previous.clear()
