"""What is in the checkout and in the instance's folder of the stand-in of USO beside its Django project."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.servers import docker
from tests.standins import postgres
from tests.standins.images import NGINX_DOCKERFILE, PATH, nginx_configuration

_PASSWORD = "not-for-logs-either"

_BUILD_IMAGE = """#!/bin/bash
# build-image.sh [apache|nginx]
cd "$(dirname "$0")/.."
server="${1:-apache}"
engine="${ENGINE:-$(command -v podman || command -v docker)}"
version="$(git describe)"
"$engine" build -t "usonline:$version" -t "usonline:$server" -t usonline:latest -f "deploy/$server/Dockerfile" .
"$engine" image prune -f
"""

_RUN_SERVER = """#!/bin/bash
cd /usonline
for ((i = 0; i < 600; i++)); do
    (exec 3<>/dev/tcp/database/5432) 2>/dev/null && break
    sleep 0.1
done
touch local/__init__.py
for ((i = 0; i < 5; i++)); do
    python manage.py migrate --noinput && break
    sleep 0.5
done
if [ ! -e local/.dbinit ]; then
    python manage.py load_initial_data && touch local/.dbinit
fi
mkdir -p local/media/uploads
chown www-data: local/media local/media/uploads
exec gunicorn usonline.wsgi --bind BIND --threads 4 --worker-tmp-dir /dev/shm --graceful-timeout 5 \\
    --pid /tmp/gunicorn.pid --user www-data --group www-data
"""
_BINDS = {"apache": "0.0.0.0:80", "nginx": "unix:/usonline/socket/web.sock"}

# What is said by labels is run inside the container that bears them, now and again.
_CRON = """#!/bin/bash
label=deck-chores.isocron
trap exit TERM INT
while true; do
    docker ps --filter "label=$label.command" --format "{{.ID}} {{.Label \\"$label.command\\"}}" |
    while read -r id words; do
        docker exec "$id" $words </dev/null
    done
    sleep 1 & wait
done
"""

_SERVICES = """
services:
  database:
    image: postgres:17-alpine
    restart: always
    environment: {POSTGRES_USER: usonline, POSTGRES_DB: usonline, POSTGRES_PASSWORD: "${DATABASE_PASSWORD}"}
    volumes: [MACHINE, "./database:POSTGRES_DATA:Z"]
  uso:
    image: usonline:latest
    restart: always
    env_file: ./.env
    depends_on: [database]
    labels:
      deck-chores.isocron.command: "/usonline/manage.py work cron --once"
      deck-chores.isocron.interval: "10m"
"""
_APACHE = """    ports: ["127.0.0.1:PORT:80"]
    volumes: [MACHINE, "./local:/usonline/local:Z"]
"""
_NGINX = """    volumes: [MACHINE, "./local:/usonline/local:z", "socket_data:/usonline/socket"]
    healthcheck:
      {test: ["CMD-SHELL", "kill -0 $$(cat /tmp/gunicorn.pid)"], interval: 2s, timeout: 2s, retries: 5}
  proxy:
    image: nginx:latest
    restart: always
    ports: ["127.0.0.1:PORT:80"]
    depends_on: [uso]
    volumes:
      [MACHINE, "./local/nginx.conf:/nginx.conf:ro", "./local/media:/srv/media:ro", "socket_data:/usonline/socket"]
"""
_CRON_SERVICE = """  cron:
    image: ghcr.io/funkyfuture/deck-chores:1.3
    restart: always
    depends_on: [uso]
    volumes: [MACHINE, "SOCKET:/var/run/docker.sock"]
"""
_NGINX_VOLUMES = "volumes:\n  socket_data:\n"
_NGINX_PLACES = """
        proxy_set_header Host $host;
        error_page 500 502 503 504 /50x.html;
        location = /50x.html { root /srv/media; }
        location /media/ { alias /srv/media/; }
        location / { proxy_pass http://unix:/usonline/socket/web.sock; }
"""


def write_checkout(folder: Path) -> None:
    """All but the Django project and what `write_dockerfiles` writes."""
    deploy = folder / "deploy"
    _write_script(deploy / "build-image.sh", _BUILD_IMAGE)
    for server, bind in _BINDS.items():
        _write_script(deploy / server / "run-server.sh", _RUN_SERVER.replace("BIND", bind))
    (folder / ".dockerignore").write_text(".git\ndocs/\nlocal/\n")
    (folder / ".gitignore").write_text("__pycache__/\n/local/\n")


def write_dockerfiles(folder: Path, *, broken: bool) -> None:
    for server in _BINDS:
        (folder / "deploy" / server / "Dockerfile").write_text(
            f"FROM {docker.IMAGE}\nENV PATH={PATH} HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1\n"
            f"COPY . /usonline\n{'COPY nothing /nowhere' if broken else ''}\nWORKDIR /usonline\nEXPOSE 80\n"
            f'CMD ["/usonline/deploy/{server}/run-server.sh"]\n'
        )


def write_instance(folder: Path, server: str, port: int, socket: str | None) -> None:
    """As the project's script prepares it: copies that no `git pull` refreshes."""
    media = folder / "local" / "media"
    media.mkdir(parents=True)
    (folder / "database").mkdir()
    machine = ", ".join(f'"{mount}"' for mount in docker.machine_mounts())
    text = _SERVICES + (_APACHE if server == "apache" else _NGINX)
    text += "" if socket is None else _CRON_SERVICE.replace("SOCKET", socket)
    text += _NGINX_VOLUMES if server == "nginx" else ""
    text = text.replace("MACHINE", machine).replace("POSTGRES_DATA", postgres.DATA).replace("PORT", str(port))
    (folder / "docker-compose.yml").write_text(text)
    (folder / ".env").write_text(f"SECRET_KEY=not-for-logs\nDATABASE_PASSWORD={_PASSWORD}\n")
    (folder / ".env").chmod(0o600)
    (folder / "local" / "settings.py").write_text('SITE_NAME = "Here"\n')
    (media / "robots.txt").write_text("User-agent: *\n")
    (media / "50x.html").write_text("<p>We will be back.</p>\n")
    if server == "nginx":
        (folder / "local" / "nginx.conf").write_text(nginx_configuration(_NGINX_PLACES))


def build_cron(folder: Path, engine: str) -> None:
    """Under the name that it has in its registry."""
    _write_script(folder / "cron", _CRON)
    (folder / "Dockerfile").write_text(f'FROM {docker.IMAGE}\nENV PATH={PATH}\nCOPY cron /cron\nCMD ["/cron"]\n')
    _build(folder, "ghcr.io/funkyfuture/deck-chores:1.3", engine)


def build_nginx(folder: Path, engine: str) -> None:
    """As the stock image; where a configuration is mounted over its own."""
    folder.mkdir()
    (folder / "Dockerfile").write_text(NGINX_DOCKERFILE)
    (folder / "nginx.conf").write_text(nginx_configuration(""))
    _build(folder, "nginx:latest", engine)


def _build(folder: Path, tag: str, engine: str) -> None:
    subprocess.run([engine, "build", "--quiet", "--tag", tag, str(folder)], capture_output=True, check=True)


def _write_script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
