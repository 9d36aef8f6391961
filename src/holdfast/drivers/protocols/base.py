"""What a driver of each kind must do. Small protocols; every driver and every fake passes the suite in tests/contract.

All methods may raise HoldfastError subclasses and OSError. "May be repeated" means: a second call after a
success, or after a kill in the middle of the first, ends in the same state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from holdfast.drivers.interchange.dump_source import Foreign
from holdfast.model import (
    Backup,
    Changed,
    Entry,
    Facts,
    GateState,
    Newer,
    Package,
    Problem,
    ServiceInstance,
    ServiceStatus,
    Snapshot,
    Stored,
)

Progress = Callable[[int, int | None, str], None]
"""Called with what is done, the total if known, and the unit (`bytes` or `files`)."""

Fetch = Callable[[Entry, int], None]
"""Writes the content of a listed file to an open descriptor. Raises DamagedError if its digest differs."""

OpenSet = tuple[Backup, Callable[[str], Iterator[Entry]], Fetch, Path]
"""Manifest, listing of a files dataset by its name, content, and the folder of a set."""


class Runtime(Protocol):
    """Where services run. Instances are found by name; nothing starts by itself after a reboot."""

    def prepare(self) -> None:
        """Makes the runtime answer, starting it if it is ours. May be repeated."""

    def statuses(self) -> dict[str, ServiceStatus]:
        """All known instances, empty while the runtime is down."""

    def start(self, instance: ServiceInstance) -> None:
        """Starts an instance, replacing another definition of that name; a running equal one stays. May be repeated.

        Returns once it is begun: whether it stays up and is well is for the caller to verify. Raises StepError.
        """

    def stop(self, name: str) -> None:
        """Stops and forgets an instance; an unknown one is fine. May be repeated."""

    def release_of(self, name: str) -> str | None:
        """The release that the running process of an instance was really started from."""

    def output_tail(self, name: str) -> str:
        """The last lines an instance printed."""

    def shut_down(self) -> None:
        """Stops every instance and the runtime itself if it is ours. May be repeated."""

    def check(self) -> list[Problem]: ...


Fix = Callable[[Path, Sequence[str], float], Callable[[], Snapshot]]
"""Fixes the instant of a dump into a new file, with queries to be answered and the seconds that counting rows may take.
What it returns finishes the dump."""


FixAll = Callable[[Sequence[tuple[Path, Sequence[str]]], float], list[Callable[[], Snapshot]]]
"""The same of several databases at one instant, each with its own file and queries."""


class DatabaseReading(Protocol):
    """Looking at one database of the application, and copying it."""

    kind: str
    extension: str
    copied_by: str
    """How a restore point is made, for people."""

    def inspect(self) -> Facts:
        """`exists`, `identity` (survives renames, changes with a swap), `size_bytes`, `tool`.

        `data_folder` where a server on this machine keeps its databases, if that can be known.
        """

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a read-only query on the live database."""

    def tables(self, *, budget_seconds: float = 10) -> dict[str, Facts]:
        """Per table `columns` and exact `rows`; rows not counted within the budget are None.

        Small tables are counted first where the engine knows which those are.
        """

    def hold(self, limit_seconds: float | None) -> AbstractContextManager[Fix]:
        """Holds writers until the instant is fixed, after which they go on as soon as the engine can; None: not at all.

        Raises StepError if writers cannot be held in time.
        """

    def hold_with(self, others: Sequence[Database]) -> AbstractContextManager[FixAll] | None:
        """Fixes the instant of this database and then others by one transaction, holding no writers.

        None where their engine has no transaction that sees all of them.
        """

    def check(self) -> list[Problem]:
        """What stands against an operation on it, as `error`, and what an operator should know."""


class DatabaseSwapping(Protocol):
    """Databases beside the live one. `token` names one operation's."""

    @property
    def private_folder(self) -> Path | None:
        """Where what is Holdfast's own lies beside the live database, if that is a folder of this machine."""

    def prepare(self, token: str, source: Path | None, facts: Facts) -> str:
        """A candidate beside the live database, from it (None, no open sessions allowed) or from a dump; verified.

        `facts` are those of the dump's snapshot, its `tables` among them. With `elsewhere` in them it is another
        environment's, whose roles, grants and settings mean nothing here. Returns its identity. May be repeated: an
        earlier candidate of the token is replaced.
        """

    def load(self, token: str, source: Foreign) -> str:
        """A candidate as by `prepare`, from a dump that another tool made, owned as the live database is.

        Raises RefusedError for a format that the engine does not read, DamagedError for a dump that is not whole.
        """

    def dump(self, token: str, identity: str, target: Path, budget_seconds: float) -> Snapshot:
        """Dumps into a new file, of an operation's databases beside the live one, that with this identity.

        It was copied from the live database, or was the live one before a swap: the dump is as if made then. The
        database stays. May be repeated. Raises StepError where it is gone, StepError or DamagedError where it cannot
        be read.
        """

    def swap(self, token: str, identity: str | None, aside: str) -> None:
        """Puts the operation's database with that identity in place (None: nothing), the present one under `aside`.

        Decided by identity: if it is in place already nothing happens. May be repeated.
        """

    def hand_over(self, token: str, name: str, *, rehearsal: bool = False) -> None:
        """Gives the candidate away as a database of its own under a name that is free. May be repeated.

        Raises RefusedError where the name is taken or may not be given. A rehearsal finds that out and does no more.
        """

    def discard(self, token: str) -> None:
        """Removes what an operation left beside the live database. May be repeated."""

    def tokens(self) -> list[str]:
        """Of what operations left beside the live database."""


