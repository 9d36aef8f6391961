"""The display of a running plan: one line on a terminal, plain lines in a pipe, nothing with `--quiet`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from holdfast.cli.render import Live, Renderer, note_lines
from holdfast.cli.text import cut, human_bytes, human_part, human_seconds, whole_seconds

_PLAIN_SECONDS = 5.0
_DETAIL_AFTER_SECONDS = 1.0
_BARS = (20, 10, 0)


class Moment(msgspec.Struct, frozen=True):
    """What is known of a running step: which of how many, its amounts, and what is expected of it and of the rest."""

    title: str
    position: int
    total: int
    seconds: float
    undo: bool = False
    done: int = 0
    amount: int | None = None
    unit: str = ""
    expected: Sequence[float | None] = ()
    """The seconds that each step of the plan took before, as far as there is a history."""

    @property
    def here(self) -> float | None:
        """Return the seconds that this step took before."""
        known = not self.undo and self.position <= len(self.expected)
        return self.expected[self.position - 1] if known else None

    @property
    def step_fraction(self) -> float:
        if self.amount:
            return min(1.0, self.done / self.amount)
        return min(0.95, self.seconds / self.here) if self.here else 0.0

    @property
    def fraction(self) -> float:
        """Return how much of the plan is done: by the expected times if all are known, or else by the steps."""
        if self.undo:
            return (self.total - self.position + self.step_fraction) / self.total
        weights = [1.0] * self.total
        if len(self.expected) == self.total and all(one is not None for one in self.expected):
            weights = [one or 0.0 for one in self.expected]
        before, here = sum(weights[: self.position - 1]), weights[self.position - 1]
        return (before + here * self.step_fraction) / (sum(weights) or 1.0)

    @property
    def left_seconds(self) -> float | None:
        """Return the remaining seconds of this step, from its rate or from its history."""
        if self.amount:
            return self.seconds * (self.amount - self.done) / self.done if 0 < self.done < self.amount else None
        return self.here - self.seconds if self.here is not None and self.here > self.seconds else None


def amounts(moment: Moment) -> str:
    if not moment.unit:
        return whole_seconds(moment.seconds)
    if moment.unit == "bytes":
        return human_part(moment.done, moment.amount) if moment.amount else human_bytes(moment.done)
    return f"{moment.done} of {moment.amount} {moment.unit}" if moment.amount else f"{moment.done} {moment.unit}"


def rate(moment: Moment) -> str:
    if not moment.unit or moment.seconds <= 0 or not moment.done:
        return ""
    speed = moment.done / moment.seconds
    return f"{human_bytes(speed)}/s" if moment.unit == "bytes" else f"{speed:.0f} {moment.unit}/s"


def progress_line(moment: Moment, width: int) -> str:
    """Return the line that shows a step on a terminal, never wider than `width`.

    Where it is narrow, the bar goes first, then the rate, the amounts and the remaining time; then the title is cut.
    """
    title = f"undo: {moment.title}" if moment.undo else moment.title
    head = f"[{moment.position:{len(str(moment.total))}}/{moment.total}] "
    percent = f"{moment.fraction * 100:3.0f}% "
    left = moment.left_seconds
    remaining = f"{whole_seconds(left)} left" if left is not None else ""
    tails: list[str] = []
    if moment.seconds >= _DETAIL_AFTER_SECONDS:
        details = ((amounts(moment), rate(moment), remaining), (amounts(moment), remaining), (remaining,))
        tails = [f"  {', '.join(part for part in parts if part)}" for parts in details if any(parts)]
    for tail in (*tails, ""):
        for least in (len(title), 24, 12):
            for bar in _BARS:
                space = width - len(head) - len(percent) - len(tail) - (bar + 1 if bar else 0)
                if space >= min(least, len(title)):
                    filled = int(bar * moment.fraction)
                    drawn = f"{'█' * filled}{'░' * (bar - filled)} " if bar else ""
                    return f"{head}{drawn}{percent}{cut(title, space)}{tail}"
    return cut(f"{head}{title}", width)


def ended_line(title: str, seconds: float, width: int, *, failed: bool) -> str:
    """Return the line that stays for a step that ended."""
    took = f" ({human_seconds(seconds)})"
    return f"{'✗' if failed else '✓'} {cut(title, max(8, width - 2 - len(took)))}{took}"


class ProgressObserver:
    """What the runner reports, shown by the renderer."""

    def __init__(self, renderer: Renderer, clock: Callable[[], float] = time.monotonic) -> None:
        self._renderer = renderer
        self._clock = clock
        self._expected: Sequence[float | None] = ()
        self._moment = Moment("", 1, 1, 0.0)
        self._started = self._last = 0.0
        self._live: Live | None = None
        self._silent = renderer.as_json or renderer.quiet

    def expect(self, seconds: Sequence[float | None]) -> None:
        """Take the seconds that each step of the next plan is expected to need, None where it is unknown."""
        self._expected = seconds

    def step_started(self, title: str, position: int, total: int, *, undo: bool) -> None:
        expected = self._expected if len(self._expected) == total else ()
        self._moment = Moment(title, position, total, 0.0, undo=undo, expected=expected)
        self._started = self._last = self._clock()
        if not self._silent and self._renderer.draws:
            self._live = self._renderer.live(self._line)

    def step_ended(self, title: str, seconds: float, *, undo: bool, failed: bool) -> None:
        shown = f"{'undo: ' if undo else ''}{title}"
        if self._silent:
            return
        if self._live is not None:
            self._live.above(lambda width: [ended_line(shown, seconds, width, failed=failed)])
        else:
            self._renderer.aside(f"{shown}: {'FAILED' if failed else 'done'} ({human_seconds(seconds)})")

    def progress(self, done: int, total: int | None, unit: str) -> None:
        now = self._clock()
        seconds = now - self._started
        self._moment = msgspec.structs.replace(self._moment, done=done, amount=total, unit=unit, seconds=seconds)
        if self._silent or self._live is not None or now - self._last < _PLAIN_SECONDS:
            return
        self._last = now
        details = [amounts(self._moment), rate(self._moment)]
        if (left := self._moment.left_seconds) is not None:
            details.append(f"{whole_seconds(left)} left")
        title = f"undo: {self._moment.title}" if self._moment.undo else self._moment.title
        self._renderer.aside(f"{title}: {', '.join(part for part in details if part)}")

    def say(self, line: str) -> None:
        if self._silent:
            return
        if self._live is not None:
            self._live.above(lambda width: note_lines(line, width))
        else:
            self._renderer.aside(f"  {line}")

    def _line(self, width: int) -> str:
        return progress_line(msgspec.structs.replace(self._moment, seconds=self._clock() - self._started), width)
