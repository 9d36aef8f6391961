"""The guestbook's people put it into containers: Compose file, Dockerfile and a worker in every version.

Images are made of the sources alone; what a container runs are this machine's programs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.demo import repository
from tests.servers import docker

WORKER = "import time\nwhile True:\n    time.sleep(0.2)\n"
DYING_WORKER = "raise SystemExit(3)\n"


def git(folder: Path, *arguments: str) -> str:
    argv = ["git", "-C", str(folder), "-c", "user.name=Guestbook", "-c", "user.email=guestbook@example.invalid"]
    return subprocess.run([*argv, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def engine(*arguments: str, client: str = "docker") -> str:
    """What the engine's client prints."""
    return subprocess.run([client, *arguments], capture_output=True, text=True, check=True).stdout.strip()


# A service that notes in a file if it meets a database between two versions, whose migration is not of its code.
WITNESS = """import pathlib, time
while True:
    pieces = sorted(pathlib.Path("/app/media").glob("piece-*.txt"))
    if pieces and not pathlib.Path("/app/migrations/0005_slow.py").exists():
        with open("/server/half-migrated", "a") as file:
            print(time.time(), *pieces, file=file)
    time.sleep(0.02)
"""


# A web that leads to its backend by name, and passes on what either says.
LEADING_WEB = """import asyncio

async def pour(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()

async def lead(reader, writer):
    try:
        inner, outer = await asyncio.open_connection("app", 8000)
    except OSError:
        writer.write(b"HTTP/1.1 502 Bad Gateway\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
        writer.close()
        return
    await asyncio.gather(pour(reader, outer), pour(inner, writer), return_exceptions=True)

async def main():
    async with await asyncio.start_server(lead, "0.0.0.0", 8000) as server:
        await server.serve_forever()

asyncio.run(main())
"""


def containerize(
    folder: Path,
    image: str,
    mounts: Sequence[str],
    *,
    user: str = "0:0",
    worker: str = WORKER,
    backend: bool = False,
    **more: Any,
) -> None:
    """Write the files into every version; `more` are further services. A `backend` is the service `app`."""
    for version in repository.VERSIONS:
        git(folder, "checkout", "--quiet", version.tag)
        ours = {
            "build": ".",
            "image": image,
            "restart": "always",
            "user": user,
            "env_file": ".env",
            "volumes": [*docker.machine_mounts(), *mounts],
            "stop_signal": "SIGINT",
        }
        web = {"command": [sys.executable, "/app/app.py"], "ports": ["127.0.0.1:${APPLICATION_PORT}:8000"]}
        services = {"web": {**ours, **web}, "worker": {**ours, "command": [sys.executable, "/app/worker.py"]}, **more}
        if backend:
            services["app"] = {**ours, "command": web["command"]}
            services["web"]["command"] = [sys.executable, "/app/lead.py"]
            (folder / "lead.py").write_text(LEADING_WEB)
        for name in ("web", "worker"):
            services[name]["depends_on"] = list(more)
        (folder / "compose.yml").write_text(json.dumps({"services": services}, indent=1))  # JSON is YAML
        (folder / "worker.py").write_text(worker)
        (folder / "Dockerfile").write_text(
            f"FROM {docker.IMAGE}\nCOPY *.py settings.json /app/\nCOPY migrations /app/migrations\n"
        )
        (folder / ".dockerignore").write_text(".git\nmedia\ndatabase\n")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", f"Guestbook {version.tag} in containers")
        git(folder, "tag", "--force", version.tag)
    git(folder, "checkout", "--quiet", "v1")


def id_of(image: str, *, client: str = "docker") -> str:
    """Empty where there is no image of that name."""
    listed = engine("images", "--quiet", "--no-trunc", image, client=client).splitlines()
    return listed[0] if listed else ""


def name_image(name: str, id: str, *, client: str = "docker") -> None:
    """Gives a name to an image, or takes it away where there is none."""
    if id:
        engine("tag", id, name, client=client)
    elif id_of(name, client=client):
        engine("rmi", name, client=client)


def of_project(name: str, *more: str, client: str = "docker") -> list[str]:
    label = f"--filter=label=com.docker.compose.project={name}"
    return engine("ps", "--all", "--quiet", "--no-trunc", label, *more, client=client).split()


# What an engine of the tests' own keeps from test to test: base images, servers in containers, networks of its own.
_OWN = "holdfast-test"
_BASES = ("postgres", "redis", "nginx", "ghcr.io/funkyfuture/deck-chores", "<none>")
_SERVERS = ("box",)
_NETWORKS = ("bridge", "host", "none", "podman")


def left_behind(client: str) -> list[str]:
    """What tests left in an engine: containers, networks, volumes, names of images."""
    names = engine("ps", "--all", "--format={{.Names}}", client=client).split()
    networks = engine("network", "ls", "--format={{.Name}}", client=client).split()
    images = engine("images", "--format={{.Repository}}:{{.Tag}}", client=client).split()
    return [
        *(f"container {name}" for name in names if not name.startswith(_SERVERS)),
        *(f"network {name}" for name in networks if name not in _NETWORKS),
        *(f"volume {name}" for name in engine("volume", "ls", "--quiet", client=client).split()),
        *(f"image {name}" for name in images if not _is_base(name.removeprefix("localhost/").rpartition(":")[0])),
    ]


def _is_base(repository: str) -> bool:
    return repository in _BASES or repository.startswith(_OWN)


def remove(name: str, *, images: Sequence[str] = (), client: str = "docker") -> None:
    """Everything of a project: containers, networks, and images by the beginning of their names."""
    depend = ["--depend"] if client == "podman" else []  # podman-compose makes one need the other
    for id in of_project(name, client=client):
        engine("rm", "--force", "--volumes", *depend, id, client=client)
    label = f"--filter=label=com.docker.compose.project={name}"
    for network in engine("network", "ls", "--quiet", label, client=client).split():
        engine("network", "rm", network, client=client)
    for tag in engine("images", "--format={{.Repository}}:{{.Tag}}", client=client).splitlines():
        if images and tag.removeprefix("localhost/").startswith(tuple(images)):
            engine("rmi", tag, client=client)
