"""A key space of a Redis server: one of its numbered databases, swapped with another one by SWAPDB.

Facts from the documentation and tried on 7.0: SWAPDB shows every client the other content at once, and is atomic with
the other commands of a transaction; DUMP and RESTORE carry a key of any type; a script sees one instant. What stands
next to a key space is in the upper half of the server's databases; its last one has a hash per key space that names
them. The server has to run with `appendfsync always`, so that a change is durable when it is answered.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from holdfast.drivers.databases.opening import Opening
from holdfast.drivers.interchange.dump_source import DumpSource
from holdfast.drivers.protocols.datasets import Dataset, SnapshotFn
from holdfast.errors import DamagedError, RefusedError, StepError
from holdfast.model import Copying, Facts, Problem, Snapshot

_ORIGINAL = "original"
_SECONDS = 10.0
# All keys of the selected database, each with the instant at which it expires and its content.
_ALL = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  found[#found + 1] = {key, redis.call('PEXPIRETIME', key), redis.call('DUMP', key)}
end
return found
"""
_Keys = list[tuple[bytes, int, bytes]]


@dataclass(frozen=True)
class Place:
    """One numbered database that belongs to the key space; the live one has no token."""

    identity: str
    token: str = ""
    vacant: bool = False
    """Whether nothing was put there since what it had was moved away."""


