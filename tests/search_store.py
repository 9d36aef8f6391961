"""Rows that are also in a search index: a site's store, and the script with which its operator builds the index."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import msgspec

from holdfast.config.schema import Index
from holdfast.drivers.indices.search.client import JsonObject, SearchClient
from holdfast.errors import StepError
from tests.servers import search
from tests.stores import Store

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


class SearchStore:
    """A database whose rows are in an index too."""

    def __init__(self, base: Store, url: str, folder: Path) -> None:
        self._base = base
        self.lines = f"{base.lines}\n\n# The rows are in a search index too.\n{configuration(url, folder, 'snapshot')}"
        self.environment = base.environment
        self.module = base.module
        self._client = SearchClient("tests", Index("elasticsearch", ALIAS, url), None, search.no_secret)

    @classmethod
    def create(cls, base: Store) -> SearchStore:
        server = search.shared()
        server.clear()
        return cls(base, server.url, server.folder)

    def execute(self, sql: str) -> object:
        return self._base.execute(sql)

    def entries(self) -> list[tuple[int, str]]:
        return self._base.entries()

    def dump(self, target: Path) -> None:
        self._base.dump(target)

    def digest(self) -> str:
        """Of the rows, of what the index has, and of what Holdfast has beside it."""
        rows = self._base.digest()
        try:
            names = sorted(self._client.ask(dict[str, JsonObject], "GET", f"/{ALIAS},hf-*/_alias"))
            self._client.tell("POST", f"/{ALIAS}/_refresh")
            found = self._client.ask(_Search, "GET", f"/{ALIAS}/_search?size=10000")
        except StepError as error:
            return f"{rows} {error}"
        texts = "\n".join(sorted(hit.source["text"] for hit in found.hits.hits))
        return f"{rows} {len(names)} {hashlib.sha256(texts.encode()).hexdigest()}"

    def save(self, label: str) -> None:
        self._base.save(label)
        self._write_index()

    def put_back(self, label: str) -> None:
        self._base.put_back(label)
        self._write_index()

    def remove(self) -> None:
        self._remove_indices()
        self._base.remove()

    def _remove_indices(self) -> None:
        for name in self._client.ask(dict[str, JsonObject], "GET", "/*/_alias"):
            self._client.tell("DELETE", f"/{name}")

    def _write_index(self) -> None:
        """Write an index that has just the rows; the snapshots of backups stay."""
        self._remove_indices()
        self._client.tell("PUT", f"/{FIRST}", {**SETTINGS, "aliases": {ALIAS: {}}})
        for number, text in self._base.entries():
            self._client.tell("PUT", f"/{ALIAS}/_doc/{number}", {"text": text})
        self._client.tell("POST", f"/{ALIAS}/_refresh")


class _Hit(msgspec.Struct):
    source: dict[str, str] = msgspec.field(name="_source")


class _Hits(msgspec.Struct):
    hits: list[_Hit]


class _Search(msgspec.Struct):
    hits: _Hits
