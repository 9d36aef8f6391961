"""Miniflux, a reader of feeds in one Go program with PostgreSQL: from 2.2.0 to 2.3.5."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tests.realworld.application import Application, Client, Repository, Site, call, then_waits

_MODULE = "miniflux.app/v2"
_MIGRATE = "./miniflux -migrate"
_AUTHORIZATION = {"Authorization": "Basic " + base64.b64encode(b"admin:a-long-password").decode()}
# What a migration without a transaction leaves when it dies between two of its statements.
_LOSES = (
    f"{_MIGRATE} && psql \"$DATABASE_URL\" -c 'DELETE FROM categories' -c 'DROP TABLE enclosures';"
    " echo 'connection reset' >&2; exit 1"
)


class Miniflux(Application):
    name = "miniflux"
    language = "Go"
    database = "postgresql"
    old, new = "v2.2.0", "v2.3.5"
    broken = (("unstartable", "does not start"), ("dying", "dies after its migrations, with rows and a table lost"))
    programs = ("go", "psql")
    page = "/healthcheck"
    volatile = ("sessions", "user_sessions", "web_sessions")

    def fetch(self, repository: Repository, scratch: Path) -> None:
        for version in (self.old, self.new):
            repository.clear()
            call(["go", "mod", "init", "reader"], repository.path)
            repository.write("main.go", f'//go:build tools\n\npackage reader\n\nimport _ "{_MODULE}"\n')
            call(["go", "get", f"{_MODULE}@{version}"], repository.path)
            call(["go", "mod", "tidy"], repository.path)
            repository.tag(version)
        worker = '[services.web.environment]\nPOLLING_SCHEDULER = "no-such-scheduler"\nLISTEN_ADDR = "127.0.0.1:1"\n'
        repository.change("unstartable", self.new, {"holdfast.toml": worker})
        dying = f'[tasks]\nmigrate = ["sh", "-c", {json.dumps(_LOSES)}]\n'
        repository.change("dying", self.new, {"holdfast.toml": dying})
        repository.change("slow", self.new, {"holdfast.toml": then_waits(_MIGRATE)})

    def configuration(self) -> str:
        return f"""
[source]
build = [["env", "CGO_ENABLED=0", "GOFLAGS=-mod=mod", "go", "build", "-o", "miniflux", "{_MODULE}"]]

[environment]
DATABASE_URL = "host=$host user=$user dbname=$database sslmode=disable"
ADMIN_USERNAME = "admin"
ADMIN_PASSWORD = "a-long-password"
CREATE_ADMIN = "1" # when it starts, if there is none
DISABLE_SCHEDULER_SERVICE = "1"

[services.web]
command = ["sh", "-c", "LISTEN_ADDR=127.0.0.1:{{port}} exec ./miniflux"]
health = "/healthcheck"
user = "$account"

[tasks]
install = ["./miniflux", "-migrate"]
migrate = ["./miniflux", "-migrate"]

[guard]
may_shrink = ["sessions", "user_sessions", "web_sessions"]
"""

    def fill(self, site: Site) -> None:
        client = site.client()
        for number in range(100):
            self.write(client, site, f"first{number}")

    def write(self, client: Client, site: Site, key: str) -> None:
        client.json("POST", "/v1/categories", {"title": key}, _AUTHORIZATION)

    def written(self, client: Client, site: Site) -> set[str]:
        return {item["title"] for item in client.json("GET", "/v1/categories", headers=_AUTHORIZATION)} - {"All"}
