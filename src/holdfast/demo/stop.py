"""Signals during the demo: the first Ctrl-C, SIGTERM or SIGHUP asks it to clean up and end; later ones do nothing."""

from __future__ import annotations

import signal
import time
from types import FrameType, TracebackType

from holdfast.errors import CancelledError

_SLICE_SECONDS = 0.02


class Stop:
    """A request to stop, which the demo checks wherever it waits. As a context manager it handles the signals.

    The signal handlers raise nothing, so that no signal can interrupt the cleanup.
    """

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    @property
    def signal_name(self) -> str:
        """Return the name of the first signal, or nothing if none came."""
        return self._signal.name if self._signal is not None else ""

    def requested(self) -> bool:
        """Return whether a signal has come."""
        return self._signal is not None

    def check(self) -> None:
        """Raise CancelledError once a signal has come."""
        if self._signal is not None:
            raise CancelledError(f"the demo was stopped ({self.signal_name})")

    def sleep(self, seconds: float) -> None:
        """Wait for a time. Raise CancelledError as soon as a signal comes."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, _SLICE_SECONDS))
        self.check()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._signal is None:
            self._signal = signal.Signals(number)

    def __enter__(self) -> Stop:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # A user who starts the demo with nohup(1) wants it to outlive its terminal.
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            # After a stop the process only prints its last sentence, which no further signal may cut off.
            signal.signal(number, signal.SIG_IGN if self.requested() else handler)  # type: ignore[arg-type]  # what signal.signal itself returned
        self._previous.clear()
