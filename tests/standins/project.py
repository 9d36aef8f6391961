"""A small Django project and its versions; the stand-ins share it, under names of their own.

v1 has rows and uploads, v2 a column with a data migration, v3 one more table and column. What is bad departs from v2.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

PERSONS = 300
NOTES = 100
UPLOADS = 40

GOOD = ("v1", "v2", "v3")
BAD = ("migration-dies", "loses-rows", "answers-500", "worker-dies", "does-not-start", "does-not-build")

# Tables whose rows come and go while nobody does anything, or which are Django's own.
RESTLESS = ("django_session", "django_migrations", "%_tick")

_MANAGE = """#!/usr/bin/env python
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "PACKAGE.settings")
from django.core.management import execute_from_command_line

execute_from_command_line(sys.argv)
"""

_WSGI = """import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "PACKAGE.settings")
from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
"""

_SETTINGS = """import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = os.environ["SECRET_NAME"]
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions",
                  "django.contrib.staticfiles", "PACKAGE"]
ROOT_URLCONF = "PACKAGE.urls"
DATABASES = {"default": {
    "ENGINE": "django.db.backends.postgresql", "CONN_MAX_AGE": 0,
    **DATABASE,
}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MEDIA_ROOT = MEDIA
STATIC_ROOT = BASE_DIR / "staticfiles"
STATIC_URL = "/static/"
DATA_UPLOAD_MAX_MEMORY_SIZE = None
USE_TZ = True
VERSION = "VERSION_NAME"
"""

_MODELS = """from django.db import models


class Person(models.Model):
    name = models.CharField(max_length=80)
    email = models.EmailField()


class Note(models.Model):
    person = models.ForeignKey(Person, on_delete=models.CASCADE)
    text = models.TextField()


class Kind(models.Model):
    name = models.CharField(max_length=40, unique=True)
    description = models.TextField()


class Upload(models.Model):
    person = models.ForeignKey(Person, on_delete=models.CASCADE)
    title = models.CharField(max_length=80)
    file = models.FileField(upload_to="uploads/%Y")
    sha256 = models.CharField(max_length=64)


class Tick(models.Model):
    source = models.CharField(max_length=40)
    at = models.DateTimeField(auto_now_add=True)
"""

_VIEWS = """import hashlib
import sys

from django.conf import settings
from django.core.files.base import ContentFile
from django.http import FileResponse, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from .models import Person, Upload


def index(request):
    counts = {"persons": Person.objects.count(), "uploads": Upload.objects.count()}
    return JsonResponse({"version": settings.VERSION, **counts})


def health(request):
    list(Upload.objects.all()[:1])
    return JsonResponse({"version": settings.VERSION})


def version(request):
    return HttpResponse(settings.VERSION, content_type="text/plain")


@csrf_exempt
def uploads(request):
    if request.method != "POST":
        return JsonResponse({"uploads": list(Upload.objects.order_by("id").values("id", "title", "sha256"))})
    digest = hashlib.sha256(request.body).hexdigest()
    upload = Upload(person=Person.objects.first(), title=request.GET.get("title", "unnamed"), sha256=digest)
    upload.file.save(f"{digest[:16]}.bin", ContentFile(request.body))
    return JsonResponse({"id": upload.pk, "file": upload.file.name, "sha256": digest}, status=201)


def upload(request, number):
    return FileResponse(Upload.objects.get(pk=number).file.open())


def failed(request):
    return JsonResponse({"error": str(sys.exc_info()[1])}, status=500)
"""

_URLS = """from django.urls import path

from . import views

urlpatterns = [
    path("", views.index), path("health/", views.health), path("version/", views.version),
    path("uploads/", views.uploads), path("uploads/<int:number>/", views.upload), path("login/", views.health),
]
handler500 = views.failed
"""

_EXAMPLE = """import hashlib

from django.core.files.base import ContentFile
from django.core.management.base import BaseCommand

from PACKAGE.models import Kind, Note, Person, Upload


class Command(BaseCommand):
    help = "Installs example data, once."

    def handle(self, **options):
        if Person.objects.exists():
            return
        persons = Person.objects.bulk_create(
            Person(name=f"Person {n}", email=f"person{n}@example.invalid") for n in range(PERSONS))
        Note.objects.bulk_create(Note(person=persons[n], text=f"Note {n} \\u00e9\\u4e2d") for n in range(NOTES))
        for n in range(UPLOADS):
            content = hashlib.sha256(b"%d" % n).digest() * (n * 20 + 1)
            upload = Upload(person=persons[n], title=f"Upload {n}", sha256=hashlib.sha256(content).hexdigest())
            upload.file.save(f"{n}.bin", ContentFile(content))
"""

_LOAD = """from django.core.management.base import BaseCommand

from PACKAGE.models import Kind


class Command(BaseCommand):
    help = "Loads what the application ships with, over what is there."

    def handle(self, **options):
        for name in ("article", "report", "letter"):
            Kind.objects.update_or_create(name=name, defaults={"description": f"A {name}, as shipped."})
"""

# A loop of the application's: `work NAME [--once]`.
_WORK = """import signal
import sys
import time

from django.core.management.base import BaseCommand
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from PACKAGE.models import Person, Tick, Upload


class Command(BaseCommand):
    def add_arguments(self, parser):
        parser.add_argument("name")
        parser.add_argument("--once", action="store_true")
        parser.add_argument("--interval", type=float, default=1)

    def handle(self, name, once, interval, **options):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        executor = MigrationExecutor(connection)
        unknown = {one for one in executor.loader.applied_migrations if one[0] == "PACKAGE"} - set(
            executor.loader.disk_migrations)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()) or unknown:
            sys.exit("the schema is not that of this code")
        while True:
            list(Upload.objects.all()[:1]), list(Person.objects.all()[:1])
            Tick.objects.create(source=name)
            if once:
                return
            time.sleep(interval)
