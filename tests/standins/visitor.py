"""A visitor who asks one page after the other, and remembers how long there was no good answer."""

from __future__ import annotations

import collections
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any


def ask(port: int, path: str, timeout_seconds: float = 30, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and content; 0 and the reason where nobody answers. With a body it is a POST."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)
    try:
        connection.request("GET" if body is None else "POST", path, body=body)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        return 0, repr(error).encode()
    finally:
        connection.close()


def get(port: int, path: str = "/", body: bytes | None = None) -> tuple[int, Any]:
    """The same with what JSON says; None where it is none, as a proxy's own page."""
    status, content = ask(port, path, body=body)
    try:
        return status, json.loads(content)
    except ValueError:
        return status, None


class Visitor:
    """Asks from `with` until its end; a good answer is one with a status below 400."""

    def __init__(
        self, port: int, path: str = "/health/", *, interval_seconds: float = 0.02, timeout_seconds: float = 30
    ) -> None:
        self.statuses: collections.Counter[int] = collections.Counter()  # 0: nobody answered
        self.bodies: collections.Counter[bytes] = collections.Counter()  # of good answers
        self.errors: collections.Counter[bytes] = collections.Counter()  # what was said with status 500
        self.unanswered: collections.Counter[bytes] = collections.Counter()  # the reasons
        self.longest_seconds = 0.0  # without a good answer
        self._port, self._path = port, path
        self._interval_seconds, self._timeout_seconds = interval_seconds, timeout_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._visit, daemon=True)

    @property
    def failures(self) -> int:
        return sum(count for status, count in self.statuses.items() if not 200 <= status < 400)

    def __enter__(self) -> Visitor:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _visit(self) -> None:
        last_good = time.monotonic()
        while not self._ended.is_set():
            status, body = ask(self._port, self._path, self._timeout_seconds)
            now = time.monotonic()
            self.statuses[status] += 1
            self.longest_seconds = max(self.longest_seconds, now - last_good)
            if 200 <= status < 400:
                last_good = now
                self.bodies[body] += 1
            elif status in (0, 500):
                (self.errors if status else self.unanswered)[body] += 1
            self._ended.wait(self._interval_seconds)
        self.longest_seconds = max(self.longest_seconds, time.monotonic() - last_good)


@contextmanager
def writing(write: Callable[[], object | None], interval_seconds: float) -> Iterator[list[Any]]:
    """Write as long as the block runs; give what `write` returned of each that was acknowledged."""
    acknowledged: list[Any] = []
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(interval_seconds):
            if (made := write()) is not None:
                acknowledged.append(made)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield acknowledged
    finally:
        ended.set()
        thread.join()
