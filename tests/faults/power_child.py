"""Runs an operation in a forked child that loses its disks, or finds them full, at an enumerated journal write.

Points lie before and after each write of the journal: before it, a step has acted and nothing says so; after it, the
journal says so and everything that it rests on has to be there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.engine import lock, runner
from holdfast.system import fault_points
from tests.faults import loop
from tests.proof import patience

OTHER_BOOT = "00000000-0000-4000-8000-00000000b007"


@dataclass
class JournalPoints:
    """Counts journal writes and hands over to `strike` at number `at`."""

    at: int | None
    record: Path | None
    strike: Callable[[], None]
    count: int = 0

    def reach(self, label: str) -> bool:
        return False

    def pass_(self, label: str) -> None:
        number = self.count
        self.count += 1
        if self.record is not None:
            with open(self.record, "a") as file:
                file.write(label + "\n")
        if number == self.at:
            self.strike()


def listen(points: JournalPoints) -> None:
    """Strike this process at its point; it never comes back from a fork's child."""

    def reached(label: str) -> None:
        if label.removeprefix("before ").startswith("journal "):
            points.pass_(label)

    fault_points.listen(reached)


def lose_power(mountpoints: list[str]) -> None:
    for mountpoint in mountpoints:
        loop.shut_down(mountpoint)
    os.kill(os.getpid(), signal.SIGKILL)


def boot_again() -> None:
    """After a power loss the kernel has another boot id."""
    lock.boot_id = lambda: OTHER_BOOT
    runner.boot_id = lambda: OTHER_BOOT  # type: ignore[attr-defined]


class Child:
    """A process without threads that forks a child per order; see `killing.Forker` for the reason."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.power_child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, what: str, site: dict[str, str], **order: Any) -> tuple[str, str, str]:
        """How it ended: `killed`, `done` or the class of its error; its message; its traceback."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"what": what, "site": site, **order}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer[0], answer[1], answer[2]

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(patience.limit(10))
        self._process.stdout.close()


def _in_fork(action: Callable[[], None]) -> tuple[str, str, str]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            action()
            answer = ("done", "", "")
        except BaseException as error:
            answer = (type(error).__name__, str(error), traceback.format_exc()[-6000:])
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        output = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "killed", "", ""
    end, message, trace = json.loads(output)
    return end, message, trace


def _action(order: dict[str, Any]) -> Callable[[], None]:
    from holdfast.config.load import load
    from holdfast.operations import recover
    from tests.faults.power_scenarios import EVERY
    from tests.site import Site

    parts = {name: Path(path) for name, path in order["site"].items()}
    site = Site(parts.pop("folder"), **parts)

    def operate() -> None:
        if order.get("power") is not None:
            mountpoints = order["power"]
            listen(JournalPoints(order.get("at"), _path(order.get("record")), lambda: lose_power(mountpoints)))
        elif order.get("ballast") is not None:
            ballast = Path(order["ballast"])
            listen(JournalPoints(order.get("at"), _path(order.get("record")), lambda: loop.fill(ballast)))
        EVERY[order["scenario"]].act(site)

    def boot() -> None:
        boot_again()
        recover.at_boot(load(str(site.config)))

    return {"operate": operate, "boot": boot, "recover": lambda: recover.recover(site.state) and None}[order["what"]]


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def serve() -> None:
    for line in sys.stdin:
        print(json.dumps(_in_fork(_action(json.loads(line)))), flush=True)


if __name__ == "__main__":
    serve()
