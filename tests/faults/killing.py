"""Killing a process with SIGKILL at an enumerated point of an operation.

The operation runs in a forked child in which the journal, the host, the runtime's calls and renames are wrapped: each
passes through a numbered point. A first run records all points; then each is run again to its kill.
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

from holdfast.drivers.databases.postgresql.client import Session
from holdfast.drivers.runtimes.supervisor.driver import SupervisorRuntime
from holdfast.engine.journal import Journal
from holdfast.system import durable
from holdfast.system.host import Host
from tests.proof import patience

MUTATING_CALLS = {"reloadConfig", "addProcessGroup", "removeProcessGroup", "startProcess", "stopProcess"}
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


def wrap(points: Points) -> None:
    """Puts the points into this process; it never comes back from a fork's child."""
    write, run, follow, capture, call, start_server, rename, send, receive, feed, pour = (
        Journal._write,
        Host.run,
        Host._follow,
        Host.capture,
        SupervisorRuntime._call,
        Host.start_server,
        os.rename,
        Session.send,
        Session.receive,
        Host.feed,
        Host.pour,
    )

    def journal_write(self: Journal, what: str, statements: Any) -> None:
        write(self, what, statements)
        points.pass_(f"journal {what}")

    def host_run(self: Host, argv: Any, **options: Any) -> Any:
        points.pass_(f"before {Path(argv[0]).name} {argv[1] if len(argv) > 1 else ''}")
        return run(self, argv, **options)

    def host_follow(self: Host, process: Any, *arguments: Any) -> Any:
        if points.reach("during the command"):
            time.sleep(DURING_SECONDS)
            os.kill(os.getpid(), signal.SIGKILL)
        return follow(self, process, *arguments)

    def host_capture(self: Host, argv: Any, **options: Any) -> Any:
        if (
            argv[0] not in ("docker", "podman") or argv[1] not in CONTAINER_LOOKS
        ):  # as often as it takes until a service is well
            points.pass_(f"before {argv[0]}")
        return capture(self, argv, **options)

    def during(label: str) -> None:
        if points.reach(label):
            time.sleep(DURING_SECONDS)
            os.kill(os.getpid(), signal.SIGKILL)  # the command is left running

    def host_feed(self: Host, argv: Any, chunks: Any, **options: Any) -> Any:
        name = Path(argv[0]).name
        points.pass_(f"before feeding {name}")

        def passing() -> Any:
            for number, chunk in enumerate(chunks):
                yield chunk
                if number == 0:
                    during(f"during feeding {name}")

        result = feed(self, argv, passing(), **options)
        points.pass_(f"after feeding {name}")
        return result

    def host_pour(self: Host, argv: Any, sink: Any, **options: Any) -> None:
        first = True

        def passing(chunk: bytes) -> None:
            nonlocal first
            if first:
                first = False
                during(f"during {Path(argv[0]).name}")
            sink(chunk)

        pour(self, argv, passing, **options)

    def host_start_server(self: Host, argv: Any, **options: Any) -> Any:
        points.pass_("before the server")
        result = start_server(self, argv, **options)
        points.pass_("after the server")
        return result

    def runtime_call(self: SupervisorRuntime, name: str, *arguments: Any) -> Any:
        if name in MUTATING_CALLS:
            points.pass_(f"before call {name}")
        result = call(self, name, *arguments)
        if name in MUTATING_CALLS:
            points.pass_(f"after call {name}")
        return result

    def session_send(self: Session, sql: str) -> None:
        changes = not sql.startswith(("SELECT", "COPY", "SET", "BEGIN ISOLATION"))
        if changes:
            points.pass_(f"before SQL {sql[:40]}")
        send(self, sql)
        if changes and points.reach(f"during SQL {sql[:40]}"):
            os.kill(os.getpid(), signal.SIGKILL)  # the statement goes on in the server

    def session_receive(self: Session, *arguments: Any) -> Any:
        sql = self._sent[0]
        found = receive(self, *arguments)
        if not sql.startswith(("SELECT", "COPY", "SET", "BEGIN ISOLATION")):
            points.pass_(f"after SQL {sql[:40]}")
        return found

    def os_rename(source: Any, target: Any, **options: Any) -> None:
        rename(source, target, **options)
        name = os.path.basename(os.fsdecode(target))
        if not name.startswith(".removed-"):  # of a tree that is being removed, however many folders it has
            points.pass_(f"rename to {Path(os.fsdecode(target)).name[-30:]}")

    Journal._write = journal_write  # type: ignore[method-assign]  # a fork's child, to be killed
    Host.run = host_run  # type: ignore[method-assign]  # a fork's child, to be killed
    Host._follow = host_follow  # type: ignore[method-assign]  # a fork's child, to be killed
    Host.capture = host_capture  # type: ignore[method-assign]  # a fork's child, to be killed
    Host.start_server = host_start_server  # type: ignore[method-assign]  # a fork's child, to be killed
    Host.feed = host_feed  # type: ignore[method-assign]  # a fork's child, to be killed
    Host.pour = host_pour  # type: ignore[method-assign]  # a fork's child, to be killed
    SupervisorRuntime._call = runtime_call  # type: ignore[method-assign]  # a fork's child, to be killed
    Session.send = session_send  # type: ignore[method-assign]  # a fork's child, to be killed
    Session.receive = session_receive  # type: ignore[method-assign]  # a fork's child, to be killed
    durable.os.rename = os_rename  # the one os module of this process


def _die_in(action: Callable[[], None], points: Points) -> tuple[str, str]:
    """Runs an action in a forked child that dies at a point."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 0
        try:
            os.close(reader)
            wrap(points)
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
