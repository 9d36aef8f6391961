"""A guestbook whose rows are also in a search index, which a script of its operator builds."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from holdfast.config.load import load
from holdfast.drivers.indices.factory import open_indices
from holdfast.drivers.protocols.indices import SearchIndex
from holdfast.system.host import Host
from tests import search_store
from tests.search_store import ALIAS, FIRST, SETTINGS
from tests.servers.search import SearchServer
from tests.site import Site


class IndexSite:
    """A site with its index."""

    def __init__(self, site: Site, server: SearchServer) -> None:
        self.site = site
        self.server = server

    def index_everything(self, name: str = ALIAS) -> None:
        """Write every row that is not in the index yet, as the application does when it writes a row."""
        known = set(self.indexed())
        for number, text in self.rows().items():
            if text not in known:
                self.server.index(name, number, text)

    def rows(self) -> dict[int, str]:
        with closing(sqlite3.connect(self.site.database)) as connection:
            return dict(connection.execute("SELECT id, text FROM entries ORDER BY id").fetchall())

    def indexed(self) -> list[str]:
        return self.server.texts(ALIAS)

    def agrees(self) -> bool:
        return self.indexed() == list(self.rows().values())

    def driver(self) -> SearchIndex:
        return open_indices(load(str(self.site.config)), Host())["search"]


def configure(site: Site, server: SearchServer, *, content: str) -> IndexSite:
    """Add an index to a site's configuration, and make it as the application's installation does."""
    lines = search_store.configuration(server.url, server.folder, content)
    site.config.write_text(f"{site.config.read_text()}\n{lines}\n")
    found = IndexSite(site, server)
    server.ask("PUT", f"/{FIRST}", {**SETTINGS, "aliases": {ALIAS: {}}})
    found.index_everything()
    return found
