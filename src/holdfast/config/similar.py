"""The names that somebody may have meant who typed one that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from holdfast.errors import NotFoundError

_MOST = 3
_MUCH_LESS = 0.12


def similar(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> list[str]:
    """Return known names that are similar to one, the most similar first."""
    by_lower = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), list(by_lower), _MOST, cutoff)
    likeness = [difflib.SequenceMatcher(None, one, name.lower()).ratio() for one in found]
    return [by_lower[one] for one, value in zip(found, likeness, strict=True) if value > likeness[0] - _MUCH_LESS]


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return a question that names what is similar; empty if nothing is."""
    found = similar(name, known, cutoff=cutoff)
    return f"Did you mean {' or '.join(found)}?" if found else ""


def no_such(kind: str, name: str, known: Iterable[str], *, next_step: str = "", cutoff: float = 0.6) -> NotFoundError:
    """Return the error for a name that does not exist, with similar ones, and all of them without a next step."""
    names = list(known)
    question = did_you_mean(name, names, cutoff=cutoff)
    rest = next_step or f"Known: {', '.join(names) or 'none'}."
    return NotFoundError(f"there is no {kind} {name!r}", next_step=f"{question} {rest}".strip())
