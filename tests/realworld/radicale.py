"""Radicale, a server for calendars and contacts in files: from 3.2 to 3.5. It has no database."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tests.realworld.application import Application, Client, Repository, Site, then_waits

_VERIFY = "python -m radicale --config config --verify-storage"
_CALENDAR = "/ann/calendar"
_AUTHORIZATION = {"Authorization": "Basic " + base64.b64encode(b"ann:geheim").decode()}
_CONFIG = """
[auth]
type = htpasswd
htpasswd_filename = users
htpasswd_encryption = plain

[storage]
filesystem_folder = collections
"""
_MAKE = """<?xml version="1.0" encoding="UTF-8" ?>
<create xmlns="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><set><prop>
<resourcetype><collection /><C:calendar /></resourcetype>
<C:supported-calendar-component-set><C:comp name="VEVENT" /></C:supported-calendar-component-set>
<displayname>Calendar</displayname></prop></set></create>"""
_LOSES = "find -L collections -name '*.ics' | head -20 | xargs rm; echo 'no space left' >&2; exit 1"


class Radicale(Application):
    name = "radicale"
    language = "Python"
    old, new = "3.2.3", "3.5.10"
    broken = (("unstartable", "does not start"), ("dying", "its task deletes files and dies"))
    programs = ("python3",)
    page = "/.web/"
    volatile_files = ("*.Radicale.cache*", "*.Radicale.lock")

    def prepare(self, site: Site) -> None:
        (site.shared / "users").write_text("ann:geheim\n")

    def fetch(self, repository: Repository, scratch: Path) -> None:
        for version in (self.old, self.new):
            repository.clear()
            repository.write("requirements.txt", f"radicale=={version}\n")
            repository.write("config", _CONFIG)
            repository.tag(version)
        repository.change("unstartable", self.new, {"config": _CONFIG.replace("htpasswd\n", "no_such_type\n", 1)})
        dying = f'[tasks]\nmigrate = ["sh", "-c", {json.dumps(_LOSES)}]\n'
        repository.change("dying", self.new, {"holdfast.toml": dying})
        repository.change("slow", self.new, {"holdfast.toml": then_waits(_VERIFY)})

    def configuration(self) -> str:
        return """
[source.python]
requirements = "requirements.txt"

[source.shared]
users = "shared/users"
collections = "shared/collections/"

[services.web]
command = ["python", "-m", "radicale", "--config", "config", "--server-hosts", "127.0.0.1:{port}"]
health = "/.web/"
user = "$account"

[tasks]
migrate = ["python", "-m", "radicale", "--config", "config", "--verify-storage"]

[files.collections]
path = "shared/collections"
exclude = [".Radicale.cache", ".Radicale.lock"]
"""

    def fill(self, site: Site) -> None:
        client = site.client()
        client.request("MKCOL", _CALENDAR, _MAKE.encode(), {"Content-Type": "application/xml", **_AUTHORIZATION})
        for number in range(200):
            self.write(client, site, f"first{number}")

    def write(self, client: Client, site: Site, key: str) -> None:
        event = (
            f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:test\r\nBEGIN:VEVENT\r\nUID:{key}\r\nDTSTAMP:20260101T000000Z\r\n"
            f"DTSTART:20260101T100000Z\r\nDTEND:20260101T110000Z\r\nSUMMARY:{key}\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
        )
        headers = {"Content-Type": "text/calendar", **_AUTHORIZATION}
        client.request("PUT", f"{_CALENDAR}/{key}.ics", event.encode(), headers)

    def written(self, client: Client, site: Site) -> set[str]:
        text = client.get(_CALENDAR, _AUTHORIZATION)
        return {line.removeprefix("UID:").strip() for line in text.splitlines() if line.startswith("UID:")}
