"""Killing a process with SIGKILL at an enumerated point of an operation.

The operation runs in a forked child that listens at the fault points of the product: each has a number there. A first
run records all points; then each is run again to its kill.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.system import fault_points
from tests.proof import patience

CONTAINER_LOOKS = {"ps", "container", "image", "version", "compose"}
DURING_SECONDS = 0.06


@dataclass
class Points:
    """Counts points; at number `kill_at` the process dies, without any of its code running again."""

    kill_at: int | None
    record: Path | None
    wait_at: int | None = None
    count: int = 0
    _file: int | None = None

    def reach(self, label: str) -> bool:
        """Count the point; return True if it is the one to die at.

        At `wait_at` the process says so by a file `.reached` beside the record, and goes on once that is gone.
        """
        number = self.count
        self.count += 1
        if self.record is not None:
            if self._file is None:
                self._file = os.open(self.record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.write(self._file, f"{label}\n".encode())
            if number == self.wait_at:
                reached = self.record.with_suffix(".reached")
                reached.touch()
                while reached.exists():
                    time.sleep(0.005)
        return number == self.kill_at

    def pass_(self, label: str) -> None:
        if self.reach(label):
            os.kill(os.getpid(), signal.SIGKILL)


def listen(points: Points) -> None:
    """Let this process die at its point; it never comes back from a fork's child."""

    def reached(label: str) -> None:
        if _repeats(label) or not points.reach(label):
            return
        if label.startswith("during") and "SQL" not in label:
            time.sleep(DURING_SECONDS)  # the command is left running
        os.kill(os.getpid(), signal.SIGKILL)

    fault_points.listen(reached)


def _repeats(label: str) -> bool:
    """Tell whether a point is none for a kill.

    The engine is asked until a service is well, and a tree that is removed has however many folders it has: their
    number means nothing. Before a write of the journal all is as after the change before it.
    """
    arguments = label.split()
    if arguments[0] == "capture":
        return arguments[1] in ("docker", "podman") and arguments[2] in CONTAINER_LOOKS
    return label.startswith(("rename to .removed-", "before journal"))


def _die_in(action: Callable[[], None], points: Points) -> tuple[str, str]:
    """Runs an action in a forked child that dies at a point."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 0
        try:
            os.close(reader)
            listen(points)
            action()
        except BaseException:
            code = 1
            os.write(writer, traceback.format_exc()[-4000:].encode())
        finally:
            os._exit(code)
    os.close(writer)
    output = b""
    while chunk := os.read(reader, 65536):
        output += chunk
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "killed", output.decode(errors="replace")
    return ("done" if os.WEXITSTATUS(status) == 0 else "failed"), output.decode(errors="replace")


class Forker:
    """A process without threads that has everything imported and forks a child per run.

    pytest itself has threads (xdist's), and a fork of a process with threads can find its locks taken for ever.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.killing"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(
        self,
        folder: Path,
        scenario: str,
        what: str,
        *,
        kill_at: int | None,
        record: Path | None = None,
        wait_at: int | None = None,
    ) -> None:
        assert self._process.stdin is not None
        order = {
            "folder": str(folder),
            "scenario": scenario,
            "what": what,
            "kill_at": kill_at,
            "wait_at": wait_at,
            "record": str(record or ""),
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def end(self) -> tuple[str, str]:
        """`killed`, `done` or `failed`, and the traceback of what failed."""
        assert self._process.stdout is not None
        answer = json.loads(self._process.stdout.readline())
        return answer[0], answer[1]

    def run(self, *arguments: Any, **options: Any) -> tuple[str, str]:
        self.start(*arguments, **options)
        return self.end()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(patience.limit(10))
        self._process.stdout.close()


def serve() -> None:
    from holdfast.drivers.databases.mariadb import parallel
    from holdfast.operations import recover
    from tests.faults.scenarios import ENGINE_SCENARIOS, SCENARIOS
    from tests.site import Site

    parallel._LEAST_BYTES = 0  # a second dump program, as larger databases have
    by_name = {scenario.title: scenario for scenario in (*SCENARIOS, *ENGINE_SCENARIOS)}
    for line in sys.stdin:
        order = json.loads(line)
        site = Site(Path(order["folder"]))
        scenario = by_name[order["scenario"]]
        action = (lambda: scenario.act(site)) if order["what"] == "act" else (lambda: recover.recover(site.state))  # noqa: B023  # called before the next order
        points = Points(order["kill_at"], Path(order["record"]) if order["record"] else None, order["wait_at"])
        answer = _die_in(action, points)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
