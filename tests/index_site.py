"""A guestbook whose rows are also in a search index, which a script of its operator builds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.config.load import load
from holdfast.drivers.indices.factory import open_indices
from holdfast.drivers.protocols.indices import SearchIndex
from holdfast.system.host import Host
from tests.harnesses.search import SETTINGS
from tests.servers.search import SearchServer
from tests.site import Site

ALIAS = "guestbook"
# As the console command of an application: it reads the database and writes the index that it is told.
_BUILD = """
import json, os, sys, urllib.request
sys.path.insert(0, os.getcwd())
from database import connect

def ask(method, path, body=None):
    request = urllib.request.Request("{url}" + path, body, {{"Content-Type": "application/json"}}, method=method)
    urllib.request.urlopen(request).read()

index = sys.argv[1]
ask("PUT", "/" + index, json.dumps({settings!r}).encode())
rows = connect().execute("SELECT id, text FROM entries").fetchall()
for number, text in rows:
    ask("PUT", f"/{{index}}/_doc/{{number}}", json.dumps({{"text": text}}).encode())
ask("POST", f"/{{index}}/_refresh")
"""


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
        import sqlite3
        from contextlib import closing

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
    script = site.app_folder / "build_index.py"
    script.write_text(_BUILD.format(url=server.url, settings=SETTINGS))
    lines = [
        "[indices.search]",
        'kind = "elasticsearch"',
        f'name = "{ALIAS}"',
        f'url = "{server.url}"',
        f'content = "{content}"',
        f'rebuild = ["{sys.executable}", "{script}", "{{index}}"]',
    ]
    if content == "snapshot":
        location = Path(server.snapshots) / "site"
        lines += ['repository_type = "fs"', f'repository_settings = {{ location = "{location}" }}']
    site.config.write_text(site.config.read_text() + "\n" + "\n".join(lines) + "\n")
    found = IndexSite(site, server)
    server.ask("PUT", "/guestbook_v1", {**SETTINGS, "aliases": {ALIAS: {}}})
    found.index_everything()
    return found


@contextmanager
def cleared(server: SearchServer) -> Iterator[SearchServer]:
    server.clear()
    yield server
