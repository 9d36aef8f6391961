"""The constant visitors of the demo: readers and writers that count answers and remember acknowledged writes."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

_PAUSE_SECONDS = 0.02


@dataclass
class Counts:
    """What visitors got. `gaps` are the longest times between two good answers, by phase."""

    answers: Counter[str] = field(default_factory=Counter)
    gaps: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


class Load:
    """A bounded load: each thread makes one request after the other with a pause, until it is stopped."""

    def __init__(self, port: int, *, readers: int = 2, writers: int = 2) -> None:
        self._port = port
        self._stop = threading.Event()
        self._paused = threading.Event()
        self._lock = threading.Lock()
        self._phase = ""
        self._last_good = time.monotonic()
        self.counts = Counts()
        self.acknowledged: dict[int, str] = {}
        self._threads = [threading.Thread(target=self._read) for _ in range(readers)]
        self._threads += [threading.Thread(target=self._write, args=(number,)) for number in range(writers)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def ask_to_stop(self) -> None:
        """Let no new request begin."""
        self._stop.set()

    def stop(self) -> None:
        """Let no new request begin, and wait until running ones have ended."""
        self.ask_to_stop()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def pause(self) -> None:
        """Let no new request begin; running ones end within moments."""
        self._paused.set()
        time.sleep(0.3)

    def go_on(self) -> None:
        with self._lock:
            self._last_good = time.monotonic()
        self._paused.clear()

    def phase(self, name: str) -> None:
        """Name the next phase; gaps between good answers are kept by phase."""
        with self._lock:
            self._phase = name
            self._last_good = time.monotonic()

    def longest_gap(self, name: str) -> float:
        """Return the longest time between two good answers in a phase, including that since the last answer."""
        with self._lock:
            since = time.monotonic() - self._last_good if self._phase == name else 0.0
            return max(self.counts.gaps.get(name, 0.0), since)

    def served_version(self) -> str:
        """Return which version of the application answers visitors, or how they are answered instead."""
        status, body = self._request("GET", "/")
        if status == 0:
            return "no answer"
        if status != 200:
            return f"status {status}"
        return str(_values(body).get("version", "an answer without a version"))

    def _count(self, status: int, what: str) -> None:
        now = time.monotonic()
        with self._lock:
            if status in (200, 201):
                self.counts.answers["served"] += 1
                if self._phase:
                    gap = now - self._last_good
                    self.counts.gaps[self._phase] = max(self.counts.gaps.get(self._phase, 0.0), gap)
                self._last_good = now
            elif status == 503:
                self.counts.answers["503"] += 1
            else:
                self.counts.answers["failed"] += 1
                self.counts.failures.append(f"{self._phase}: {what} got {status}")

    def _request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=15)
        try:
            connection.request(method, path, body=body)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def _wait(self) -> bool:
        """Pause between requests; return False once it is time to stop."""
        while self._paused.is_set() and not self._stop.is_set():
            time.sleep(0.01)
        return not self._stop.wait(_PAUSE_SECONDS)

    def _read(self) -> None:
        turn = 0
        while self._wait():
            turn += 1
            known = list(self.acknowledged)
            path = f"/entry?id={known[turn % len(known)]}" if known and turn % 2 else "/"
            status, body = self._request("GET", path)
            what = f"GET {path}"
            if status == 200 and path != "/" and _values(body).get("whole") is not True:
                status, what = -1, f"{what} (a row without its file)"
            self._count(status, what)

    def _write(self, number: int) -> None:
        turn = 0
        while self._wait():
            turn += 1
            content = f"writer {number}, entry {turn} ".encode() * 60
            status, body = self._request("POST", "/entries", content)
            if status == 201:
                answer = _values(body)
                number_of_row, digest = answer.get("id"), answer.get("sha256")
                if isinstance(number_of_row, int) and isinstance(digest, str):
                    self.acknowledged[number_of_row] = digest
                else:
                    status = -1
            self._count(status, "POST /entries")


def _values(body: bytes) -> dict[str, object]:
    """Return the values of an answer; none if it is not the application's, so that no answer ends a visitor."""
    try:
        values = json.loads(body)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
