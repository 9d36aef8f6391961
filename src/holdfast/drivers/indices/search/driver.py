"""A search index of Elasticsearch 6 to 9 or of OpenSearch, which the application uses by an alias.

Facts from the documentation and tried on 6.8, 7.17, 8.19 and 9.1: one request to `_aliases` moves an alias from one
index to another at once, and is durable when it is answered; a snapshot has everything that was answered before it
began; the clone API (Elasticsearch 7.4 and later, OpenSearch) links the files of segments where the disk allows it, and
needs an index that refuses writes. The uuid of an index stays as long as the index, whatever its aliases are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from holdfast.config.load import ResolvedConfig
from holdfast.config.schema import Index
from holdfast.drivers.indices.search.beside import Beside, FoundIndex, digest_of
from holdfast.drivers.indices.search.client import JsonObject, SearchClient
from holdfast.drivers.indices.search.repository import Repository, read_record, wait_complete, write_record
from holdfast.drivers.interchange.dump_source import DumpSource
from holdfast.drivers.protocols.datasets import Dataset, SnapshotFn
from holdfast.errors import DamagedError, HoldfastError, RefusedError, StepError
from holdfast.model import Copying, Facts, Problem, Snapshot
from holdfast.system.host import Host

_OLDEST = {"elasticsearch": (6,), "opensearch": (1,)}
_CLONES_SINCE = {"elasticsearch": (7, 4), "opensearch": (1,)}
_TABLE = "documents"


class _Count(msgspec.Struct):
    count: int


class _Store(msgspec.Struct, frozen=True):
    size_in_bytes: int = 0


class _Primaries(msgspec.Struct, frozen=True):
    store: _Store = _Store()


class _All(msgspec.Struct, frozen=True):
    primaries: _Primaries = _Primaries()


class _Stats(msgspec.Struct):
    all: _All = msgspec.field(name="_all", default_factory=_All)


class _Health(msgspec.Struct):
    status: str


class SearchIndexDriver:
    """Behind the protocol SearchIndex."""

    extension = "json"
    copied_by = "cloned on the server"
    copied_ahead = ""

    def __init__(self, name: str, settings: Index, owner: str, client: SearchClient) -> None:
        self.name = name
        self.kind: str = settings.kind
        self.content: str = settings.content
        self.command = tuple(settings.rebuild)
        self.private_folder: Path | None = None
        self._settings = settings
        self._client = client
        self._beside = Beside(name, settings.name, owner, client)
        self._repository = Repository(name, settings, f"hf-{digest_of(owner, settings.name)[:16]}-", client)

    # --- looking -----------------------------------------------------------------------------------

    def inspect(self) -> Facts:
        live = self._beside.live()
        size = 0
        if live is not None:
            size = self._client.ask(_Stats, "GET", f"/{live.name}/_stats/store").all.primaries.store.size_in_bytes
        return {
            "exists": live is not None,
            "identity": live.identity if live is not None else None,
            "size_bytes": size,
            "tool": f"{self._client.product} {'.'.join(map(str, self._client.version))}",
        }

    def tables(self, *, budget_seconds: float = 10) -> dict[str, Facts]:
        live = self._beside.live()
        return self._tables(live.name) if live is not None else {}

    def _tables(self, index: str) -> dict[str, Facts]:
        return {_TABLE: {"rows": self._rows(index), "columns": []}}

    def _rows(self, index: str) -> int:
        self._client.tell("POST", f"/{index}/_refresh")
        return self._client.ask(_Count, "GET", f"/{index}/_count").count

    def check(self) -> list[Problem]:
        """Return warnings only: an index is made from the databases and never prevents an operation on them."""
        try:
            found = self._problem()
        except HoldfastError as error:
            found = error.what, error.next_step
        return [Problem(f"indices.{self.name}", "warning", *found)] if found is not None else []

    def _problem(self) -> tuple[str, str] | None:
        if self._client.version < _OLDEST[self.kind]:
            return f"{self._client.product} {self._client.version[0]} was never tried", "Use version 6 or later."
        rebuild = f"Run: holdfast index rebuild {self.name}"
        live = self._beside.live()
        if live is None:
            return f"the server has no index {self._settings.name}", rebuild
        if self._client.ask(_Health, "GET", f"/_cluster/health/{live.name}").status == "red":
            return f"the index {live.name} is red: parts of it are missing", f"Look at the server's disks. {rebuild}"
        if self.content == "snapshot":
            self._beside.require_alias()
            self._repository.ensure()
        return None

    # --- dumps -------------------------------------------------------------------------------------

    def joint_snapshot(self, others: Sequence[Dataset]) -> None:
        """Return None: no transaction sees an index and a database."""

    @contextmanager
    def freeze_writes(self, limit_seconds: float | None) -> Iterator[SnapshotFn]:
        """Yield the function that takes the snapshot. Writers are never held, whatever the limit is."""
        live = self._beside.live()
        if live is None:
            raise StepError(f"indices.{self.name}: the server has no index {self._settings.name}")
        index = live.name

        def fix(target: Path, queries: Sequence[str], budget_seconds: float) -> Callable[[], Snapshot]:
            if queries:
                raise RefusedError(f"indices.{self.name}: a search index answers no SQL")
            taken = self._snapshot(index, target)
            return lambda: taken

        yield fix

    def _snapshot(self, index: str, target: Path) -> Snapshot:
        record = self._repository.take(index, self._rows(index))
        write_record(record, target)
        tables = {_TABLE: {"rows": record.rows, "columns": []}}
        return Snapshot(tables, {"snapshot": record.snapshot, "repository": record.repository})

    def dump(self, token: str, identity: str, target: Path, budget_seconds: float) -> Snapshot:
        index = self._beside.find(identity).name
        target.unlink(missing_ok=True)
        return self._snapshot(index, target)

    def drop_snapshots(self, keep: Collection[str]) -> list[str]:
        return self._repository.drop(keep)

    # --- candidates and swap -----------------------------------------------------------------------

    def can_copy(self) -> bool:
        live = self._beside.live()
        return live is not None and live.name != self._settings.name and self._clones()

    def _clones(self) -> bool:
        return self._client.version >= _CLONES_SINCE[self.kind]

    def copy_ahead(self, token: str) -> Facts:
        """Do nothing: the copy itself takes a moment."""
        return {}

    def copying(self) -> Copying:
        return Copying(made="a clone of the index by the server", back="points the alias at the clone")

    def prepare(self, token: str, source: Path | None, facts: Facts) -> str:
        self._beside.require_alias()
        self._beside.remove(lambda other: other == token)
        name = self._beside.new_name(token)
        if source is None:
            self._copy_live(token, name)
        else:
            record = read_record(self.name, source)
            self._repository.restore(record, name)
            if (rows := self._rows(name)) < record.rows:  # what was written while the snapshot began may be in it
                raise DamagedError(f"indices.{self.name}: the snapshot has {rows} documents instead of {record.rows}")
        self._beside.mark(name, token)
        return self._named(name).identity

    def _named(self, name: str) -> FoundIndex:
        found = next((one for one in self._beside.found() if one.name == name), None)
        if found is None:
            raise StepError(f"indices.{self.name}: the index {name} is gone")
        return found

    def _copy_live(self, token: str, name: str) -> None:
        """Clone the live index, or copy it through the repository where the server cannot clone."""
        live = self._beside.live()
        if live is None:
            raise StepError(f"indices.{self.name}: the server has no index {self._settings.name}")
        if not self._clones():
            record = self._repository.take(live.name, self._rows(live.name))
            self._repository.restore(record, name)
            self._repository.delete(record.snapshot)
            return
        self._beside.block(live.name, token)
        try:
            body: JsonObject = {"settings": {"index.blocks.write": None}}
            self._client.ask(
                JsonObject, "POST", f"/{live.name}/_clone/{name}", body, timeout_seconds=self._settings.timeout_seconds
            )
            wait_complete(self.name, self._client, name, self._settings.timeout_seconds)
        finally:
            self._beside.unblock(live.name, token)
        self._client.tell("PUT", f"/{name}/_settings", {"index.blocks.write": None})

    def load(self, token: str, source: DumpSource) -> str:
        raise RefusedError(f"{source.title} is of the format {source.format}, which a search server does not read")

    def make_room(self, token: str) -> str:
        name = self._beside.built_name(token)
        self._beside.require_alias()
        self._beside.remove(lambda other: other == token)
        return name

    def adopt(self, token: str) -> str:
        name = self._beside.built_name(token)
        if all(one.name != name for one in self._beside.found()):
            raise StepError(
                f"indices.{self.name}: the command that builds the index did not make {name}",
                next_step=f"Correct `rebuild` of indices.{self.name}: {{index}} is the name of the index to build.",
            )
        wait_complete(self.name, self._client, name, self._settings.timeout_seconds)
        self._beside.mark(name, token)
        return self._named(name).identity

    @contextmanager
    def candidate(self, token: str, identity: str) -> Iterator[IndexReader]:
        yield IndexReader(self, self._beside.find(identity).name)

    def swap(self, token: str, identity: str | None, aside: str) -> None:
        self._beside.swap(identity, aside)

    def hand_over(self, token: str, name: str, *, rehearsal: bool = False) -> None:
        self._beside.hand_over(token, name, rehearsal=rehearsal)

    def discard(self, token: str) -> None:
        self._beside.remove(lambda other: other == token or other.startswith(f"{token}."))

    def tokens(self) -> list[str]:
        beside = [token for one in self._beside.beside() for token in self._beside.tokens_of(one)]
        return sorted([*beside, *self._beside.blocks(self._beside.live())])

    # --- ownership and sessions --------------------------------------------------------------------

    def owner(self) -> str | None:
        """Return None: the server has no place for a marker that is not the application's."""
        return None

    def claim(self, owner: str) -> None:
        """Do nothing, as above."""

    def session_environment(self, operation: str) -> dict[str, str]:
        return {}

    def end_sessions(self, operation: str) -> None:
        """Do nothing: a request that was answered is done."""


class IndexReader:
    """An index next to the live one, which is only counted."""

    def __init__(self, driver: SearchIndexDriver, index: str) -> None:
        self._driver = driver
        self._index = index

    def tables(self, *, budget_seconds: float = 10) -> dict[str, Facts]:
        return self._driver._tables(self._index)


def open_index(name: str, loaded: ResolvedConfig, host: Host) -> SearchIndexDriver:
    settings = loaded.configuration.indices[name]
    ca = loaded.path(settings.ca) if settings.ca else None
    client = SearchClient(name, settings, ca, host.resolve_secret)
    return SearchIndexDriver(name, settings, loaded.owner, client)
