"""Protocol of the datasets that a server or a library keeps: SQL databases, key-value stores, search indices.

Trees of files have a protocol of their own: they are changed in place by renames of what differs, not swapped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from holdfast.model import Copying, Facts, Problem, Snapshot

if TYPE_CHECKING:  # reading the formats of other tools takes archives and compressions
    from holdfast.drivers.interchange.dump_source import DumpSource

SnapshotFn = Callable[[Path, Sequence[str], float], Callable[[], Snapshot]]
"""Fix the instant of a dump into a new file, and return the function that finishes the dump.

The arguments are the file, the queries whose answers the snapshot holds, and the seconds that counting rows may take.
Only a dataset that answers SQL is given queries.
"""


JointSnapshotFn = Callable[[Sequence[tuple[Path, Sequence[str]]], float], list[Callable[[], Snapshot]]]
"""Do the same for several datasets at one instant, each with its own file and queries."""


class Countable(Protocol):
    """A dataset whose content is counted: the live one, a candidate or a replaced one."""

    def tables(self, *, budget_seconds: float = 10) -> dict[str, Facts]:
        """Return per table its `columns` and exact `rows`; rows not counted within the budget are None.

        A table is what the kind keeps entries in: a key space, an index. Where entries have no columns, they are empty.
        Small tables are counted first where the engine knows which those are.
        """


class DatasetReading(Countable, Protocol):
    """The reading side of one dataset of the application: facts and dumps."""

    kind: str
    extension: str

    def inspect(self) -> Facts:
        """Return `exists`, `identity` (survives renames, changes with a swap), `size_bytes` and `tool`.

        Add `data_folder`, the folder in which a server on this machine keeps its data, if it can be determined.
        """

    def freeze_writes(self, limit_seconds: float | None) -> AbstractContextManager[SnapshotFn]:
        """Hold writers until the instant is fixed; with None, do not hold them.

        Afterwards they go on as soon as the engine allows it. Raise StepError if writers cannot be held in time.
        """

    def joint_snapshot(self, others: Sequence[Dataset]) -> AbstractContextManager[JointSnapshotFn] | None:
        """Fix the instant of this dataset and then others in one transaction, without holding writers.

        Return None where their engine has no transaction that sees all of them.
        """

    def check(self) -> list[Problem]:
        """Return what prevents an operation on it, as `error`, and what an operator should know."""


class DatasetSwapping(Protocol):
    """Datasets next to the live one: candidates and replaced ones. `token` names those of one operation."""

    @property
    def private_folder(self) -> Path | None:
        """Return the folder of Holdfast's own data next to the live dataset, if it is a folder of this machine."""

    def copying(self) -> Copying:
        """Return how a restore point would be made now."""

    def copy_ahead(self, token: str) -> Facts:
        """Do what can be done of a copy of the live dataset while it is in use; return what `prepare` needs of it.

        It never makes writers wait noticeably. What it leaves is removed by `discard`. Raise HoldfastError where it
        fails; `prepare` then makes the whole copy.
        """

    def prepare(self, token: str, source: Path | None, facts: Facts) -> str:
        """Make a verified candidate from the live dataset (`source` is None) or from a dump; return its identity.

        A copy of the live one requires that it has no open sessions. Its `facts` are what `copy_ahead` returned for the
        same token, or empty. It equals the live dataset exactly, whatever was written after `copy_ahead`.

        For a dump, `facts` are those of its snapshot, its `tables` among them. `elsewhere` in them says that the dump
        comes from another environment, whose roles, grants and settings do not apply here. Idempotent: an earlier
        candidate of the token is replaced.
        """

    def load(self, token: str, source: DumpSource) -> str:
        """Make a candidate, as `prepare` does, from a dump that another tool made; it gets the live dataset's owner.

        Raise RefusedError for a format that the engine does not read, DamagedError for an incomplete dump.
        """

    def candidate(self, token: str, identity: str) -> AbstractContextManager[Countable]:
        """Return a reader of the operation's candidate with that identity. Idempotent.

        The candidate stays where it is. Raise StepError where it is gone.
        """

    def dump(self, token: str, identity: str, target: Path, budget_seconds: float) -> Snapshot:
        """Dump the operation's candidate or replaced dataset with this identity into a new file.

        It was copied from the live one, or was the live one before a swap: the dump is the same as one made then.
        The dataset stays. Idempotent. Raise StepError where it is gone, StepError or DamagedError where it cannot be
        read.
        """

    def swap(self, token: str, identity: str | None, aside: str) -> None:
        """Put the operation's dataset with that identity in place, and keep the present one under `aside`.

        With None, only the present one is moved. Decided by identity: if it is in place already, nothing happens.
        Idempotent, also where it was cut short. To put a restore point in place it may stop and start the engine's
        server, and take time (`copying` says so); whatever else the server keeps then goes back too.
        """

    def hand_over(self, token: str, name: str, *, rehearsal: bool = False) -> None:
        """Hand the candidate over as a dataset of its own under a name that is free. Idempotent.

        Raise RefusedError where the name is taken or not allowed. A rehearsal checks only that.
        """

    def discard(self, token: str) -> None:
        """Remove an operation's candidate and replaced datasets. Idempotent."""

    def tokens(self) -> list[str]:
        """Return the tokens of datasets that operations left next to the live one."""


class DatasetSessions(Protocol):
    """Ownership of a dataset, and the sessions that use it."""

    def owner(self) -> str | None:
        """Return the owner of the live dataset, where the engine itself keeps a marker."""

    def claim(self, owner: str) -> None:
        """Mark the live dataset as the owner's, where the engine itself keeps a marker. Idempotent."""

    def session_environment(self, operation: str) -> dict[str, str]:
        """Return the variables that mark sessions of the application's own commands as the operation's."""

    def end_sessions(self, operation: str) -> None:
        """End the sessions that a dead operation's commands left in the engine.

        Raise StepError if something still runs.
        """


class Dataset(DatasetReading, DatasetSwapping, DatasetSessions, Protocol):
    """One dataset of the application that is dumped, loaded and swapped as a whole."""
