"""Frozen values that every layer shares. This module does no I/O."""

from __future__ import annotations

import base64
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypedDict

import msgspec

Facts = dict[str, Any]
"""What a step records for its undo: ids, digests, names, paths, numbers. JSON values only, never secrets."""


class StepState(enum.StrEnum):
    PENDING = "pending"
    DOING = "doing"
    DONE = "done"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"
    UNDO_FAILED = "undo_failed"


class Outcome(enum.StrEnum):
    """The outcome of an operation; `open` while it runs or waits for `recover`."""

    OPEN = "open"
    COMMITTED = "committed"
    UNDONE = "undone"
    DEGRADED = "degraded"
    STUCK = "stuck"
    SUPERSEDED = "superseded"
    ABANDONED = "abandoned"


class PlannedStep(Protocol):
    """One entry of a plan. `name` is `family.verb`, stored in journals and never renamed, as are the parameters."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def parameters(self) -> Mapping[str, Any]: ...


class ServiceInstance(msgspec.Struct, frozen=True):
    """One service of one release as the runtime knows it; `name` is unique in the application."""

    name: str
    service: str
    kind: str
    release: str
    directory: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    port: int | None = None
    user: str | None = None
    stop_signal: str = "TERM"
    stop_timeout_seconds: int = 10
    keep_running: bool = True
    comes_back: bool = True
    """Whether the runtime may start it again after a boot; not before the commit."""
    port_inside: int = 0
    """The port on which it listens in its container, from the configuration of its release; 0 if not configured."""
    files: Mapping[str, str] = {}
    """Files in its directory that are written when it starts, each with its template there."""


class ServiceStatus(msgspec.Struct, frozen=True):
    name: str
    running: bool
    pid: int | None
    uptime_seconds: float
    """A lower bound of the uptime of the present process."""
    detail: str = ""
    healthy: bool | None = None
    """The result of the runtime's own health check; None if it has none."""
    holds_port: bool = False
    """Whether the runtime itself holds the port, so that no other process can use it."""


class ReleaseCommand(msgspec.Struct, frozen=True):
    """A command that runs in the way a service of a release does."""

    service: str
    directory: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    """Its variables, with resolved secrets."""
    user: str = ""
    """The account that it runs as on this machine, if Holdfast runs as root."""

    def __repr__(self) -> str:
        """Return all but the secrets."""
        return f"ReleaseCommand(service={self.service!r}, directory={self.directory!r}, argv={self.argv!r})"


class Running(msgspec.Struct, frozen=True):
    """A container of a service that Holdfast did not start; `port` is its published port on this machine."""

    id: str
    image: str
    port: int | None = None


class Release(msgspec.Struct, frozen=True):
    """A package that was deployed here at one time."""

    id: str
    package: str
    label: str
    commit: str
    path: str
    deployed_at: str
    operation: str = ""


