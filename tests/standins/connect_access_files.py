"""The checkout of the stand-in of Connect Access without its Django project: Compose files, images, start scripts."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.servers import docker
from tests.standins import postgres
from tests.standins.images import NGINX_DOCKERFILE, PATH, nginx_configuration

PACKAGE = "connect_access"
MEDIA = "/app/backend/connect_access/media"
_ACCOUNT = "1000:1000"
_COMPOSE_FILE = """
x-machine: &machine [MACHINE]
volumes:
  ENVIRONMENT_postgres_data:
  ENVIRONMENT_postgres_data_backups:
  ENVIRONMENT_django_media:

services:
  django: &django
    build: {context: ., dockerfile: ./compose/production/django/Dockerfile}
    image: connect_access_django:ENVIRONMENT
    depends_on: [postgres, redis]
    volumes: [MACHINE, "ENVIRONMENT_django_media:MEDIA"]
    env_file: ./.env_ENVIRONMENT
    command: /start
  celeryworker:
    <<: *django
    image: connect_access_celeryworker:ENVIRONMENT
    command: /start-celeryworker
  celerybeat:
    <<: *django
    image: connect_access_celerybeat:ENVIRONMENT
    command: /start-celerybeat
  postgres:
    build: {context: ., dockerfile: ./compose/production/postgres/Dockerfile}
    image: connect_access_postgres:ENVIRONMENT
    volumes:
      [MACHINE, "ENVIRONMENT_postgres_data:POSTGRES_DATA:Z", "ENVIRONMENT_postgres_data_backups:/backups:z",
       "./compose/production/postgres/init-scripts:/docker-entrypoint-initdb.d"]
    env_file: ./.env_ENVIRONMENT
  redis:
    image: redis:5.0
    volumes: *machine
  traefik:
    build: {context: ./compose/production/traefik}
    image: connect_access_traefik:ENVIRONMENT
    depends_on: [django, nginx]
    ports: ["${APPLICATION_PORT}:80"]
    volumes: *machine
  nginx:
    build: {context: ./compose/production/nginx}
    image: connect_access_nginx:ENVIRONMENT
    volumes: [MACHINE, "ENVIRONMENT_django_media:/srv/media:ro"]
"""

DOCKERFILE = f"""FROM {docker.IMAGE}
ENV PATH={PATH} HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY compose/production/django/entrypoint /entrypoint
COPY compose/production/django/start /start
COPY compose/production/django/celery/worker/start /start-celeryworker
COPY compose/production/django/celery/beat/start /start-celerybeat
COPY --chown={_ACCOUNT} . /app
USER {_ACCOUNT}
WORKDIR /app
ENTRYPOINT ["/entrypoint"]
"""
BROKEN_DOCKERFILE = f"{DOCKERFILE}COPY nothing /nowhere\n"

_ENTRYPOINT = """#!/bin/bash
set -o errexit -o pipefail -o nounset
python - <<'END'
import os
import time

import psycopg

deadline = time.monotonic() + 30
while True:
    try:
        psycopg.connect(host=os.environ["POSTGRES_HOST"], port=os.environ["POSTGRES_PORT"],
                        user=os.environ["POSTGRES_USER"], password=os.environ["POSTGRES_PASSWORD"],
                        dbname=os.environ["POSTGRES_DB"]).close()
        break
    except psycopg.OperationalError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.1)
END
exec "$@"
"""
_START = """#!/bin/bash
set -o errexit
python /app/backend/manage.py collectstatic --noinput >/dev/null
cd /app/backend
exec gunicorn connect_access.wsgi --bind 0.0.0.0:5000 --threads 4 --worker-tmp-dir /dev/shm --graceful-timeout 5
"""
_START_LOOP = """#!/bin/bash
exec python /app/backend/manage.py work NAME --interval 1
"""

_TRAEFIK_PLACES = """
        set $media nginx:80;
        set $web django:5000;
        proxy_set_header Host $host;
        location /media/ { proxy_pass http://$media; }
        location / { proxy_pass http://$web; }
"""
_NGINX_PLACES = "        location /media/ { alias /srv/media/; }\n"
# Answers whatever it is asked as an idle Redis answers PING: nothing of these tests depends on a queue.
_REDIS = """import signal, socketserver, sys


class Client(socketserver.StreamRequestHandler):
    def handle(self):
        while self.request.recv(4096):
            self.request.sendall(b"+PONG\\r\\n")


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
socketserver.ThreadingTCPServer.daemon_threads = True
socketserver.ThreadingTCPServer(("", 6379), Client).serve_forever()
"""


def write(folder: Path) -> None:
    """All but the Django project."""
    machine = ", ".join(f'"{mount}"' for mount in docker.machine_mounts())
    for environment in ("production", "staging"):
        text = _COMPOSE_FILE.replace("MACHINE", machine).replace("ENVIRONMENT", environment)
        (folder / f"{environment}.yml").write_text(text.replace("MEDIA", MEDIA).replace("POSTGRES_DATA", postgres.DATA))
    places = folder / "compose" / "production"
    postgres.write(folder, "compose/production/postgres")
    files = {
        "compose/production/postgres/init-scripts/end_to_end.sql": "CREATE DATABASE connect_access_end_to_end;\n",
        "compose/production/traefik/Dockerfile": NGINX_DOCKERFILE,
        "compose/production/traefik/nginx.conf": nginx_configuration(_TRAEFIK_PLACES),
        "compose/production/nginx/Dockerfile": NGINX_DOCKERFILE,
        "compose/production/nginx/nginx.conf": nginx_configuration(_NGINX_PLACES),
        "compose/production/django/entrypoint": _ENTRYPOINT,
        "compose/production/django/start": _START,
        "compose/production/django/celery/worker/start": _START_LOOP.replace("NAME", "celeryworker"),
        "compose/production/django/celery/beat/start": _START_LOOP.replace("NAME", "celerybeat"),
        f"backend/{PACKAGE}/media/.gitkeep": "",
        f"backend/{PACKAGE}/static/site.css": "body { margin: 0 }\n",
        ".gitignore": ".env_*\n.envs/\n__pycache__/\nbackend/staticfiles/\n",
        ".dockerignore": ".git\n.env*\n.envs\nholdfast.toml\n",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for path in (places / "django").rglob("*"):
        if path.is_file():
            path.chmod(0o755)


def build_redis(folder: Path, engine: str) -> None:
    folder.mkdir()
    (folder / "redis.py").write_text(_REDIS)
    (folder / "Dockerfile").write_text(
        f'FROM {docker.IMAGE}\nENV PATH={PATH}\nCOPY redis.py /redis.py\nCMD ["python", "/redis.py"]\n'
    )
    subprocess.run([engine, "build", "--quiet", "--tag", "redis:5.0", str(folder)], capture_output=True, check=True)
