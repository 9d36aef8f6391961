"""A last look at what leaves: addresses of other domains, and values that the rules were to replace.

The server names some raw values by their keyed digest and length alone, so the values themselves are known to nobody
here. A value of the output that has the length and the digest of one is a hit, also inside of JSON or of quotes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

import msgspec

from holdfast.errors import RefusedError

CANARY = "canary"
"""The domain of the digests."""
LEAST_LENGTH, MOST_LENGTH = 8, 64
PER_COLUMN = 20
_MOST_LENGTHS = 8
SEPARATORS = "\t\n\r \"'`,:;()<>[]{}|\\"
"""What no canary contains, so that each is a word whatever stands around it."""
_ENDS_OF_VALUES = b"\n\"'"
_AS_TABS = bytes.maketrans(_ENDS_OF_VALUES, b"\t" * len(_ENDS_OF_VALUES))
_CARRIED_BYTES = 256


class Canary(msgspec.Struct, frozen=True):
    """A raw value: its place, its length in bytes, and its keyed digest in hexadecimal."""

    column: str
    length: int
    digest: str


class Scanner:
    """Looks at the output of one table, block by block. Raise RefusedError at a hit; it does not name the value."""

    def __init__(self, key: str, domains: Sequence[str], canaries: Sequence[Canary]) -> None:
        allowed = "|".join(re.escape(domain) for domain in domains)
        self._mail = re.compile(
            rf"@(?!(?:[A-Za-z0-9-]+\.)*(?:{allowed})(?![A-Za-z0-9.-]*[A-Za-z0-9]))[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{{2,}}".encode()
        )
        self._started = hashlib.sha256(f"{key}:{CANARY}:".encode())
        self._lengths = {canary.length for canary in canaries}
        self._canaries: Mapping[str, str] = {canary.digest: canary.column for canary in canaries}
        self._rest = b""

    def feed(self, place: str, data: bytes) -> None:
        whole = self._rest + data
        if (found := self._mail.search(whole)) is not None and found.end() < len(whole):
            raise RefusedError(
                f"the output of {place} has an e-mail address of another domain than those that are allowed",
                next_step="Give the column a rule, or name the domain in `allowed_email_domains`.",
            )
        if self._lengths:
            for word in whole.translate(_AS_TABS).split(b"\t"):
                if len(word) in self._lengths:
                    self._compare(place, word)
        cut = max(whole.rfind(b"\n") + 1, len(whole) - _CARRIED_BYTES)
        self._rest = whole[cut:]

    def end(self, place: str) -> None:
        self.feed(place, b"\n")
        self._rest = b""

    def _compare(self, place: str, word: bytes) -> None:
        digest = self._started.copy()
        digest.update(word)
        column = self._canaries.get(digest.hexdigest())
        if column is not None:
            raise RefusedError(
                f"the output of {place} has a value of {column}, which the rules replace",
                next_step=f"Give the column that repeats it a rule with the domain of {column}, or no rows.",
            )


def is_one_word(text: str) -> bool:
    """Return whether a value is found as a word of the output."""
    return not set(text) & set(SEPARATORS) and re.search("[^a-z]", text) is not None


def chosen(canaries: Sequence[Canary]) -> list[Canary]:
    """Return canaries of the longest lengths only, because each further length is more words to compare."""
    lengths = sorted({canary.length for canary in canaries}, reverse=True)[:_MOST_LENGTHS]
    return [canary for canary in canaries if canary.length in lengths]
