"""Search indices: entries are documents by their number, behind an alias as applications use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from holdfast.config.schema import Index
from holdfast.drivers.indices.search.client import SearchClient
from holdfast.drivers.indices.search.driver import SearchIndexDriver
from tests.harnesses.harness import Harness, OpenHarness
from tests.search_store import SETTINGS
from tests.servers import search
from tests.servers.search import SearchServer

ALIAS, FIRST = "shop", "shop_v1"


def opened_index(server: SearchServer, name: str = "main", owner: str = "contract") -> SearchIndexDriver:
    location = str(server.snapshots / "fs")
    settings = Index(
        "elasticsearch",
        ALIAS,
        server.url,
        content="snapshot",
        repository_type="fs",
        repository_settings={"location": location},
    )
    return SearchIndexDriver(name, settings, owner, SearchClient(name, settings, None, search.no_secret))


class SearchHarness(Harness):
    holds_writers = False
    volatile_facts = frozenset({"snapshot"})

    def __init__(self, server: SearchServer, folder: Path) -> None:
        self.driver = opened_index(server)
        super().__init__(self.driver, folder)
        self.server = server

    def create(self) -> None:
        self.server.ask("PUT", f"/{FIRST}", {**SETTINGS, "aliases": {ALIAS: {}}})

    def add(self, text: str) -> None:
        self.server.index(ALIAS, len(self.texts()), text)

    def clear(self) -> None:
        for number in range(len(self.texts())):
            self.server.ask("DELETE", f"/{ALIAS}/_doc/{number}?refresh=true")

    def texts(self) -> list[str]:
        return self.server.texts(ALIAS)

    def free_name(self) -> str:
        return "other"

    def texts_under(self, name: str) -> list[str]:
        return self.server.texts(name)


@contextmanager
def opened(folder: Path) -> Iterator[SearchHarness]:
    server = search.shared()
    server.clear()
    yield SearchHarness(server, folder)


DATASETS: Mapping[str, OpenHarness] = {"elasticsearch": opened}
