"""The order of versions as PHP's `version_compare` has it, by which PHP applications compare their own."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cmp_to_key

_FORMS = (
    ("dev", 0),
    ("alpha", 1),
    ("a", 1),
    ("beta", 2),
    ("b", 2),
    ("RC", 3),
    ("rc", 3),
    ("#", 4),
    ("pl", 5),
    ("p", 5),
)
_SEPARATORS = "-_+"
_NUMBER = "#N#"  # what a word is compared with where the other version has a number


def compare(first: str, second: str) -> int:
    """Return -1, 0 or 1 as the first version is older than, equal to or newer than the second."""
    if not first or not second:
        return _sign(len(first) - len(second))
    ours, theirs = _separated(first), _separated(second)
    more = also = "."
    while ours and theirs and more and also:
        one, more, rest = ours.partition(".")
        other, also, remaining = theirs.partition(".")
        if found := _compare_parts(one, other):
            return found
        ours, theirs = rest if more else ours, remaining if also else theirs
    if more:
        return 1 if _is_number(ours) else compare(ours, _NUMBER)
    if also:
        return -1 if _is_number(theirs) else compare(_NUMBER, theirs)
    return 0


def newest(versions: Iterable[str]) -> str:
    """Return the newest of some versions. Raise ValueError where there is none."""
    return max(versions, key=cmp_to_key(compare))


def _separated(version: str) -> str:
    """Return a version with a dot wherever a number follows a word, a word a number, or where there is a separator."""
    if version.startswith("#"):
        return version
    found = previous = version[0]
    for letter in version[1:]:
        changes = (_is_word(previous) and letter.isdigit()) or (previous.isdigit() and _is_word(letter))
        separates = letter in _SEPARATORS or not letter.isalnum()
        if (changes or separates) and not found.endswith("."):
            found += "."
        if not separates or (changes and letter not in _SEPARATORS):
            found += letter
        previous = letter
    return found


def _is_word(letter: str) -> bool:
    return not letter.isdigit() and letter != "."


def _is_number(part: str) -> bool:
    return part[:1].isdigit()


def _compare_parts(one: str, other: str) -> int:
    if _is_number(one) and _is_number(other):
        return _sign(int(one) - int(other))
    if _is_number(one):
        one = _NUMBER
    elif _is_number(other):
        other = _NUMBER
    return _sign(_form(one) - _form(other))


def _form(part: str) -> int:
    return next((order for name, order in _FORMS if part.startswith(name)), -1)


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)
