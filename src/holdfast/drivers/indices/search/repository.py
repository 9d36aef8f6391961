"""Snapshots of an index in a repository of its server, and the records of them that backups keep."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Collection
from pathlib import Path

import msgspec

from holdfast.config.schema import Index
from holdfast.drivers.indices.search.client import JsonObject, SearchClient, SearchError
from holdfast.errors import DamagedError, RefusedError, StepError
from holdfast.system import durable

_WAIT_SECONDS = 0.1
_MOST_WAIT_SECONDS = 2.0
_BUSY = 503
_BUSY_SECONDS = 60.0


class SnapshotRecord(msgspec.Struct, frozen=True):
    """What a backup keeps of an index."""

    repository: str
    snapshot: str
    index: str
    rows: int
    version: str


class _Registered(msgspec.Struct):
    type: str
    settings: dict[str, str] = {}


class _Snapshot(msgspec.Struct):
    snapshot: str
    state: str = ""
    indices: list[str] = []


class _Snapshots(msgspec.Struct):
    snapshots: list[_Snapshot] = []


class _Health(msgspec.Struct):
    status: str
    timed_out: bool = False


class Repository:
    """The snapshot repository of one index."""

    def __init__(self, section: str, settings: Index, prefix: str, client: SearchClient) -> None:
        """Create it; `prefix` begins the names of the snapshots of this index."""
        self._section = section
        self._settings = settings
        self._prefix = prefix
        self._client = client

    @property
    def _path(self) -> str:
        return f"/_snapshot/{self._settings.repository}"

    def ensure(self) -> None:
        """Register and verify the repository; one of that name with other settings is never changed.

        Raise RefusedError for such a one, StepError where the server cannot use it.
        """
        found = self._registered()
        wanted = _Registered(self._settings.repository_type, self._settings.repository_settings)
        if found is None:
            if not wanted.type:
                raise RefusedError(
                    f"indices.{self._section}: the server has no snapshot repository {self._settings.repository}",
                    next_step="Register it, or set `repository_type` and `repository_settings`, so that Holdfast does.",
                )
            self._client.tell("PUT", self._path, {"type": wanted.type, "settings": wanted.settings})
        elif wanted.type and (found.type != wanted.type or not wanted.settings.items() <= found.settings.items()):
            raise RefusedError(
                f"indices.{self._section}: the server's repository {self._settings.repository} has other settings",
                next_step="Name another one as `repository`, or correct `repository_settings`.",
            )
        else:
            self._client.tell("POST", f"{self._path}/_verify")

    def _registered(self) -> _Registered | None:
        try:
            return self._client.ask(dict[str, _Registered], "GET", self._path)[self._settings.repository]
        except SearchError as error:
            if error.status != 404:
                raise
            return None

    def take(self, index: str, rows: int) -> SnapshotRecord:
        """Take a snapshot of an index; it has everything that was written before. Raise StepError."""
        self.ensure()
        name = f"{self._prefix}{secrets.token_hex(8)}"
        body = {"indices": index, "include_global_state": False}
        self._client.tell("PUT", f"{self._path}/{name}?wait_for_completion=false", body)
        state = self._wait(name)
        if state != "SUCCESS":
            raise StepError(f"indices.{self._section}: the snapshot {name} ended as {state}")
        version = ".".join(map(str, self._client.version))
        return SnapshotRecord(self._settings.repository, name, index, rows, version)

    def _wait(self, name: str) -> str:
        deadline, pause = time.monotonic() + self._settings.timeout_seconds, _WAIT_SECONDS
        while time.monotonic() < deadline:
            (found,) = self._client.ask(_Snapshots, "GET", f"{self._path}/{name}").snapshots
            if found.state not in ("IN_PROGRESS", "STARTED", ""):
                return found.state
            time.sleep(pause)
            pause = min(2 * pause, _MOST_WAIT_SECONDS)
        raise StepError(
            f"indices.{self._section}: a snapshot takes longer than {self._settings.timeout_seconds:g} s",
            next_step=f"Raise `timeout_seconds` of indices.{self._section}.",
        )

    def restore(self, record: SnapshotRecord, name: str) -> None:
        """Restore the index of a record under a new name, without its aliases. Raise DamagedError, StepError."""
        path = f"/_snapshot/{record.repository}/{record.snapshot}"
        if self._settings.repository == record.repository:
            self.ensure()
        body: JsonObject = {
            "indices": record.index,
            "include_global_state": False,
            "include_aliases": False,
            "rename_pattern": ".+",
            "rename_replacement": name,
        }
        try:
            self._client.tell("POST", f"{path}/_restore?wait_for_completion=false", body)
        except SearchError as error:
            if error.status != 404:
                raise
            raise DamagedError(
                f"indices.{self._section}: the snapshot {record.snapshot} is gone from the repository"
            ) from error
        wait_complete(self._section, self._client, name, self._settings.timeout_seconds)

    def drop(self, keep: Collection[str]) -> list[str]:
        """Delete the snapshots of this index that are not to be kept; return their names. Idempotent."""
        if self._registered() is None:
            return []
        found = self._client.ask(_Snapshots, "GET", f"{self._path}/{self._prefix}*?ignore_unavailable=true")
        names = [one.snapshot for one in found.snapshots if one.snapshot not in keep]
        for name in names:
            self.delete(name)
        return names

    def delete(self, name: str) -> None:
        """Delete a snapshot. Idempotent. The server refuses that for a moment after a restore, so it is asked again."""
        limit = self._settings.timeout_seconds
        deadline = time.monotonic() + min(limit, _BUSY_SECONDS)
        while True:
            try:
                self._client.ask(JsonObject, "DELETE", f"{self._path}/{name}", timeout_seconds=limit)
                return
            except SearchError as error:
                if error.status == 404:
                    return
                if error.status != _BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(_WAIT_SECONDS)


def wait_complete(section: str, client: SearchClient, name: str, limit_seconds: float) -> None:
    """Wait until every primary shard of an index is there. Raise StepError where it is not in time."""
    deadline = time.monotonic() + limit_seconds
    while time.monotonic() < deadline:
        try:
            health = client.ask(_Health, "GET", f"/_cluster/health/{name}?wait_for_status=yellow&timeout=5s")
        except SearchError as error:
            if error.status != 408:  # the server answers so where the time is over
                raise
            continue
        if not health.timed_out and health.status != "red":
            return
    raise StepError(f"indices.{section}: the index {name} is not complete after {limit_seconds:g} s")


def write_record(record: SnapshotRecord, target: Path) -> None:
    """Write a record with its digest into a new file that only its owner can read."""
    text = msgspec.json.encode(record)
    target.touch(0o600)
    with open(target, "wb") as file:
        file.write(text + b"\n" + hashlib.sha256(text).hexdigest().encode() + b"\n")
    durable.sync_file(target)


def read_record(section: str, source: Path) -> SnapshotRecord:
    """Return the record in a file. Raise DamagedError."""
    text, _, digest = source.read_bytes().partition(b"\n")
    if digest.strip().decode(errors="replace") != hashlib.sha256(text).hexdigest():
        raise DamagedError(f"indices.{section}: {source.name} is not a complete record of a snapshot")
    return msgspec.json.decode(text, type=SnapshotRecord)