class RedisKeySpace:
    kind = "redis"
    extension = "redis"

    def __init__(self, name: str, socket: Path, number: int) -> None:
        self.name = name
        self.private_folder: Path | None = None
        self._socket = socket
        self._number = number
        self._registry = f"holdfast:{number}"

    # --- the server --------------------------------------------------------------------------------

    @contextmanager
    def _client(self, number: int | None = None) -> Iterator[redis.Redis]:
        """Open a connection to a database; without a number, to the last one, which has the registry."""
        try:
            if number is None:
                with closing(redis.Redis(unix_socket_path=str(self._socket), socket_timeout=_SECONDS)) as asked:
                    number = int(asked.config_get("databases")["databases"] or 0) - 1
            with closing(redis.Redis(unix_socket_path=str(self._socket), db=number, socket_timeout=_SECONDS)) as client:
                yield client
        except redis.exceptions.RedisError as error:
            raise StepError(f"database {self.name}: Redis says: {error}") from error

    def _places(self) -> dict[int, Place]:
        with self._client() as client:
            found = {int(number): Place(**json.loads(text)) for number, text in client.hgetall(self._registry).items()}
        return {self._number: Place(_ORIGINAL), **found}

    def _record(self, pipeline: Any, places: Mapping[int, Place | None]) -> None:
        for number, place in places.items():
            if place is None:
                pipeline.hdel(self._registry, str(number))
            else:
                pipeline.hset(self._registry, str(number), json.dumps(place.__dict__))

    def _free(self) -> int:
        places = self._places()
        with self._client() as client:
            last = int(client.connection_pool.connection_kwargs["db"])
            used = {int(key.removeprefix("db")) for key in client.info("keyspace")}
        for number in range(last // 2, last):
            if number not in places and number not in used:
                return number
        raise StepError(f"database {self.name}: the server has no free database in its upper half")

    def _find(self, identity: str) -> int:
        for number, place in self._places().items():
            if place.identity == identity and number != self._number:
                return number
        raise StepError(f"database {self.name}: the key space {identity} is gone")

    # --- looking -----------------------------------------------------------------------------------

    def inspect(self) -> Facts:
        place = self._places()[self._number]
        with self._client(self._number) as client:
            keys = client.dbsize()
            exists = keys > 0 or (not place.vacant and place.identity != _ORIGINAL)
            info = client.info()
        return {
            "exists": exists,
            "identity": place.identity if exists else None,
            "size_bytes": int(info["used_memory"]) if exists else 0,
            "tool": f"Redis {info['redis_version']}",
        }

    def tables(self, *, budget_seconds: float = 10) -> dict[str, Facts]:
        return self._tables(self._number)

    def _tables(self, number: int) -> dict[str, Facts]:
        with self._client(number) as client:
            return {"keys": {"rows": int(client.dbsize()), "columns": []}}

    def check(self) -> list[Problem]:
        with self._client() as client:
            durable = client.config_get("append*")
        if (durable["appendonly"], durable["appendfsync"]) == ("yes", "always"):
            return []
        advice = "Set `appendonly yes` and `appendfsync always` in redis.conf."
        return [Problem(f"databases.{self.name}", "error", "the server may lose what it has answered", advice)]

    # --- dumps -------------------------------------------------------------------------------------

    def joint_snapshot(self, others: Sequence[Dataset]) -> None:
        """Return None: no transaction sees several servers."""

    @contextmanager
    def freeze_writes(self, limit_seconds: float | None) -> Iterator[SnapshotFn]:
        if not self.inspect()["exists"]:
            raise StepError(f"database {self.name}: writers cannot be held: there is no such key space")
        began = time.monotonic()
        if limit_seconds is not None:
            self._pause(limit_seconds)

        def fix(target: Path, queries: Sequence[str], budget_seconds: float) -> Callable[[], Snapshot]:
            if queries:
                raise RefusedError(f"database {self.name}: Redis answers no SQL")
            keys = self._keys(self._number)
            held = time.monotonic() - began if limit_seconds is not None else 0.0
            if limit_seconds is not None:
                self._go_on()
            return lambda: self._write(keys, target, held)

        try:
            yield fix
        finally:
            if limit_seconds is not None:
                self._go_on()

    def _pause(self, limit_seconds: float) -> None:
        with self._client() as client:  # the pause ends by itself, should Holdfast be killed
            client.client_pause(int((limit_seconds + _SECONDS) * 1000), all=False)

    def _go_on(self) -> None:
        with self._client() as client:
            client.client_unpause()

    def _keys(self, number: int) -> _Keys:
        with self._client(number) as client:
            return sorted(
                (bytes(key), int(expires), bytes(content)) for key, expires, content in client.eval_ro(_ALL, 0)
            )

    @staticmethod
    def _write(keys: _Keys, target: Path, held_seconds: float = 0.0) -> Snapshot:
        digest = hashlib.sha256()
        target.touch(0o600)
        with open(target, "wb") as file:
            for key, expires, content in keys:
                line = json.dumps(
                    [base64.b64encode(key).decode(), expires, base64.b64encode(content).decode()]
                ).encode()
                digest.update(line)
                file.write(line + b"\n")
            file.write(json.dumps({"keys": len(keys), "sha256": digest.hexdigest()}).encode() + b"\n")
        return Snapshot({"keys": {"rows": len(keys), "columns": []}}, held_seconds=held_seconds)

    def _read(self, source: Path) -> _Keys:
        """Return the keys of a dump. Raise DamagedError."""
        *lines, last = source.read_bytes().splitlines() or [b""]
        try:
            end = json.loads(last)
            whole = end == {"keys": len(lines), "sha256": hashlib.sha256(b"".join(lines)).hexdigest()}
        except ValueError:
            whole = False
        if not whole:
            raise DamagedError(f"database {self.name}: {source.name} is not a complete dump")
        return [
            (base64.b64decode(key), expires, base64.b64decode(text)) for key, expires, text in map(json.loads, lines)
        ]

    def dump(self, token: str, identity: str, target: Path, budget_seconds: float) -> Snapshot:
        return self._write(self._keys(self._find(identity)), target)

    # --- candidates and swap -----------------------------------------------------------------------

    def copying(self) -> Copying:
        return Copying(made="copied key by key on the same server")

    def copy_ahead(self, token: str) -> Facts:
        """Do nothing: the server does not say which keys were written since."""
        return {}

    def prepare(self, token: str, source: Path | None, facts: Facts) -> str:
        if source is None:
            self._refuse_open()
        keys = self._keys(self._number) if source is None else self._read(source)
        self._remove(lambda place: place.token == token)
        number, identity = self._free(), f"{token}-{secrets.token_hex(8)}"
        with self._client() as client:  # recorded first: a key space that nobody knows could not be removed
            self._record(client, {number: Place(identity, token)})
        with self._client(number) as client:
            for key, expires, content in keys:
                client.restore(key, max(expires, 0), content, absttl=True)
        return identity

    def _refuse_open(self) -> None:
        with self._client() as client:
            others = [one for one in client.client_list() if int(one["db"]) == self._number]
        if others:
            raise RefusedError(f"database {self.name} is still open in {len(others)} connections")

    def load(self, token: str, source: DumpSource) -> str:
        raise RefusedError(f"{source.title} is of the format {source.format}, which Redis does not read")

    @contextmanager
    def candidate(self, token: str, identity: str) -> Iterator[RedisReader]:
        yield RedisReader(self, self._find(identity))

    def swap(self, token: str, identity: str | None, aside: str) -> None:
        places = self._places()
        live = places[self._number]
        present = self.inspect()["identity"]
        if present == identity:
            return
        other = self._find(identity) if identity is not None else self._free()
        taken = {place.token for place in places.values()}
        names = (aside if number == 1 else f"{aside}.{number}" for number in itertools.count(1))
        parked = (
            Place(live.identity, next(name for name in names if name not in taken)) if present is not None else None
        )
        new = Place(places[other].identity) if other in places else Place(secrets.token_hex(8), vacant=True)
        with self._client() as client, client.pipeline(transaction=True) as pipeline:
            pipeline.swapdb(self._number, other)
            self._record(pipeline, {self._number: new, other: parked})
            pipeline.execute()

    def hand_over(self, token: str, name: str, *, rehearsal: bool = False) -> None:
        found = [number for number, place in self._places().items() if place.token == token]
        if not found:
            return
        with self._client() as client:
            last = int(client.connection_pool.connection_kwargs["db"])
            if not name.isdigit() or int(name) >= last // 2 or f"db{name}" in client.info("keyspace"):
                raise RefusedError(f"{name} is not the number of a free database of the server's lower half")
            if rehearsal:
                return
            with client.pipeline(transaction=True) as pipeline:
                pipeline.swapdb(found[0], int(name))
                self._record(pipeline, {found[0]: None})
                pipeline.execute()

    def discard(self, token: str) -> None:
        self._remove(lambda place: place.token == token or place.token.startswith(f"{token}."))

    def _remove(self, wanted: Callable[[Place], bool]) -> None:
        for number, place in self._places().items():
            if number != self._number and wanted(place):
                with self._client(number) as client:
                    client.flushdb()
                with self._client() as client:
                    self._record(client, {number: None})

    def tokens(self) -> list[str]:
        return [place.token for number, place in self._places().items() if number != self._number]

    # --- ownership and sessions --------------------------------------------------------------------

    def owner(self) -> str | None:
        with self._client() as client:
            found = client.get(f"{self._registry}:owner")
        return bytes(found).decode() if isinstance(found, bytes) else None

    def claim(self, owner: str) -> None:
        with self._client() as client:
            client.set(f"{self._registry}:owner", owner, nx=True)

    def session_environment(self, operation: str) -> dict[str, str]:
        return {}

    def end_sessions(self, operation: str) -> None:
        """Do nothing: a command that was answered is done, and the server begins no other by itself."""


class RedisReader:
    """A candidate, which is only counted."""

    def __init__(self, space: RedisKeySpace, number: int) -> None:
        self._space = space
        self._number = number

    def tables(self, *, budget_seconds: float = 10) -> dict[str, Facts]:
        return self._space._tables(self._number)


def open_dataset(opening: Opening) -> RedisKeySpace:
    return RedisKeySpace(opening.name, Path(opening.settings.host), int(opening.settings.name))
