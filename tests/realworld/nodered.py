"""Node-RED, an editor and server for flows, which keeps all in files: from 3.1 to 4.1. It has no database."""

from __future__ import annotations

import json
from pathlib import Path

from tests.realworld.application import Application, Client, Repository, Site, call, then_waits

_SETTINGS = "module.exports = { flowFile: 'flows.json', uiHost: '127.0.0.1', credentialSecret: 'a-secret' }\n"
_LOSES = "echo '[]' > data/flows.json; rm -f data/.flows.json.backup; echo 'no space left' >&2; exit 1"


class NodeRed(Application):
    name = "nodered"
    language = "Node"
    old, new = "3.1.15", "4.1.13"
    broken = (("unstartable", "does not start"), ("dying", "its task destroys files and dies"))
    programs = ("node", "npm")
    volatile_files = (".config.runtime.json*",)

    def fetch(self, repository: Repository, scratch: Path) -> None:
        for version in (self.old, self.new):
            repository.clear()
            package = {"name": "flows", "private": True, "dependencies": {"node-red": version}}
            repository.write("package.json", json.dumps(package))
            repository.write("settings.js", _SETTINGS)
            call(["npm", "install", "--package-lock-only", "--no-audit", "--no-fund"], repository.path)
            repository.tag(version)
        repository.change("unstartable", self.new, {"settings.js": "module.exports = {\n"})
        dying = f'[tasks]\nmigrate = ["sh", "-c", {json.dumps(_LOSES)}]\n'
        repository.change("dying", self.new, {"holdfast.toml": dying})
        repository.change("slow", self.new, {"holdfast.toml": then_waits("true")})

    def configuration(self) -> str:
        return """
[source]
build = [["npm", "ci", "--omit=dev"]]
shared = { "data" = "shared/data" }

[services.web]
command = ["node_modules/.bin/node-red", "--settings", "settings.js", "--userDir", "data", "--port", "{port}"]
health = "/flows"
user = "$account"

[files.data]
path = "shared/data"
"""

    def fill(self, site: Site) -> None:
        client = site.client()
        for number in range(50):
            self.write(client, site, f"first{number}")

    def write(self, client: Client, site: Site, key: str) -> None:
        client.json("POST", "/flow", {"label": key, "nodes": []})

    def written(self, client: Client, site: Site) -> set[str]:
        return {item["label"] for item in client.json("GET", "/flows") if item["type"] == "tab"}