class DatabaseSessions(Protocol):
    """Whose a database is, and who uses it."""

    def owner(self) -> str | None:
        """Who claimed the live database, where the engine itself keeps that."""

    def claim(self, owner: str) -> None:
        """Marks the live database as the owner's, where the engine itself keeps that. May be repeated."""

    def session_environment(self, operation: str) -> dict[str, str]:
        """What makes the sessions of the application's own commands known as the operation's."""

    def end_sessions(self, operation: str) -> None:
        """Ends what a dead operation's commands still do in the engine. Raises StepError if something goes on."""


class Database(DatabaseReading, DatabaseSwapping, DatabaseSessions, Protocol):
    """One database of the application."""


class Cold(Protocol):
    """Reading a database out of the files of a server that was shut down."""

    def known(self, scratch: Path, unpacked: Path, newest: int) -> bool:
        """Whether what is unpacked so far tells its version. Raises RefusedError where that cannot be read here."""

    def dump(self, scratch: Path, unpacked: Path, newest: int) -> Path:
        """Dumps the wanted database of files below `unpacked`, which are changed; nothing of it runs afterwards.

        Raises RefusedError for files of a server that was running, or that cannot be read here.
        """

    def end(self, scratch: Path) -> None:
        """Ends what runs in a scratch folder. May be repeated. Raises StepError if something goes on."""

    def end_operation(self, operation: str) -> None:
        """Ends what a dead operation's commands still do in containers. May be repeated. Raises StepError."""


def never() -> bool:
    return False


class WatchedTree(Protocol):
    """A tree whose changes are noticed from the moment at which a directory of it is read."""

    def scan(self, by_name: Callable[[], bool]) -> Iterator[Entry]:
        """As that of `Files`."""

    def changed(self) -> Changed | None:
        """What changed since it was read, or since this was asked; None, for ever, where only a scan can tell."""

    def look(self, changed: Changed) -> Iterator[Entry]:
        """What is now at the paths that changed, in the order of a scan."""

    def close(self) -> None: ...


class Files(Protocol):
    """One tree of files. Restored by difference: staged beside, then moved by rename."""

    root: Path

    def scan(self, by_name: Callable[[], bool] = never) -> Iterator[Entry]:
        """Every entry below the root in one fixed order, without content.

        While `by_name` answers true, regular files may come without having been looked at: with an empty `mode`.
        """

    def watched(self) -> WatchedTree | None:
        """The same tree, watched from now on; None where its changes are not reported."""

    def open(self, entry: Entry) -> int:
        """A descriptor to read an entry's content. Raises FileNotFoundError if it vanished."""

    def complete(self, entry: Entry, descriptor: int) -> None:
        """Fills in what only an open file tells: extended attributes, and the data segments of one with holes."""

    def for_worker(self) -> Files | None:
        """The same tree in a form that another process of ours can be given; None where only this one can read it."""

    def stage(self, token: str, wanted: Iterable[Entry], fetch: Fetch, check: Callable[[], None]) -> int:
        """Prepares the moves that make the tree equal to `wanted`; changes nothing visible. Returns their number."""

    def refuse_mounts(self) -> None:
        """Raises RefusedError where a mount inside of the tree would keep its moves from being taken back."""

    def workspace(self, token: str) -> Path:
        """An empty folder beside the tree that only Holdfast can enter, whoever owns the tree; gone by `discard`."""

    def staged(self, token: str) -> bool:
        """Whether all moves of a token are staged."""

    def apply(self, token: str) -> None:
        """Carries out the staged moves. May be repeated."""

    def revert(self, token: str) -> None:
        """Takes the moves back, in reverse. May be repeated; without staged moves nothing happens."""

    def discard(self, token: str) -> None:
        """Removes what an operation left beside the tree. May be repeated."""

    def check(self) -> list[Problem]: ...


class VaultRun(Protocol):
    """An unfinished set in the vault; invisible until published."""

    id: str
    folder: Path

    def store_tree(
        self, name: str, files: Files, *, keep_vanished: bool, check: Callable[[], None], progress: Progress
    ) -> Stored:
        """Stores a tree; called again it stores what changed since and makes that the set's listing."""

    def read_tree(
        self, name: str, files: Files, *, keep_vanished: bool, check: Callable[[], None], progress: Progress
    ) -> Callable[[], Stored]:
        """As `store_tree`, but what is left to do when the tree was read is done by the call that is returned.

        That grows with the tree; reading, after the first time, with what changed, where the changes are reported.
        """

    def listing(self, name: str) -> Iterator[Entry]:
        """The listing as stored so far."""

    def choose(self, name: str, listing: Iterator[Entry]) -> None:
        """Replaces a listing, as when an earlier reading of a file is the one that its row means."""

    def finish(self, manifest: Backup) -> None:
        """Writes sums and manifest and makes everything durable; the set is complete but not yet listed."""


