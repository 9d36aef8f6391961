"""PocketBase, a backend in one Go program with SQLite and uploads: from 0.22 to 0.28, which rewrote its tables."""

from __future__ import annotations

from pathlib import Path

from tests.realworld.application import Application, Client, Repository, Site, call, then_fails, then_waits

_MODULE = "github.com/pocketbase/pocketbase"
_MIGRATE = "./base migrate up --dir pb_data"
_MAIN = f"""package main

import (
	"log"

	"{_MODULE}"
	"{_MODULE}/plugins/migratecmd"
)

func main() {{
	app := pocketbase.New()
	migratecmd.MustRegister(app, app.RootCmd, migratecmd.Config{{}})
	if err := app.Start(); err != nil {{
		log.Fatal(err)
	}}
}}
"""
_ADMINISTRATOR, _PASSWORD = "admin@example.org", "a-long-password"


class PocketBase(Application):
    name = "pocketbase"
    language = "Go"
    database = "sqlite"
    old, new = "v0.22.21", "v0.28.2"
    broken = (("unstartable", "does not start"), ("dying", "dies after its migrations"))
    programs = ("go",)
    page = "/api/collections/notes/records?perPage=1"

    def fetch(self, repository: Repository, scratch: Path) -> None:
        for version in (self.old, self.new):
            repository.clear()
            repository.write("main.go", _MAIN)
            call(["go", "mod", "init", "base"], repository.path)
            call(["go", "get", f"{_MODULE}@{version}"], repository.path)
            call(["go", "mod", "tidy"], repository.path)
            repository.tag(version)
        repository.change("unstartable", self.new, {"main.go": _MAIN.replace("app.Start()", "app.Execute()")})
        repository.change("dying", self.new, {"holdfast.toml": then_fails(_MIGRATE)})
        repository.change("slow", self.new, {"holdfast.toml": then_waits(_MIGRATE)})

    def configuration(self) -> str:
        return """
[source]
build = [["env", "CGO_ENABLED=0", "go", "build", "-o", "base", "."]]
shared = { "pb_data" = "shared/pb_data" }

[services.web]
command = ["./base", "serve", "--http", "127.0.0.1:{port}", "--dir", "pb_data"]
health = "/api/health"
user = "$account"

[tasks]
install = [["./base", "migrate", "up", "--dir", "pb_data"],
  ["./base", "admin", "create", "admin@example.org", "a-long-password", "--dir", "pb_data"]]
migrate = ["./base", "migrate", "up", "--dir", "pb_data"]

[databases.main]
kind = "sqlite"
path = "shared/pb_data/data.db"

[guard]
may_shrink = ["_admins"] # 0.23 moved administrators to _superusers

[files.storage]
path = "shared/pb_data/storage"
"""

    def fill(self, site: Site) -> None:
        client = site.client()
        given = {"identity": _ADMINISTRATOR, "password": _PASSWORD}
        token = client.json("POST", "/api/admins/auth-with-password", given)["token"]
        fields = [
            {"name": "title", "type": "text", "required": True},
            {"name": "file", "type": "file", "options": {"maxSelect": 1, "maxSize": 5242880}},
        ]
        collection = {
            "name": "notes",
            "type": "base",
            "schema": fields,
            "listRule": "",
            "viewRule": "",
            "createRule": "",
        }
        client.json("POST", "/api/collections", collection, {"Authorization": token})
        for number in range(100):
            self.write(client, site, f"first{number}")

    def write(self, client: Client, site: Site, key: str) -> None:
        client.upload("/api/collections/notes/records", {"title": key}, {"file": (f"{key}.txt", key.encode() * 100)})

    def written(self, client: Client, site: Site) -> set[str]:
        found: set[str] = set()
        page = 1
        while True:
            answer = client.json("GET", f"/api/collections/notes/records?perPage=500&page={page}")
            for item in answer["items"]:
                path = f"/api/files/notes/{item['id']}/{item['file']}"
                if client.get(path) == item["title"] * 100:
                    found.add(item["title"])
            if page >= answer["totalPages"]:
                return found
            page += 1
