"""Ends every surviving child of an operation before anything looks at the world.

A killed Holdfast leaves its running command behind: a migration would go on changing data under the recovery.
Children are known by HOLDFAST_OPERATION=<id> in their environment; signals go by pidfd after the mark was read
again, so that a reused pid is never hit.
"""

from __future__ import annotations

from holdfast.errors import StuckError
from holdfast.host import OPERATION_VARIABLE
from holdfast.processes import Process, end_processes_with, processes_with

_TERM_GRACE_SECONDS = 2.0
_KILL_WAIT_SECONDS = 20.0


def survivors(operation: str) -> list[Process]:
    """Living processes that carry the operation's mark, this process left out."""
    return processes_with(f"{OPERATION_VARIABLE}={operation}\0")


def end_children(operation: str) -> int:
    """Ends all survivors; returns how many were found at first. May be called twice.

    Raises StuckError naming what cannot be ended.
    """
    count = len(survivors(operation))
    left = end_processes_with(
        f"{OPERATION_VARIABLE}={operation}\0",
        grace_seconds=_TERM_GRACE_SECONDS,
        wait_seconds=_KILL_WAIT_SECONDS,
    )
    if left:
        named = ", ".join(f"{process.pid} ({process.command[:60]})" for process in left)
        raise StuckError(
            f"processes of the dead operation {operation} cannot be ended: {named}",
            state="Nothing was looked at or changed while they run.",
            next_step="End them (they may wait for a dead disk or belong to another user), then `holdfast recover`.",
        )
    return count
