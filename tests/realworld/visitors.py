"""A reader and a writer that never stop, and what they were answered."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass, field

from tests.realworld.application import Application, Site

_PAUSE_SECONDS = 0.03
_WRITE_PAUSE_SECONDS = 0.1
# A request that fails otherwise than by these is a fault of the trial itself.
_FAILURES = (OSError, ValueError, KeyError)


@dataclass
class Visitors:
    """One reader, and a writer that can be left out where content is compared."""

    application: Application
    site: Site
    prefix: str
    writing: bool = True
    acknowledged: list[str] = field(default_factory=list)
    held: int = 0
    _good: list[float] = field(default_factory=list)

    def __enter__(self) -> Visitors:
        self._stop = threading.Event()
        self._began = time.monotonic()
        self._threads = [threading.Thread(target=self._read)]
        if self.writing:
            self._threads.append(threading.Thread(target=self._write))
        for thread in self._threads:
            thread.start()
        time.sleep(1)
        return self

    def __exit__(self, *_: object) -> None:
        self.settle()
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def settle(self) -> None:
        """Let visitors be answered once more, so that the end of their waiting is seen."""
        now = time.monotonic()
        while time.monotonic() < now + 20 and not (self._good and self._good[-1] > now + 0.5):
            time.sleep(0.05)

    @property
    def waited(self) -> float:
        """The longest time between two good answers."""
        moments = [self._began, *self._good]
        return max((after - before for before, after in itertools.pairwise(moments)), default=0.0)

    def _read(self) -> None:
        client = self.site.client()
        while not self._stop.is_set():
            try:
                client.get(self.application.page)
                self._good.append(time.monotonic())
            except _FAILURES:
                self.held += 1
            time.sleep(_PAUSE_SECONDS)

    def _write(self) -> None:
        client = self.site.client()
        number = 0
        while not self._stop.is_set():
            number += 1
            key = f"{self.prefix}{number:04}"
            try:
                self.application.write(client, self.site, key)
                self.acknowledged.append(key)
            except _FAILURES:
                pass
            time.sleep(_WRITE_PAUSE_SECONDS)
