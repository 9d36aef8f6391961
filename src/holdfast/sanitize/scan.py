"""A last look at what leaves: addresses of other domains, and values that the rules were to replace.

The server names some raw values by their keyed digest and length alone, so the values themselves are known to nobody
here. A value of the output that has the length and the digest of one is a hit, also inside of JSON or of quotes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from holdfast.errors import RefusedError
from holdfast.sanitize.deciding import DatabasePlan, TablePlan
from holdfast.sanitize.methods import Email, Hash, Phone
from holdfast.sanitize.schema import Column

CANARY = "canary"
"""The domain of the digests."""
LEAST_LENGTH, MOST_LENGTH = 8, 64
PER_COLUMN = 20
LOOKED_AT = 20_000
"""Rows in which canaries are looked for: of a column where nearly no value can be one, the server reads no more."""
_MOST_LENGTHS = 8
SEPARATORS = "\t\n\r \"'`,:;()<>[]{}|\\"
"""What no canary contains, so that each is a word whatever stands around it."""
_ENDS_OF_VALUES = b"\n\"'"
"""What ends a value in a dump, in JSON or in quotes. With words of free text, a look would take five times as long."""
_AS_TABS = bytes.maketrans(_ENDS_OF_VALUES, b"\t" * len(_ENDS_OF_VALUES))
_CARRIED_BYTES = 320
"""More than a domain or a canary has."""
_MOST_CARRIED_BYTES = 4096


class Canary(msgspec.Struct, frozen=True):
    """A raw value: its place, its length in bytes, and its keyed digest in hexadecimal."""

    column: str
    length: int
    digest: str


class Scanner:
    """Looks at the output of one table, block by block. Raise RefusedError at a hit; it does not name the value."""

    def __init__(self, key: str, domains: Sequence[str], canaries: Sequence[Canary]) -> None:
        allowed = "|".join(re.escape(domain) for domain in domains).encode()
        # Where nothing stands before the @, it is none of an address: access rules and handles have such words.
        self._mail = re.compile(
            rb"(?<=[A-Za-z0-9_.+%\x80-\xff-])@(?!(?i:(?:[a-z0-9-]+\.)*(?:" + allowed + rb")(?![a-z0-9.-]*[a-z0-9])))"
            rb"[A-Za-z0-9\x80-\xff-]+(?:\.[A-Za-z0-9\x80-\xff-]+)*\.[A-Za-z\x80-\xff]{2,}"
        )
        self._usual = f"@{domains[0]}\t".encode() if domains else b"@"
        self._started = hashlib.sha256(f"{key}:{CANARY}:".encode())
        self._lengths = frozenset(canary.length for canary in canaries)
        self._canaries: Mapping[bytes, str] = {bytes.fromhex(canary.digest): canary.column for canary in canaries}
        self._rest = b""

    def feed(self, place: str, data: bytes) -> None:
        """Look at whole values only: the last one of a block may go on in the next."""
        whole = self._rest + data if self._rest else data
        cut = _whole_values(whole)
        values = whole[:cut].translate(_AS_TABS)
        # Where all addresses are of the first domain, counting them is enough, which takes half of the time.
        foreign = values.count(b"@") != values.count(self._usual)
        if foreign and (found := self._mail.search(whole)) is not None and found.start() < cut:
            raise RefusedError(
                f"the output of {place} has an e-mail address of another domain than those that are allowed",
                next_step="Give the column a rule, or name the domain in `allowed_email_domains`.",
            )
        if lengths := self._lengths:
            words = values.split(b"\t")
            self._compare(place, {word for word in words if len(word) in lengths and b" " not in word})
        self._rest = whole[cut:]

    def end(self, place: str) -> None:
        self.feed(place, b"\n")
        self._rest = b""

    def _compare(self, place: str, words: set[bytes]) -> None:
        copy, canaries = self._started.copy, self._canaries
        for word in words:
            digest = copy()
            digest.update(word)
            if (found := digest.digest()) not in canaries:
                continue
            column = canaries[found]
            raise RefusedError(
                f"the output of {place} has a value of {column}, which the rules replace",
                next_step=f"Give the column that repeats it a rule with the domain of {column}, or no rows.",
            )


def _whole_values(data: bytes) -> int:
    """Return up to where values are whole: after an end, or where so long a one began that it is no canary."""
    if data.endswith(b"\n"):
        return len(data)
    start = max(len(data) - _MOST_CARRIED_BYTES, 0)
    last = data[start:].translate(_AS_TABS).rfind(b"\t")
    if last >= 0 or not start:
        return start + last + 1
    cut = len(data) - _CARRIED_BYTES
    return cut + (data[cut : cut + 1] == b"@")  # an address is seen together with the sign before its @


def is_one_word(text: str) -> bool:
    """Return whether a value is found wherever it is a value of the output."""
    return not set(text) & set(SEPARATORS) and re.search("[^a-z]", text) is not None


def columns(plan: DatabasePlan) -> Iterator[tuple[TablePlan, Column]]:
    """Yield the columns of which raw values are looked for: replaced ones, whose values are as good as unique."""
    for one in plan.tables:
        for decision in one.changed if not one.empty and not one.exempt else ():
            if isinstance(decision.method, (Email, Hash, Phone)) and not decision.column.array:
                yield one, decision.column


def chosen(canaries: Sequence[Canary]) -> list[Canary]:
    """Return canaries of the longest lengths only, because each further length is more words to compare."""
    lengths = sorted({canary.length for canary in canaries}, reverse=True)[:_MOST_LENGTHS]
    return [canary for canary in canaries if canary.length in lengths]
