"""Values as a person reads them: sizes, durations, times, and text that cannot control a terminal."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar

_ItemT = TypeVar("_ItemT")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_AGES = (("year", 31_557_600), ("month", 2_629_800), ("week", 604_800), ("day", 86_400), ("hour", 3600), ("minute", 60))
_STAMP = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z\b")
# With those that change the direction in which a terminal shows what follows, and bytes that are no text.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def human_bytes(size: float) -> str:
    number, unit = _scaled(size, size)
    return f"{number} {unit}"


def human_part(done: float, total: float) -> str:
    """Return how much of a size is done, both in the unit of the whole."""
    number, _ = _scaled(done, total)
    return f"{number} of {human_bytes(total)}"


def _scaled(size: float, measure: float) -> tuple[str, str]:
    """Return a size in the unit that suits another one."""
    unit = 0
    while measure >= 1024 and unit < len(_UNITS) - 1:
        measure, size, unit = measure / 1024, size / 1024, unit + 1
    return (f"{size:.0f}" if unit == 0 else f"{size:.1f}"), _UNITS[unit]


def human_seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, left = divmod(int(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {left} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def whole_seconds(seconds: float) -> str:
    """Return a duration for a display that changes every moment."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"


def counted(number: int, word: str) -> str:
    """Return a number with its noun, such as `3 backups`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def paged(items: Sequence[_ItemT], page: int, per_page: int | None) -> tuple[list[_ItemT], int]:
    """Return the items of a page, in their order, and how many pages there are; page 1 has the last items."""
    if per_page is None:
        return list(items) if page == 1 else [], 1
    pages = max(1, -(-len(items) // per_page))
    end = len(items) - (page - 1) * per_page
    return list(items[max(0, end - per_page) : max(0, end)]), pages


def _instant(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def ago(stamp: str, now: float | None = None) -> str:
    """Return how long ago a time of the journal or the vault was, such as `3 hours ago`."""
    seconds = (time.time() if now is None else now) - _instant(stamp)
    for word, length in _AGES:
        if seconds >= length:
            return f"{counted(int(seconds // length), word)} ago"
    return "just now"


def local_time(stamp: str) -> str:
    """Return a time of the journal or the vault in the time zone of this machine, with its name."""
    return datetime.fromisoformat(stamp).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z") if stamp else "-"


def local_times(text: str) -> str:
    """Return a text in which each time of the journal is a local one, and how long ago it was."""
    return _STAMP.sub(lambda stamp: f"{local_time(stamp[0])} ({ago(stamp[0])})", text)


def local_zone() -> str:
    """Return the present time zone of this machine, for the heading of a column."""
    return time.strftime("%Z")


def local_minute(stamp: str) -> str:
    """Return a time without its zone, which is the present one of this machine, for a column."""
    here = datetime.now().astimezone().tzinfo
    return datetime.fromisoformat(stamp).astimezone(here).strftime("%Y-%m-%d %H:%M") if stamp else "-"


def seconds_between(first: str, last: str) -> float:
    return _instant(last) - _instant(first)


def visible(text: str) -> str:
    """Return a text in which control characters are visible instead of effective; lines and tabulators stay."""
    return text if text.isprintable() else _CONTROLS.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def whole_lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines that pieces of output make together; the last one may have no end."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line.removesuffix(b"\r").decode(errors="replace") for line in lines)
    if rest:
        yield rest.decode(errors="replace")


def cut(text: str, width: int) -> str:
    """Return a text of at most `width` characters; an ellipsis shows that something is missing."""
    return text if len(text) <= width else f"{text[: max(0, width - 1)]}…"[: max(0, width)]
