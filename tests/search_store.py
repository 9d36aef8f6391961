"""Rows in SQLite that are also in a search index: a site's store, and the script with which its operator builds it."""

from __future__ import annotations

import hashlib
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import msgspec

from holdfast.config.schema import Index
from holdfast.drivers.indices.search.client import JsonObject, SearchClient
from holdfast.errors import StepError
from tests.servers import search
from tests.stores import SqliteStore

ALIAS, FIRST = "guestbook", "guestbook_v1"
SETTINGS = {"settings": {"number_of_shards": 1, "number_of_replicas": 0}}
# As the console command of an application: it reads the database and writes the index that it is given.
_BUILD = """
import json, os, sys, urllib.request
sys.path.insert(0, os.getcwd())
from database import connect

def ask(method, path, body=None):
    request = urllib.request.Request(sys.argv[1] + path, body, {"Content-Type": "application/json"}, method=method)
    urllib.request.urlopen(request).read()

index = sys.argv[2]
ask("PUT", "/" + index, b'{"settings": {"number_of_shards": 1, "number_of_replicas": 0}}')
lines = []
for number, text in connect().execute("SELECT id, text FROM entries").fetchall():
    lines += [{"index": {"_index": index, "_id": number}}, {"text": text}]
if lines:
    ask("POST", "/_bulk?refresh=true", b"".join(json.dumps(line).encode() + b"\\n" for line in lines))
"""


def configuration(url: str, folder: Path, content: str) -> str:
    """Return the section of the index; `folder` is the server's."""
    script = folder / "build_index.py"
    script.write_text(_BUILD)
    script.chmod(0o644)
    lines = [
        "[indices.search]",
        'kind = "elasticsearch"',
        f'name = "{ALIAS}"',
        f'url = "{url}"',
        f'content = "{content}"',
        f'rebuild = ["{sys.executable}", "{script}", "{url}", "{{index}}"]',
    ]
    if content == "snapshot":
        lines += ['repository_type = "fs"', f'repository_settings = {{ location = "{folder / "snapshots" / "site"}" }}']
    return "\n".join(lines)


class SearchStore(SqliteStore):
    def __init__(self, path: Path, url: str, folder: Path) -> None:
        super().__init__(path)
        self.lines = (
            f"{SqliteStore.lines}\n\n# The rows are in a search index too.\n{configuration(url, folder, 'snapshot')}"
        )
        self._client = SearchClient("tests", Index("elasticsearch", ALIAS, url), None, search.no_secret)

    @classmethod
    def create(cls, path: Path) -> SearchStore:
        server = search.shared()
        server.clear()
        return cls(path, server.url, server.folder)

    def digest(self) -> str:
        """Of the rows, of what the index has, and of what Holdfast has beside it."""
        try:
            names = sorted(self._client.ask(dict[str, JsonObject], "GET", f"/{ALIAS},hf-*/_alias"))
            self._client.tell("POST", f"/{ALIAS}/_refresh")
            found = self._client.ask(_Search, "GET", f"/{ALIAS}/_search?size=10000")
        except StepError as error:
            return f"{super().digest()} {error}"
        texts = "\n".join(sorted(hit.source["text"] for hit in found.hits.hits))
        return f"{super().digest()} {len(names)} {hashlib.sha256(texts.encode()).hexdigest()}"

    def save(self, label: str) -> None:
        self._reset()

    def put_back(self, label: str) -> None:
        self._reset()

    def remove(self) -> None:
        for name in self._client.ask(dict[str, JsonObject], "GET", "/*/_alias"):
            self._client.tell("DELETE", f"/{name}")

    def _reset(self) -> None:
        """Write an index that has just the rows; the snapshots of backups stay."""
        self.remove()
        self._client.tell("PUT", f"/{FIRST}", {**SETTINGS, "aliases": {ALIAS: {}}})
        if not self.path.exists():
            return
        with closing(sqlite3.connect(self.path)) as connection:
            for number, text in connection.execute("SELECT id, text FROM entries"):
                self._client.tell("PUT", f"/{ALIAS}/_doc/{number}", {"text": text})
        self._client.tell("POST", f"/{ALIAS}/_refresh")


class _Hit(msgspec.Struct):
    source: dict[str, str] = msgspec.field(name="_source")


class _Hits(msgspec.Struct):
    hits: list[_Hit]


class _Search(msgspec.Struct):
    hits: _Hits
