"""Wagtail, a content management system on Django with PostgreSQL: from 5.2 to 7.0, with a project as it starts one."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.realworld.application import Application, Client, Repository, Site, call, picture, then_waits

_MIGRATE = "python manage.py migrate --noinput"
_SETTINGS = """
import os

from .base import *

DEBUG = False
ALLOWED_HOSTS = ["*"]
SECRET_KEY = os.environ["SECRET_KEY"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ["DATABASE"],
        "HOST": os.environ["DATABASE_HOST"],
        "USER": os.environ["DATABASE_USER"],
    }
}
"""
_BREAKS = """
from django.db import migrations

def stop(apps, schema_editor):
    raise RuntimeError("the migration does not know what to do")

class Migration(migrations.Migration):
    dependencies = [("home", "0002_create_homepage"), ("wagtailcore", "0094_alter_page_locale")]
    operations = [migrations.RunPython(stop)]
"""
_ADMINISTRATOR, _PASSWORD = "ann", "a-long-password"


class Wagtail(Application):
    name = "wagtail"
    language = "Python"
    database = "postgresql"
    personal = ("ann@example.org",)
    old, new = "5.2.8", "7.0.7"
    broken = (("unstartable", "does not start"), ("dying", "a migration among its own raises an error"))
    volatile = ("django_session",)

    def prepare(self, site: Site) -> None:
        key = site.folder / "secret-key"
        key.write_text("x" * 60)
        key.chmod(0o600)

    def fetch(self, repository: Repository, scratch: Path) -> None:
        call([sys.executable, "-m", "venv", "starter"], scratch)
        for version in (self.old, self.new):
            requirements = f"wagtail=={version}\npsycopg[binary]\ngunicorn\n"
            call([str(scratch / "starter/bin/pip"), "install", "--quiet", f"wagtail=={version}"], scratch)
            project = scratch / version
            project.mkdir()
            call([str(scratch / "starter/bin/wagtail"), "start", "mysite", "."], project)
            repository.clear()
            for path in sorted(project.rglob("*")):
                if path.is_file():
                    target = repository.path / path.relative_to(project)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(path.read_bytes())
            repository.write("requirements.txt", requirements)
            repository.write("mysite/settings/production.py", _SETTINGS)
            repository.tag(version)
        broken = _SETTINGS.replace("DEBUG = False", "DEBUG = False\nINSTALLED_APPS += ['no_such_application']")
        repository.change("unstartable", self.new, {"mysite/settings/production.py": broken})
        repository.change("dying", self.new, {"home/migrations/0003_breaks.py": _BREAKS})
        repository.change("slow", self.new, {"holdfast.toml": then_waits(_MIGRATE)})

    def configuration(self) -> str:
        return """
[source]
writable = ["static"]

[source.python]
requirements = "requirements.txt"

[source.shared]
media = "shared/media"

[environment]
DJANGO_SETTINGS_MODULE = "mysite.settings.production"
SECRET_KEY = "file:$folder/secret-key"
DATABASE = "$database"
DATABASE_HOST = "$host"
DATABASE_USER = "$user"

[services.web]
command = ["gunicorn", "mysite.wsgi", "--bind", "127.0.0.1:{port}"]
health = "/"
user = "$account"

[tasks]
prepare = ["python", "manage.py", "collectstatic", "--noinput"]
migrate = ["python", "manage.py", "migrate", "--noinput"]

[tasks.install]
commands = [["python", "manage.py", "migrate", "--noinput"],
  ["python", "manage.py", "createsuperuser", "--noinput", "--username", "ann", "--email", "ann@example.org"]]
environment = { DJANGO_SUPERUSER_PASSWORD = "a-long-password" }

[migrations]
kind = "django"

[files.media]
path = "shared/media"
"""

    def _log_in(self, client: Client) -> None:
        if client.cookie("sessionid"):
            return
        client.get("/admin/login/")
        given = {"username": _ADMINISTRATOR, "password": _PASSWORD, "csrfmiddlewaretoken": client.cookie("csrftoken")}
        client.form("/admin/login/", given)

    def fill(self, site: Site) -> None:
        client = site.client()
        self._log_in(client)
        for number in range(10):
            values = {"csrfmiddlewaretoken": client.cookie("csrftoken"), "title": f"picture {number}", "tags": ""}
            file = (f"picture{number}.png", picture(str(number)))
            client.upload("/admin/images/add/", values, {"file": file})
            _accepted(client, "/add/")
            self.write(client, site, f"first{number}")

    def write(self, client: Client, site: Site, key: str) -> None:
        self._log_in(client)
        values = {"csrfmiddlewaretoken": client.cookie("csrftoken"), "title": key, "slug": key}
        values |= {f"comments-{name}_FORMS": "0" for name in ("TOTAL", "INITIAL", "MIN_NUM")}
        client.form("/admin/pages/add/home/homepage/3/", {**values, "action-publish": "action-publish"})
        _accepted(client, "/add/")

    def written(self, client: Client, site: Site) -> set[str]:
        self._log_in(client)
        found: set[str] = set()
        while True:
            path = f"/admin/api/main/pages/?child_of=3&order=id&limit=20&offset={len(found)}"
            items = client.json("GET", path)["items"]
            found |= {item["title"] for item in items}
            if not items:
                return found


def _accepted(client: Client, form: str) -> None:
    """Raise ValueError where a form was shown again instead of being accepted."""
    if form in client.url:
        raise ValueError(f"{client.url} shows the form again")
