"""A table of digests that stays small, because millions of contents must fit into memory."""

from __future__ import annotations

_BUCKETS = 1 << 14
_KEY_BYTES = 12


class DigestTable:
    """A table of digests with a number each.

    An entry takes 12 bytes and the number's own; in a Python set it would take 100 and in a dict 150. The first 14 bits
    choose a bucket, in which the following 12 bytes are searched: 104 bits in all distinguish contents. Two threads
    that add one digest at the same time may both learn that it was new; this does no harm.
    """

    def __init__(self, number_bytes: int = 0) -> None:
        self._number_bytes = number_bytes
        self._width = _KEY_BYTES + number_bytes
        self._buckets: list[bytearray | None] = [None] * _BUCKETS

    def add(self, digest: bytes, number: int = 0) -> None:
        place = (digest[0] << 8 | digest[1]) >> 2
        bucket = self._buckets[place]
        if bucket is None:
            bucket = self._buckets[place] = bytearray()
        bucket += digest[1 : 1 + _KEY_BYTES] + number.to_bytes(self._number_bytes)

    def add_new(self, digest: bytes) -> bool:
        """Add a digest without a number; return False if it was there already."""
        place = (digest[0] << 8 | digest[1]) >> 2
        bucket = self._buckets[place]
        if bucket is None:
            bucket = self._buckets[place] = bytearray()
        key = digest[1 : 1 + _KEY_BYTES]
        position = bucket.find(key)
        while position >= 0 and position % _KEY_BYTES:
            position = bucket.find(key, position + 1)
        if position < 0:
            bucket += key
            return True
        return False

    def find(self, digest: bytes) -> int | None:
        """Return the number of a digest; None if it was not added."""
        bucket = self._buckets[(digest[0] << 8 | digest[1]) >> 2]
        if bucket is None:
            return None
        key = digest[1 : 1 + _KEY_BYTES]
        position = bucket.find(key)
        while position >= 0 and position % self._width:  # a match across the border of two records
            position = bucket.find(key, position + 1)
        if position < 0:
            return None
        return int.from_bytes(bucket[position + _KEY_BYTES : position + self._width])
