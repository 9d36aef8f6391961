"""I Hate Money, which divides expenses, with SQLite: from 6.1 to 7.2. It migrates by itself whenever it starts."""

from __future__ import annotations

import base64
from pathlib import Path

from tests.realworld.application import Application, Client, Repository, Site

_AUTHORIZATION = {"Authorization": "Basic " + base64.b64encode(b"trip:geheim").decode()}
_WSGI = "import os\n\nfrom ihatemoney.wsgi import application as money\n"
_SLOW = """
import pathlib
import time

pathlib.Path(os.environ["MARKS"], "migrated").touch()
time.sleep(600)
"""
_LOSES = """
import sqlite3

connection = sqlite3.connect(os.environ["DATABASE"])
connection.execute("DELETE FROM bill WHERE id % 2")
connection.commit()
raise RuntimeError("the migration does not know what to do")
"""


class IHateMoney(Application):
    name = "ihatemoney"
    language = "Python"
    database = "sqlite"
    personal = ("ann@example.org",)
    old, new = "6.1.5", "7.2.1"
    broken = (("unstartable", "does not start"), ("dying", "its start deletes rows and dies"))
    programs = ("python3",)
    volatile = ()

    def prepare(self, site: Site) -> None:
        site.facts.update(marks=str(site.marks), shared=str(site.shared))
        (site.shared / "settings.py").write_text(
            f'SQLALCHEMY_DATABASE_URI = "sqlite:///{site.shared}/data/money.sqlite"\n'
            'SECRET_KEY = "a secret"\nACTIVATE_DEMO_PROJECT = False\nALLOW_PUBLIC_PROJECT_CREATION = True\n'
            'SITE_NAME = "Money"\nMAIL_SUPPRESS_SEND = True\nSHOW_ADMIN_EMAIL = False\nENABLE_CAPTCHA = False\n'
        )

    def fetch(self, repository: Repository, scratch: Path) -> None:
        for version in (self.old, self.new):
            repository.clear()
            repository.write("requirements.txt", f"ihatemoney=={version}\ngunicorn==23.0.0\n")
            repository.write("site_wsgi.py", _WSGI)
            repository.tag(version)
        repository.change("unstartable", self.new, {"site_wsgi.py": "import no_such_module\n"})
        repository.change("dying", self.new, {"site_wsgi.py": _WSGI + _LOSES})
        repository.change("slow", self.new, {"site_wsgi.py": _WSGI + _SLOW})

    def configuration(self) -> str:
        return """
[source.python]
requirements = "requirements.txt"

[source.shared]
"settings.py" = "shared/settings.py"

[environment]
IHATEMONEY_SETTINGS_FILE_PATH = "$shared/settings.py"
MARKS = "$marks"
DATABASE = "$shared/data/money.sqlite"

[services.web]
command = ["gunicorn", "--bind", "127.0.0.1:{port}", "--timeout", "900", "site_wsgi:money"]
health = "/"
user = "$account"

[databases.main]
kind = "sqlite"
path = "shared/data/money.sqlite"

[migrations]
kind = "alembic"
on_start = true
shipped = ".venv/lib/python3*/site-packages/ihatemoney/migrations/versions/*.py"
"""

    def fill(self, site: Site) -> None:
        client = site.client()
        project = {
            "name": "Trip",
            "id": "trip",
            "password": "geheim",
            "contact_email": "ann@example.org",
            "default_currency": "XXX",
        }
        client.form("/api/projects", project)
        client.form("/api/projects/trip/members", {"name": "ann"}, _AUTHORIZATION)
        for number in range(100):
            self.write(client, site, f"first{number}")

    def write(self, client: Client, site: Site, key: str) -> None:
        bill = {"date": "2026-01-01", "what": key, "payer": "1", "payed_for": "1", "amount": "10"}
        client.form("/api/projects/trip/bills", bill, _AUTHORIZATION)

    def written(self, client: Client, site: Site) -> set[str]:
        return {item["what"] for item in client.json("GET", "/api/projects/trip/bills", headers=_AUTHORIZATION)}
