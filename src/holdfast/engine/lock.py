"""Locks that die with their process: flock(2) plus a record of the owner for messages."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

import msgspec
from msgspec.structs import asdict

from holdfast.errors import BusyError
from holdfast.system import durable, processes

LOCK_ORDER = ("change", "backup", "gate")
"""The order in which several locks are taken, so that two commands never wait for each other."""


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def pid_namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


def process_start_ticks(pid: int) -> int | None:
    """Return the start of a process in clock ticks since boot ; None if it is gone."""
    try:
        return processes.started(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None


class Owner(msgspec.Struct, frozen=True):
    """The holder of a lock or an operation, with enough to tell it from a later process with the same pid."""

    pid: int
    start_ticks: int
    boot_id: str
    pid_namespace: str
    what: str
    since: str
    host: str = ""
    user: str = ""
    command: str = ""
    """What was typed; empty if that is not known."""

    @classmethod
    def of_this_process(cls, what: str, command: str = "") -> Owner:
        return cls(
            pid=os.getpid(),
            start_ticks=process_start_ticks(os.getpid()) or 0,
            boot_id=boot_id(),
            pid_namespace=pid_namespace(),
            what=what,
            since=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            host=os.uname().nodename,
            user=_user(),
            command=command,
        )

    def alive(self) -> bool:
        """Return whether that very process runs; True if this namespace cannot see its pid."""
        if self.boot_id != boot_id():
            return False
        if self.pid_namespace != pid_namespace():
            return True
        return process_start_ticks(self.pid) == self.start_ticks

    def __str__(self) -> str:
        by = f", by {self.user} on {self.host}" if self.user else ""
        typed = f": {self.command}" if self.command else ""
        return f"{self.what} (process {self.pid}, since {self.since}{by}{typed})"


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


class Lock:
    """One flock on one file. Shared locks leave no owner record."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def acquire(
        self,
        what: str,
        *,
        wait_seconds: float = 0,
        shared: bool = False,
        command: str = "",
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Lock:
        """Take the lock, waiting at most `wait_seconds` (monotonic). Raise BusyError naming the holder.

        `command` is what was typed, for the message of another command.
        """
        durable.make_directory(self._path.parent)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline or cancelled():
                    holder = self._read_owner()
                    os.close(descriptor)
                    raise BusyError(
                        f"{holder or 'another command'} is running; {what} cannot start at the same time",
                        next_step="Wait for it to end (`holdfast status` shows it), then run the command again.",
                    ) from None
                time.sleep(0.05)
        self._descriptor = descriptor
        if not shared:
            record = json.dumps(asdict(Owner.of_this_process(what, command))).encode()
            try:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, record, 0)
            except OSError:
                pass  # the lock holds without the record, which only names its holder; a disk may be full
        return self

    def _read_owner(self) -> Owner | None:
        try:
            return Owner(**json.loads(self._path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def holder(self) -> Owner | None:
        """Return the living holder of an exclusive lock, or None when the lock is free."""
        try:
            descriptor = os.open(self._path, os.O_RDWR)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            return self._read_owner()
        finally:
            os.close(descriptor)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def release_all(locks: Iterable[Lock]) -> None:
    for lock in locks:
        lock.release()
