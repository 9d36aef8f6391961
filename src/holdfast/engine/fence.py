"""The end of all surviving children of an operation, before anything else is examined.

A killed Holdfast leaves its running command behind: a migration would go on changing data during the recovery. Whatever
that command did to its environment, title, session or parents, it is a descendant of the operation's keeper, which the
record of the operation names. HOLDFAST_OPERATION=<id> in an environment is a hint, for commands whose keeper was killed
itself. Signals go by pidfd after start times were compared, so that a reused pid is never hit.
"""

from __future__ import annotations

from pathlib import Path

from holdfast.errors import StuckError
from holdfast.system import keeper_client, processes
from holdfast.system.host import OPERATION_VARIABLE
from holdfast.system.processes import Process

_TERM_GRACE_SECONDS = 2.0
_KILL_WAIT_SECONDS = 20.0


def survivors(operation: str, record: Path) -> list[Process]:
    """Return living processes that the operation started, without this one and keepers."""
    found = keeper_client.recorded(record) | processes.identified(processes.processes_with(_hint(operation)))
    return [Process(pid, processes.command_of(pid)) for pid in sorted(found)]


def end_children(operation: str, record: Path) -> int:
    """End all survivors; return how many there were at first. Idempotent.

    Raise StuckError with the processes that cannot be ended.
    """
    count, left = keeper_client.end_recorded(
        record, hint=_hint(operation), grace_seconds=_TERM_GRACE_SECONDS, wait_seconds=_KILL_WAIT_SECONDS
    )
    if left:
        named = ", ".join(f"{process.pid} ({process.command[:60]})" for process in left)
        raise StuckError(
            f"processes of the dead operation {operation} cannot be ended: {named}",
            state="Nothing was examined or changed, because they are still running.",
            next_step="End them (they may wait for a dead disk or belong to another user), then run: holdfast recover",
        )
    return count


def _hint(operation: str) -> str:
    return f"{OPERATION_VARIABLE}={operation}\0"
