import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = os.environ["SECRET_KEY"]
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "archive", "notes"]
ROOT_URLCONF = "shop.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3", "OPTIONS": {"timeout": 20}}}
if "DATABASE_NAME" in os.environ:
    DATABASES["default"] = {
        "ENGINE": f"django.db.backends.{os.environ['DATABASE_KIND']}", "NAME": os.environ["DATABASE_NAME"],
        "HOST": os.environ["DATABASE_HOST"], "USER": os.environ["DATABASE_USER"],
    }
if os.environ.get("DATABASE_KIND") == "mysql":
    import pymysql

    pymysql.install_as_MySQLdb()
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MEDIA_ROOT = BASE_DIR / "media"
USE_TZ = True
VERSION = (BASE_DIR / "VERSION").read_text().strip()