"""

_INITIAL = """import django.db.models.deletion
from django.db import migrations, models

KEY = ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"))
PERSON = ("person", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="PACKAGE.person"))


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel("Person", [
            KEY, ("name", models.CharField(max_length=80)), ("email", models.EmailField(max_length=254))]),
        migrations.CreateModel("Note", [KEY, ("text", models.TextField()), PERSON]),
        migrations.CreateModel("Kind", [
            KEY, ("name", models.CharField(max_length=40, unique=True)), ("description", models.TextField())]),
        migrations.CreateModel("Upload", [
            KEY, ("title", models.CharField(max_length=80)), ("file", models.FileField(upload_to="uploads/%Y")),
            ("sha256", models.CharField(max_length=64)), PERSON]),
        migrations.CreateModel("Tick", [
            KEY, ("source", models.CharField(max_length=40)), ("at", models.DateTimeField(auto_now_add=True))]),
    ]
"""

_LABEL = """from django.db import migrations, models


def fill(apps, schema_editor):
    for upload in apps.get_model("PACKAGE", "Upload").objects.all():
        upload.label = upload.title.upper()
        upload.save()


class Migration(migrations.Migration):
    dependencies = [("PACKAGE", "0001_initial")]
    operations = [
        migrations.AddField("upload", "label", models.CharField(default="", max_length=80)),
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
"""

_COMMENT = """import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("PACKAGE", "0002_upload_label")]
    operations = [
        migrations.AddField("person", "phone", models.CharField(max_length=40, null=True)),
        migrations.CreateModel("Comment", [
            ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
            ("text", models.TextField()),
            ("upload", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="PACKAGE.upload"))]),
    ]
"""

# What it did before it dies stays: it is not atomic.
_DIES = """from django.db import migrations, models


def change(apps, schema_editor):
    apps.get_model("PACKAGE", "Note").objects.filter(pk__lte=40).delete()
    raise RuntimeError("this migration dies half-way")


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("PACKAGE", "0002_upload_label")]
    operations = [
        migrations.AddField("person", "half", models.CharField(max_length=40, null=True)),
        migrations.RunPython(change),
    ]
"""

# As a model that is moved elsewhere by a deletion and a creation, without a copy in between.
_LOSES = """import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("PACKAGE", "0002_upload_label")]
    operations = [
        migrations.DeleteModel("Note"),
        migrations.CreateModel("Note", [
            ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
            ("text", models.TextField()),
            ("person", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="PACKAGE.person"))]),
    ]