class Vault(Protocol):
    """Where backups are kept. A set exists once published, and only whole."""

    def begin(self, run: str) -> VaultRun:
        """Opens an unfinished set under a run id, replacing an earlier attempt of that id."""

    def resume(self, run: str) -> tuple[VaultRun, Backup]:
        """A finished run that is not published, and its manifest: to be added to and finished again, as often as needed.

        Raises NotFoundError or DamagedError.
        """

    def run(self, run: str) -> VaultRun:
        """An unfinished set begun by this process. Raises KeyError."""

    def new_id(self) -> str:
        """A set id that no other set has, from the UTC time."""

    def folder(self, id: str) -> Path:
        """Where the files of a committed set are."""

    def damaged(self) -> list[str]:
        """Sets whose manifest does not verify: never listed, never swept."""

    def publish(self, run: str) -> str:
        """The commit: lists a finished run; returns the set's id. May be repeated."""

    def abandon(self, run: str) -> None:
        """Removes an unfinished run; a published or unknown one is left alone. May be repeated."""

    def backups(self) -> list[Backup]:
        """Committed sets by sequence number, oldest first; damaged ones are left out and reported by `verify`."""

    def verify(self, id: str | None, progress: Progress, check: Callable[[], None]) -> list[str]:
        """Every byte of one set (None: of the whole vault); a list of what is wrong, empty when whole."""

    def open_set(self, id: str) -> OpenSet:
        """Manifest, listings, content and folder of a set. Raises DamagedError before anything is given out."""

    def open_run(self, run: str) -> OpenSet:
        """As `open_set`, of a finished run that is not published."""

    def prune(self, remove: Sequence[str], run: str) -> Mapping[str, int]:
        """Removes sets and what no set references any more; pinned ones are refused. May be repeated.

        No other run may be under way: those that operations left are removed too.
        """

    def remove(self, id: str) -> None:
        """Removes a set that another one replaces; what it alone used goes with the next prune.

        May be repeated.
        """

    def pin(self, id: str, by: str, pinned: bool) -> None:
        """Sets or takes back a pin of an operation or of the operator. May be repeated."""


class Gate(Protocol):
    """How visitors are held."""

    def state(self) -> GateState: ...

    def close(self, reason: Mapping[str, Any], preview_target: str | None = None) -> None:
        """Holds visitors for an operation; returns once no visitor's request is under way. May be repeated.

        With a preview target, the holder of the secret cookie (`GateState.preview_token`) is let through to it.
        """

    def open(self) -> None:
        """Ends an operation's hold; an operator's own stays. May be repeated."""

    def hold(self, reason: Mapping[str, Any] | None) -> None:
        """Sets or ends the operator's own maintenance. May be repeated."""

    def route(self, release: str, target: str) -> None:
        """Sends visitors to another web, after draining the one before. May be repeated."""

    def answers(self) -> bool:
        """Whether the gate can hold and relay now: its own server runs, where it has one."""

    def instance(self) -> ServiceInstance | None:
        """The gate's own server as a service, or None where the proxy is the user's."""

    def check(self) -> list[Problem]: ...


class Proxy(Protocol):
    """What a gate has beside that is the user's own proxy."""

    @property
    def is_inside(self) -> bool:
        """Whether it runs in a container, and reaches others over a network of theirs."""

    def try_out(self, target: str) -> None:
        """Proves that a web which visitors are not led to is reached through the proxy. May be repeated. Raises StepError."""


class References(Protocol):
    """The repository that packages are built from."""

    def resolve(self, reference: str) -> tuple[str, str]:
        """Full commit and label of a tag, branch or commit (short ones too). Raises NotFoundError."""

    def file_of(self, commit: str, name: str) -> str | None:
        """The text of a file at a commit, None if it has none."""

    def fetch(self) -> None:
        """Brings what the repository's remote has. May be repeated. Raises StepError."""

    def newer(self, commit: str) -> Newer:
        """What is newer than a commit, as far as it is known here. Raises NotFoundError where the commit is not."""


class Packages(References, Protocol):
    """Immutable builds."""

    def build(self, commit: str, label: str, run: str) -> Package:
        """Builds and stores a package; one that is there with the same recipe is returned. May be repeated."""

    def abandon(self, run: str) -> None:
        """Removes an unfinished build. May be repeated."""

    def packages(self) -> list[Package]: ...

    def unpack(self, package: Package, target: Path, marker: Mapping[str, Any]) -> None:
        """Makes a release folder that did not exist: the tree, its dependencies, then the marker as the commit."""

    def adopt(self, archive: Path) -> Package:
        """Takes an archive out of a backup into the store. May be repeated. Raises DamagedError."""

    def remove(self, id: str) -> None:
        """Removes a package. May be repeated."""
