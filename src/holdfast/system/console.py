"""One command of the application on the operator's own terminal, with a limit for what runs without one."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast.errors import CommandTimeoutError
from holdfast.system import processes
from holdfast.system.accounts import Account

_VARIABLE = "HOLDFAST_CONSOLE"
_END_SECONDS = 10.0


def run(
    argv: Sequence[str],
    *,
    cwd: str | Path,
    environment: Mapping[str, str],
    account: Account,
    timeout_seconds: float | None = None,
) -> int:
    """Run a command to its end; return its exit code.

    After a time-out everything that it started is ended, by a variable that it all carries. Raise CommandTimeoutError.
    """
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    try:
        done = subprocess.run(
            list(argv),
            cwd=cwd,
            env={**environment, _VARIABLE: mark},
            check=False,
            user=account.uid,
            group=account.gid,
            extra_groups=account.groups if account.ids else None,
            timeout=timeout_seconds,
        )
    except subprocess.TimeoutExpired:
        processes.end_processes_with(f"{_VARIABLE}={mark}", grace_seconds=0, wait_seconds=_END_SECONDS)
        raise CommandTimeoutError(
            f"`{os.path.basename(argv[0])}` was ended after {timeout_seconds:g} seconds, with all that it started",
            next_step="Give it more time by `limits.console_timeout_seconds`, or run it on a terminal.",
        ) from None
    return done.returncode
