"""The writing of a sanitized dump in parts, each looked at, compressed and counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast.sanitize.deciding import DatabasePlan
from holdfast.sanitize.output import Compression, Part
from holdfast.sanitize.scan import Canary, Scanner


class PartWriter:
    """Writes the parts of one dump; several threads may write parts at the same time."""

    def __init__(
        self,
        plan: DatabasePlan,
        key: str,
        canaries: Sequence[Canary],
        folder: Path,
        compression: Compression,
        passed: Callable[[int], None],
    ) -> None:
        self.plan = plan
        self._key = key
        self._canaries = canaries
        self._folder = folder
        self._compression = compression
        self._passed = passed
        self.rows: dict[str, int] = {}
        self._counting = threading.Lock()
        self.size_bytes = 0

    def _part(self, number: int) -> Part:
        return Part(self._folder / f"part.{number:05}", self._compression)

    def section(self, number: int, fill: Callable[[Callable[[bytes], None]], None], before: bytes = b"") -> Path:
        """Write a part with definitions, which `fill` passes on. Return its path."""
        with self._part(number) as part:
            part.write(before)
            fill(part.write)
        with self._counting:
            self.size_bytes += part.size_bytes
        return part.path

    def table(
        self, number: int, place: str, before: bytes, fill: Callable[[Callable[[bytes], None]], None], after: bytes
    ) -> Path:
        """Write the part of one table, whose rows `fill` passes on, one on each line. Return its path.

        Raise RefusedError where a value leaves that must not.
        """
        domains = (self.plan.email_domain, *self.plan.allowed_email_domains)
        scanner = Scanner(self._key, domains, self._canaries)
        rows = 0
        with self._part(number) as part:

            def write(data: bytes) -> None:
                nonlocal rows
                scanner.feed(place, data)
                rows += data.count(b"\n")
                part.write(data)
                self._passed(len(data))

            part.write(before)
            fill(write)
            scanner.end(place)
            part.write(after)
        with self._counting:
            self.rows[place] = self.rows.get(place, 0) + rows
            self.size_bytes += part.size_bytes
        return part.path
