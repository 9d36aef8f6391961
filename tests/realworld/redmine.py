"""Redmine on Ruby on Rails with SQLite, from Debian's package; the newer version adds the plugin that comes with it."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.realworld.application import (
    Application,
    Client,
    Repository,
    Site,
    UnavailableError,
    call,
    then_fails,
    then_waits,
)

_MIGRATE = "bundle exec rake db:migrate redmine:plugins:migrate"
_KEY = "0123456789abcdef0123456789abcdef01234567"
_AUTHORIZATION = {"X-Redmine-API-Key": _KEY}
_DATABASE = "production:\n  adapter: sqlite3\n  database: instances/default/db/redmine.sqlite3\n  timeout: 20000\n"
_FIRST = f"""
Setting.rest_api_enabled = "1"
admin = User.find_by_login("admin")
admin.update_columns(must_change_passwd: false)
Token.create!(user: admin, action: "api").update_columns(value: "{_KEY}")
project = Project.create!(name: "Trial", identifier: "trial", is_public: true)
project.trackers = Tracker.all
project.save!
"""


class Redmine(Application):
    name = "redmine"
    language = "Ruby"
    database = "sqlite"
    old, new = "5.0.4", "5.0.4-with-plugin"
    broken = (("unstartable", "does not start"), ("dying", "dies after its migrations"))
    programs = ("apt-get", "dpkg", "ruby", "bundle")
    page = "/projects.json"
    volatile = ("tokens",)
    note = "Debian has one version of Redmine; the newer one here adds the sample plugin of the same package."

    def prepare(self, site: Site) -> None:
        for name in ("config", "files", "log", "tmp", "db", "public/plugin_assets"):
            (site.shared / "instances/default" / name).mkdir(parents=True)
        (site.shared / "instances/default/config/database.yml").write_text(_DATABASE)
        (site.shared / "instances/default/config/secret_key.txt").write_text("0123456789abcdef" * 8)
        for name in ("files", "log", "tmp", "db", "public/plugin_assets"):
            shutil.chown(site.shared / "instances/default" / name, "www-data", "www-data")

    def fetch(self, repository: Repository, scratch: Path) -> None:
        scratch.chmod(0o777)
        call(["apt-get", "download", "redmine"], scratch)
        (package,) = scratch.glob("redmine_*.deb")
        call(["dpkg", "-x", str(package), "tree"], scratch)
        shutil.copytree(scratch / "tree/usr/share/redmine", repository.path, symlinks=True, dirs_exist_ok=True)
        for path in [path for path in repository.path.rglob("*") if path.is_symlink()]:
            path.unlink()  # libraries of JavaScript from other packages, to which links lead out of the release
        repository.write("Gemfile.local", "gem 'sqlite3'\ngem 'puma'\n")
        repository.write("first.rb", _FIRST)
        try:
            call(["bundle", "install", "--local"], repository.path)
        except UnavailableError as error:
            raise UnavailableError(
                f"the libraries of Debian's redmine, ruby-sqlite3 and puma are needed: {error}"
            ) from None
        (repository.path / "Gemfile.lock").unlink()
        repository.tag(self.old)
        shutil.copytree(repository.path / "extra/sample_plugin", repository.path / "plugins/sample_plugin")
        repository.tag(self.new)
        routes = (repository.path / "config/routes.rb").read_text()
        repository.change("unstartable", self.new, {"config/routes.rb": routes + "\nend\n"})
        repository.change("dying", self.new, {"holdfast.toml": then_fails(_MIGRATE)})
        repository.change("slow", self.new, {"holdfast.toml": then_waits(_MIGRATE)})

    def configuration(self) -> str:
        return """
[source]
build = [["bundle", "install", "--local"]]
writable = ["db"]
shared = { instances = "shared/instances" }

[environment]
RAILS_ENV = "production"

[services.web]
command = ["bundle", "exec", "puma", "--bind", "tcp://127.0.0.1:{port}"]
health = "/projects.json"
user = "$account"

[tasks]
migrate = ["bundle", "exec", "rake", "db:migrate", "redmine:plugins:migrate"]

[tasks.install]
commands = [["bundle", "exec", "rake", "db:migrate", "redmine:plugins:migrate"],
  ["bundle", "exec", "rake", "redmine:load_default_data"],
  ["bundle", "exec", "rails", "runner", "first.rb"]]
environment = { REDMINE_LANG = "en" }

[databases.main]
kind = "sqlite"
path = "shared/instances/default/db/redmine.sqlite3"

[files.uploads]
path = "shared/instances/default/files"

[migrations]
kind = "rails"
"""

    def fill(self, site: Site) -> None:
        client = site.client()
        for number in range(20):
            self.write(client, site, f"first{number}")

    def write(self, client: Client, site: Site, key: str) -> None:
        kind = {"Content-Type": "application/octet-stream", **_AUTHORIZATION}
        token = client.json("POST", f"/uploads.json?filename={key}.txt", key, kind)["upload"]["token"]
        issue = {"project_id": "trial", "subject": key, "uploads": [{"token": token, "filename": f"{key}.txt"}]}
        client.json("POST", "/issues.json", {"issue": issue}, _AUTHORIZATION)

    def written(self, client: Client, site: Site) -> set[str]:
        found: set[str] = set()
        while True:
            path = f"/issues.json?status_id=*&sort=id&limit=100&offset={len(found)}"
            items = client.json("GET", path, None, _AUTHORIZATION)["issues"]
            found |= {item["subject"] for item in items}
            if not items:
                return found
