"""The masking of secrets by value, in text and in streams, in the forms in which programs print them."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Callable, Iterable

MASK = "[redacted]"
_LEAST_CHARACTERS = 4  # masking every "a" would destroy the log and hide nothing
_LEAST_BASE64_CHARACTERS = 6


def _forms(value: str) -> set[bytes]:
    """Return a secret as it is, in URLs, in JSON of several encoders, and inside base64 at each of three alignments."""
    raw = value.encode()
    forms = {raw}
    for quoted in (urllib.parse.quote(value, safe=""), urllib.parse.quote_plus(value), urllib.parse.quote(value)):
        forms.add(quoted.encode())
        forms.add(re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), quoted).encode())
    for text in (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        for slashes in (text, text.replace("/", "\\/")):
            forms.add(slashes.encode())
            capital = re.sub(r"\\u([0-9a-f]{4})", lambda found: f"\\u{found[1].upper()}", slashes)
            forms.add(capital.encode())
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw)
        # Characters that also depend on the neighbouring bytes are not part of the pattern.
        core = encoded[0 if shift == 0 else shift + 1 : (shift + len(raw)) * 8 // 6]
        if len(core) >= _LEAST_BASE64_CHARACTERS:
            forms.add(core)
            forms.add(core.replace(b"+", b"-").replace(b"/", b"_"))
    return {form for form in forms if form}


class Redactor:
    """The secrets of one run."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._forms: set[bytes] = set()
        for value in values:
            self.add(value)

    def add(self, value: str) -> None:
        if len(value) >= _LEAST_CHARACTERS:
            self._forms |= _forms(value)

    def places(self, data: bytes) -> list[tuple[int, int]]:
        """Return start and end of every stretch that secrets cover, overlapping ones joined, in order."""
        found = []
        for form in self._forms:
            start = data.find(form)
            while start >= 0:
                found.append((start, start + len(form)))
                start = data.find(form, start + 1)
        joined: list[tuple[int, int]] = []
        for start, end in sorted(found):
            if joined and start < joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((start, end))
        return joined

    def redact(self, data: bytes) -> bytes:
        parts = []
        position = 0
        for start, end in self.places(data):
            parts += [data[position:start], MASK.encode()]
            position = end
        return b"".join([*parts, data[position:]])

    def text(self, text: str) -> str:
        return self.redact(text.encode(errors="surrogateescape")).decode(errors="replace")

    @property
    def longest_bytes(self) -> int:
        return max((len(form) for form in self._forms), default=0)


class RedactingStream:
    """A redacted stream that arrives in chunks; a secret that is split between two chunks is found, too."""

    def __init__(self, redactor: Redactor, write: Callable[[bytes], None]) -> None:
        self._redactor = redactor
        self._write = write
        self._pending = b""

    def feed(self, chunk: bytes) -> None:
        data = self._pending + chunk
        # Keep back the whole end that could become part of a secret until the next chunk.
        cut = len(data) - max(0, self._redactor.longest_bytes - 1)
        for start, end in self._redactor.places(data):
            if start < cut < end:
                cut = start
        if cut > 0:
            self._write(self._redactor.redact(data[:cut]))
            data = data[cut:]
        self._pending = data

    def close(self) -> None:
        if self._pending:
            self._write(self._redactor.redact(self._pending))
        self._pending = b""