class CommitFacts(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The facts of a commit: the release that it makes current, and what the steps recorded."""

    release: Release | None = None
    set_id: str | None = None
    package: str | None = None
    warnings: tuple[str, ...] = ()


class PlanParameters(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The parameters of a whole plan, which the journal keeps with it."""

    planned_after: int | None = None
    """The newest change when the plan was made; it is refused after another one."""
    commit_facts: CommitFacts = CommitFacts()
    supersedes: str | None = None
    """The stuck operation that this one replaces."""
    known_services: tuple[str, ...] | None = None
    """The services before the release's own configuration; any other is new and starts with the release."""
    previous: Release | None = None
    mode: str | None = None
    level: str | None = None
    set: str | None = None
    start_all: bool = False
    reason: str | None = None
    """Why unsanitized data may leave production."""
    remove: tuple[str, ...] | None = None


class Plan(msgspec.Struct, frozen=True):
    """An ordered list of steps; those in `after_commit` run only forward, once the commit is durable.

    `lock` is `change`, `backup` or `gate`; the operator reads `notes` before anything runs.
    """

    kind: str
    title: str
    steps: tuple[PlannedStep, ...]
    after_commit: tuple[PlannedStep, ...] = ()
    lock: str = "change"
    also_locks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    parameters: PlanParameters = msgspec.field(default_factory=PlanParameters)
    barrier_paths: tuple[str, ...] = ()

    @property
    def all_steps(self) -> tuple[PlannedStep, ...]:
        return self.steps + self.after_commit


class Problem(msgspec.Struct, frozen=True):
    """A finding of `check`: what, how bad (`error`, `warning`, or a `note` that needs no action), what to run.

    `in_content`: the problem is in data that a restore replaces, so it does not prevent a restore.
    """

    subject: str
    severity: str
    message: str
    advice: str = ""
    in_content: bool = False


JsonObject = dict[str, object]
"""A JSON object whose values are looked at before they are used."""


class GateState(msgspec.Struct, frozen=True):
    """The state of a gate: `hold` is the operator's maintenance, `operation` an operation's; it is open without both.

    `target` is host:port of the web that visitors reach, `release` the committed release that it serves.
    """

    release: str | None = None
    target: str | None = None
    hold: Mapping[str, object] | None = None
    operation: Mapping[str, object] | None = None
    preview_target: str | None = None
    preview_token: str | None = None

    @property
    def open(self) -> bool:
        return self.hold is None and self.operation is None


class Entry(msgspec.Struct, omit_defaults=True, rename={"kind": "type"}, gc=False):  # millions, never in a cycle
    """One line of a listing: a file, directory, symlink or named pipe of a files dataset.

    `mode` is octal text as chmod takes it; `sparse` lists [offset, length] of the data in a file with holes.
    `hardlink` groups names of one file; `path_base64` carries the exact bytes of a name that is not UTF-8.
    A file that was named but not yet looked at has an empty `mode`.
    """

    path: str
    kind: str
    mode: str
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    ctime_ns: int = 0
    inode: int = 0
    sha256: str = ""
    target: str = ""
    target_base64: str = ""
    hardlink: str = ""
    xattrs: dict[str, str] = {}
    sparse: list[tuple[int, int]] = []
    path_base64: str = ""
    recent: bool = False

    def raw_path(self) -> bytes:
        """Return the exact path below the root."""
        return base64.b64decode(self.path_base64) if self.path_base64 else self.path.encode()

    def raw_target(self) -> bytes:
        return base64.b64decode(self.target_base64) if self.target_base64 else self.target.encode()

    def order(self) -> bytes:
        """Return a key that sorts a directory before its contents and siblings by name; no name contains NUL."""
        return self.raw_path().replace(b"/", b"\0")


class Changed(msgspec.Struct, frozen=True):
    """Paths below the root of a tree: `entries` that changed themselves, `trees` with everything below them."""

    entries: frozenset[bytes] = frozenset()
    trees: frozenset[bytes] = frozenset()

    def __or__(self, other: Changed) -> Changed:
        return Changed(self.entries | other.entries, self.trees | other.trees)

    def covers(self, path: bytes) -> bool:
        """Return whether an entry at a path may have changed."""
        if path in self.entries:
            return True
        while self.trees and path:
            if path in self.trees:
                return True
            path = path.rpartition(b"/")[0]
        return False


class Server(msgspec.Struct, frozen=True):
    """A database server as its clients reach it. `password` is a secret reference; empty values mean defaults.

    Defaults are those of the clients. If `container` is set (`docker:NAME`), clients run inside it, and host and port
    are as seen from there. If it is only `docker:`, `find_container` returns the name when it is first needed.
    """

    host: str = ""
    port: int = 0
    user: str = ""
    password: str = ""
    maintenance: str = "postgres"
    end_sessions: bool = False
    jobs: int = 2
    container: str = ""
    find_container: Callable[[], str] | None = None


class Copying(msgspec.Struct, frozen=True):
    """The way a dataset's restore point would be made now, as operators read it."""

    made: str
    ahead: str = ""
    """What `copy_ahead` does before the window; empty where it does nothing."""
    back: str = "puts it back by a rename"
    """What an undo does."""
    why: str = ""
    """The reason why a quicker way cannot be taken, if there is one."""


class Snapshot(msgspec.Struct, frozen=True):
    """A database's dump at one instant.

    It has the rows and columns of its tables, what the engine must know to load it again, and the rows that queries
    returned at the same instant.
    """

    tables: Mapping[str, Facts]
    facts: Facts = msgspec.field(default_factory=dict)
    answers: Sequence[list[tuple[Any, ...]]] = ()
    held_seconds: float = 0.0
    schema_version: str = ""
    """What the application itself keeps of its schema outside of tables; empty if the engine has no place for it."""


class Stored(msgspec.Struct):
    """Totals of one dataset in a backup; bytes are those of the files, `new_bytes` those written to the vault."""

    files: int = 0
    size_bytes: int = 0
    new_bytes: int = 0
    read_files: int = 0


class StoredFile(TypedDict):
    """A file in a backup's own folder, as its manifest names it."""

    size_bytes: int
    sha256: str


class Backup(msgspec.Struct):
    """The manifest of one committed backup, as it is listed and shown."""

    id: str
    sequence: int
    created_at: str
    instant: str
    consistency: str
    application: str
    environment: str
    operation: str
    release: dict[str, Any]
    datasets: dict[str, dict[str, Any]]
    packs: list[str]
    holdfast_version: str
    size_bytes: int
    new_bytes: int
    reason: str = ""
    safety: bool = False
    """Whether it contains what an operation replaced; `latest` never means such a backup."""
    secrets_inside: bool = False
    files: dict[str, StoredFile] = {}
    pinned: bool = False
    verified_at: str = ""
    instants_apart_seconds: float = 0.0
    """The time between the first and the last database's instant, if they were not held together."""
    writer_held_seconds: float = 0.0
