"""What a plan will cost: the time of its steps, and how long visitors see the maintenance page, from earlier runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from holdfast.cli.text import whole_seconds
from holdfast.model import Plan, PlannedStep

_CLOSES, _OPENS = "gate.close", "gate.open"
_WORTH_SECONDS = 1.0


class Forecast(msgspec.Struct, frozen=True):
    """The expected seconds of each step, None for one that never ran here; `window` has the steps behind the page."""

    titles: Sequence[str]
    seconds: Sequence[float | None]
    window: Sequence[int] = ()
    has_gate: bool = True

    @property
    def total_seconds(self) -> float | None:
        return self._sum(range(len(self.seconds)))

    @property
    def window_seconds(self) -> float | None:
        """Return the expected time of the maintenance page, 0 without one; None if no step in it ever ran here."""
        return self._sum(self.window) if self.window else 0.0

    def _sum(self, numbers: Sequence[int]) -> float | None:
        known = [seconds for number in numbers if (seconds := self.seconds[number]) is not None]
        return sum(known) if known else None

    def of_step(self, number: int) -> str:
        """Return the expected time of a step if it is worth a word."""
        seconds = self.seconds[number]
        return f"  (about {whole_seconds(seconds)})" if seconds is not None and seconds >= _WORTH_SECONDS else ""

    def lines(self, kind: str) -> list[str]:
        what = "Visitors see the maintenance page" if self.has_gate else "Visitors get no answer"
        if not self.window:
            window = f"{what.replace('the', 'no') if self.has_gate else 'Visitors notice nothing'}."
        else:
            window = f"{what} for {self._span(self.window, kind)}."
        return [window, f"In all it takes {self._span(range(len(self.seconds)), kind)}."]

    def _span(self, numbers: Sequence[int], kind: str) -> str:
        seconds = self._sum(numbers)
        if seconds is None:
            return f"an unknown time: there was no earlier {kind} here"
        new = [self.titles[number] for number in numbers if self.seconds[number] is None]
        about = f"about {whole_seconds(max(seconds, _WORTH_SECONDS))}"
        return f"{about}, and the time of what never ran here: {', '.join(new)}" if new else about


def window_of(names: Sequence[str]) -> range:
    """Return which of these steps, named in their order, run while visitors are held."""
    if _CLOSES not in names:
        return range(0)
    first = names.index(_CLOSES)
    return range(first, (names.index(_OPENS, first) if _OPENS in names[first:] else len(names) - 1) + 1)


def forecast(plan: Plan, typical_seconds: Callable[[str, str], float | None], *, has_gate: bool = True) -> Forecast:
    """Return what is known of a plan from the journal."""
    steps: Sequence[PlannedStep] = plan.all_steps
    window = window_of([step.name for step in steps])
    seconds = [typical_seconds(step.name, step.title) for step in steps]
    return Forecast([step.title for step in steps], seconds, window, has_gate)
