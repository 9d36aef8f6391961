"""What is said of an operator's own maintenance: who holds visitors, why, until when, and how long it is overdue."""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec

from holdfast.model import Problem

_DAY, _HOUR, _MINUTE = 86400, 3600, 60


class Hold(msgspec.Struct, frozen=True):
    text: str
    overdue_seconds: int = 0


def status_of(hold: Mapping[str, object], now: float | None = None) -> Hold:
    """Return what is said of a hold; its times are in UTC."""
    text = f"closed by {hold.get('by')} since {hold.get('since')}: {hold.get('comment') or 'no comment'}"
    names = hold.get("services")
    if isinstance(names, list) and names:
        text += f"; {', '.join(map(str, names))} stopped"
    until = hold.get("until")
    if not isinstance(until, int | float):
        return Hold(text)
    end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))
    over = int((time.time() if now is None else now) - until)
    if over <= 0:
        return Hold(f"{text}; until {end}")
    return Hold(f"{text}; it was to end at {end}, overdue by {_span(over)}", over)


def overdue(hold: Mapping[str, object] | None) -> list[Problem]:
    """Return an error for a maintenance that takes longer than was said."""
    found = status_of(hold) if hold is not None else None
    if found is None or not found.overdue_seconds:
        return []
    return [Problem("maintenance", "error", found.text, "holdfast maintenance off, or maintenance on --for TIME")]


def _span(seconds: int) -> str:
    """Return a span as durations are written, such as `1d2h30m`."""
    parts = [
        (seconds // _DAY, "d"),
        (seconds % _DAY // _HOUR, "h"),
        (seconds % _HOUR // _MINUTE, "m"),
    ]
    return "".join(f"{number}{unit}" for number, unit in parts if number) or f"{seconds}s"
