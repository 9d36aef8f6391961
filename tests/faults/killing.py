"""Killing a process with SIGKILL at an enumerated point of an operation.

The operation runs in a forked child in which the journal, the host, the runtime's calls and renames are wrapped: each
passes through a numbered point. A first run records all points; then each is run again to its kill.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast import durable
from holdfast.drivers.runtimes.supervisor import SupervisorRuntime
from holdfast.engine.journal import Journal
from holdfast.host import Host

MUTATING_CALLS = {"reloadConfig", "addProcessGroup", "removeProcessGroup", "startProcess", "stopProcess"}
DURING_SECONDS = 0.06


@dataclass
class Points:
    """Counts points; at number `kill_at` the process dies, without any of its code running again."""

    kill_at: int | None
    record: Path | None
    count: int = 0

    def reach(self, label: str) -> bool:
        """True if this is the point to die at; otherwise it is counted."""
        number = self.count
        self.count += 1
        if self.record is not None:
            with open(self.record, "a") as file:
                file.write(label + "\n")
        return number == self.kill_at

    def pass_(self, label: str) -> None:
        if self.reach(label):
            os.kill(os.getpid(), signal.SIGKILL)


def wrap(points: Points) -> None:
    """Puts the points into this process; it never comes back from a fork's child."""
    write, run, follow, capture, call, start_server, rename = (
        Journal._write, Host.run, Host._follow, Host.capture, SupervisorRuntime._call, Host.start_server, os.rename,
    )  # fmt: skip

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
        points.pass_(f"before {argv[0]}")
        return capture(self, argv, **options)

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

    def os_rename(source: Any, target: Any, **options: Any) -> None:
        rename(source, target, **options)
        points.pass_(f"rename to {Path(os.fsdecode(target)).name[-30:]}")

    Journal._write = journal_write  # type: ignore[method-assign]
    Host.run = host_run  # type: ignore[method-assign]
    Host._follow = host_follow  # type: ignore[method-assign]
    Host.capture = host_capture  # type: ignore[method-assign]
    Host.start_server = host_start_server  # type: ignore[method-assign]
    SupervisorRuntime._call = runtime_call  # type: ignore[method-assign]
    durable.os.rename = os_rename  # the one os module of this process


def run_killed(action: Callable[[], None], *, kill_at: int | None, record: Path | None = None) -> tuple[str, str]:
    """Runs an action in a child that dies at a point. Returns `killed`, `done` or `failed`, and what it printed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 0
        try:
            os.close(reader)
            wrap(Points(kill_at, record))
            action()
        except BaseException:
            code = 1
            os.write(writer, traceback.format_exc()[-4000:].encode())
        finally:
            sys.stdout.flush()
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