"""

_LABEL_FIELD = '    label = models.CharField(max_length=80, default="")\n'
_PHONE_FIELD = "    phone = models.CharField(max_length=40, null=True)\n"
_COMMENT_MODEL = """

class Comment(models.Model):
    upload = models.ForeignKey(Upload, on_delete=models.CASCADE)
    text = models.TextField()
"""


class Project:
    """`place` is where manage.py lies; `database` and `media` are Python expressions of its settings."""

    def __init__(
        self, place: str, package: str, *, secret: str, database: str, media: str, more_settings: str = ""
    ) -> None:
        self._place = place
        self._package = package
        self._settings = _SETTINGS.replace("SECRET_NAME", secret).replace("DATABASE,", f"{database},")
        self._settings = self._settings.replace("= MEDIA\n", f"= {media}\n") + more_settings

    def write(self, checkout: Path, version: str) -> None:
        """Write its files of one of GOOD or BAD over those of another version; the owner does `does-not-build`."""
        place = checkout / self._place
        package = place / self._package
        for name, text in self._files(version).items():
            path = package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("PACKAGE", self._package))
        for path in (package / "migrations").glob("*.py"):
            if f"migrations/{path.name}" not in self._files(version):
                path.unlink()
        (place / "manage.py").write_text(_MANAGE.replace("PACKAGE", self._package))
        (place / "manage.py").chmod(0o755)
        (checkout / "VERSION").write_text(f"{version}\n")

    def _files(self, version: str) -> dict[str, str]:
        commands = "management/commands"
        files = {
            "__init__.py": "",
            "management/__init__.py": "",
            f"{commands}/__init__.py": "",
            "migrations/__init__.py": "",
            "settings.py": self._settings.replace("VERSION_NAME", version),
            "wsgi.py": _WSGI,
            "models.py": _MODELS,
            "views.py": _VIEWS,
            "urls.py": _URLS,
            "migrations/0001_initial.py": _INITIAL,
            f"{commands}/install_example_data.py": _EXAMPLE.replace("PERSONS", str(PERSONS))
            .replace("NOTES", str(NOTES))
            .replace("UPLOADS", str(UPLOADS)),
            f"{commands}/load_initial_data.py": _LOAD,
            f"{commands}/work.py": _WORK,
        }
        if version != "v1":
            files["migrations/0002_upload_label.py"] = _LABEL
            files["models.py"] = _after(files["models.py"], "class Upload", _LABEL_FIELD)
        if version in _CHANGES:
            _CHANGES[version](files)
        return files


def _after(text: str, heading: str, line: str) -> str:
    """The class with one more line at its end."""
    first, rest = text.split(heading)
    body, separator, others = rest.partition("\n\n\n")
    return f"{first}{heading}{body}\n{line.rstrip()}{separator or chr(10)}{others}"


def _third(files: dict[str, str]) -> None:
    files["migrations/0003_comment.py"] = _COMMENT
    files["models.py"] = _after(files["models.py"], "class Person", _PHONE_FIELD) + _COMMENT_MODEL


def _dies(files: dict[str, str]) -> None:
    files["migrations/0003_dies.py"] = _DIES
    field = "    half = models.CharField(max_length=40, null=True)\n"
    files["models.py"] = _after(files["models.py"], "class Person", field)


def _answers_500(files: dict[str, str]) -> None:
    views = _VIEWS
    for head in ("def index(request):\n", "def health(request):\n"):
        views = views.replace(head, f'{head}    raise RuntimeError("bad")\n')
    files["views.py"] = views


def _worker_dies(files: dict[str, str]) -> None:
    """End at once: its command is only known after all imports, for which a slow machine may take longer."""
    files["settings.py"] = f"import sys\n\nif 'work' in sys.argv:\n    raise SystemExit(3)\n{files['settings.py']}"


_CHANGES: dict[str, Callable[[dict[str, str]], None]] = {
    "v3": _third,
    "migration-dies": _dies,
    "loses-rows": lambda files: files.update({"migrations/0003_loses.py": _LOSES}),
    "answers-500": _answers_500,
    "worker-dies": _worker_dies,
    "does-not-start": lambda files: files.update({"wsgi.py": 'raise RuntimeError("no")\n'}),
}
