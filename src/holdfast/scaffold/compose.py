"""What `init` proposes for a folder with Compose files; it reads the resolved model, never the files themselves."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.drivers.compose_model import Model, Mount, Service
from holdfast.drivers.runtimes.compose.cli.select import compose_of
from holdfast.drivers.runtimes.compose.project import Project, env_files_in, files_in
from holdfast.errors import CommandFailedError, CommandTimeoutError, ConfigurationError
from holdfast.scaffold import scripts
from holdfast.system.host import Host

# Parts of the name of an image or service that show that it is not a service of the application itself.
_DATABASES = {"postgres": "postgresql", "postgis": "postgresql", "mariadb": "mariadb", "mysql": "mysql"}
_BESIDE = (
    "redis",
    "valkey",
    "memcached",
    "rabbitmq",
    "elasticsearch",
    "opensearch",
    "nginx",
    "traefik",
    "caddy",
    "haproxy",
    "mailpit",
    "mailhog",
    "flower",
    "deck-chores",
)
_COMMANDS = (("docker", "compose"), ("podman-compose",))
_SCHEDULERS = ("beat", "cron", "schedul")
_WORKERS = ("worker", "celery", "queue", "consumer", "sidekiq")
_UPLOADS = ("media", "uploads", "attachments", "files")
_SOCKETS = "sock"
_NO_DATA = ("static", "cache", "tmp", _SOCKETS, "log")
_NAME_KEYS = {
    "postgresql": ("POSTGRES_DB", "POSTGRES_USER"),
    "mariadb": ("MARIADB_DATABASE", "MYSQL_DATABASE"),
    "mysql": ("MYSQL_DATABASE",),
}
_USER_KEYS = {"postgresql": ("POSTGRES_USER",), "mariadb": ("MARIADB_USER", "MYSQL_USER"), "mysql": ("MYSQL_USER",)}
_OF_AN_ENVIRONMENT = ("production.yml", "production.yaml", "docker-compose.production.yml", "docker-compose.prod.yml")
_ENV_FILES = (".env", ".env_production", ".env.production")


@dataclass
class Proposal:
    """Lines of holdfast.toml, the findings behind them, and files that every backup should contain."""

    lines: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    config_files: list[str] = field(default_factory=list)
    repository: str | None = None
    script: tuple[str, ...] = ()
    is_sure_of_script: bool = True


def project_in(folder: Path, host: Host) -> Project | None:
    """Return the Compose project of a folder; None without one."""
    named = [name for name in _OF_AN_ENVIRONMENT if (folder / name).is_file()][:1]
    files = files_in(named, folder, folder)
    if not files[0].is_file():
        return None
    given = [name for name in _ENV_FILES if (folder / name).is_file()][:1]
    return Project(_command_of(folder, host), folder, files, env_files_in(given, folder))


def _command_of(folder: Path, host: Host) -> tuple[str, ...]:
    """Return the command that started the folder's containers; else the first one that is installed."""
    installed = [argv for argv in _COMMANDS if all(map(shutil.which, (argv[0], _client_of(argv))))]
    label = f"--filter=label=com.docker.compose.project.working_dir={folder}"
    for argv in installed if len(installed) > 1 else ():
        try:
            if host.capture([_client_of(argv), "ps", "--all", "--quiet", label]).strip():
                return argv
        except (CommandFailedError, CommandTimeoutError):
            continue  # it does not run
    return (installed or _COMMANDS)[0]


def _client_of(argv: tuple[str, ...]) -> str:
    return argv[0].partition("-")[0]


def model_of(project: Project, host: Host, findings: list[str]) -> Model | None:
    """Return Compose's model of the project's files; None, with a finding, if it has none."""
    try:
        compose = compose_of(project)
        return compose.model(host.capture(compose.config_argv()))
    except CommandFailedError as error:
        said = error.output_tail.strip() or error.what
        findings.append(
            f"{project.files[0].name} is ignored, because {' '.join(project.command)} cannot read it: {said}"
        )
    except ConfigurationError as error:
        findings.append(f"{project.files[0].name} is ignored: {error.what}, {'; '.join(error.problems)}")
    return None


def propose(project: Project, model: Model, host: Host) -> Proposal:
    made = Proposal()
    folder = project.folder
    checkout = scripts.checkout_of(folder, model)
    made.repository = os.path.relpath(checkout.folder, folder) if checkout is not None else None
    made.script = checkout.script if checkout is not None else ()
    sources = checkout.folder if checkout is not None else folder
    if made.script:
        made.findings.append(f"images are built by {made.script[0]} of {made.repository}")
    names = [path.name for path in project.files]
    env_files = [path.name for path in project.env_files]
    made.findings.append(f"Compose files: {', '.join(names)}; project {model['name']}")
    made.config_files = [*env_files, *(name for name in names if not (folder / ".git").exists())]
    made.lines += ["[runtime]", 'kind = "compose"']
    made.lines += [] if project.engine == "docker" else [f"command = {json.dumps(list(project.command))}"]
    made.lines += [f"files = {json.dumps(names)}"]
    made.lines += [f"env_files = {json.dumps(env_files)}"] if env_files else []
    made.lines += [f'project = "{model["name"]}"', ""]
    services = model["services"]
    own = [name for name, item in services.items() if _database_of(name, item) is None and not _is_beside(name, item)]
    proxy, web = _by_a_socket(own, services) or (None, _web_of(own, services))
    if proxy is not None:
        port = scripts.port_of(services[proxy], {}, [], "")
        made.lines += _web(proxy, port, services[proxy], made.findings)
        made.findings.append(f"{proxy} reaches {web} by a socket: the build of {web} may need an option for it")
        made.is_sure_of_script = False
    start = ""
    for name in own:
        if name == proxy:
            continue
        if name != web:
            made.lines += _service(name, _kind(name, services[name]), made.findings)
            continue
        image = scripts.image_facts(str(services[name].get("image") or f"{model['name']}-{name}"), project.engine, host)
        argv = scripts.start_of(services[name], image)
        start = scripts.script_of(argv, sources)
        if proxy is not None:
            made.lines += _service(name, "backend", made.findings)
            continue
        made.lines += _web(name, scripts.port_of(services[name], image, argv, start), services[name], made.findings)
    if not own:
        made.findings.append("no service of the application itself was found: name them as [services.NAME]")
    left = [name for name in services if name not in (*own, proxy)]
    if left:
        made.findings.append(f"ignored, because they are not services of the application itself: {', '.join(left)}")
    made.lines += _tasks(sources, made.findings, at_start="migrate" in start)
    for name, item in services.items():
        kind = _database_of(name, item)
        if kind is not None:
            made.lines += _database(model["name"], name, item, kind, made.findings)
    databases = [item for name, item in services.items() if _database_of(name, item) is not None]
    others = [_source(mount) for item in databases for mount in item.get("volumes") or [] if not mount.get("read_only")]
    made.lines += _files(model, [services[name] for name in own], others, project, made)
    return made


def _source(mount: Mount) -> str:
    return str(mount.get("source", ""))


def _word_of(name: str, item: Service) -> str:
    """Return the text that shows which program a service is.

    That is its image without registry and tag, and for a built one also its own name.
    """
    image = re.sub(r":[^:/]*$", "", str(item.get("image", ""))).rpartition("/")[2]
    return f"{image} {name}" if item.get("build") or not image else image


def _database_of(name: str, item: Service) -> str | None:
    word = _word_of(name, item)
    return next((kind for known, kind in _DATABASES.items() if known in word), None)


def _is_beside(name: str, item: Service) -> bool:
    return any(known in _word_of(name, item) for known in _BESIDE)


def _kind(name: str, item: Service) -> str:
    text = f"{name} {' '.join(map(str, item.get('command') or []))}"
    return "scheduler" if any(word in text for word in _SCHEDULERS) else "worker"


def _web_of(own: Sequence[str], services: Mapping[str, Service]) -> str | None:
    """Return the service with a port; else the one whose name is not that of a worker or scheduler."""
    reached = [name for name in own if services[name].get("ports") or services[name].get("expose")]
    others = [name for name in own if not any(word in name for word in (*_SCHEDULERS, *_WORKERS))]
    return next(iter([*reached, *others]), None)


def _by_a_socket(own: Sequence[str], services: Mapping[str, Service]) -> tuple[str, str] | None:
    """Return a service that publishes a port, and the application's service with which it shares a socket volume."""
    for proxy, item in services.items():
        if item.get("ports") and _database_of(proxy, item) is None:
            shared = _socket_volumes(item)
            for name in own:
                if name != proxy and not services[name].get("ports") and shared & _socket_volumes(services[name]):
                    return proxy, name
    return None


def _socket_volumes(item: Service) -> set[str]:
    return {
        _source(mount)
        for mount in item.get("volumes") or []
        if mount["type"] == "volume" and _source(mount) and _SOCKETS in _last(str(mount.get("target", "")))
    }


def _last(place: str) -> str:
    return place.rstrip("/").rpartition("/")[2]


def _service(name: str, kind: str, findings: list[str]) -> list[str]:
    findings.append(f"{kind}: {name}")
    return [f"[services.{name}]", f'kind = "{kind}"', ""]


def _web(name: str, port: int | None, item: Service, findings: list[str]) -> list[str]:
    lines = [f"[services.{name}]", 'kind = "web"']
    if port is None:
        lines.append("port = 8000   # ? the port on which it listens in its container")
    elif not item.get("ports"):
        lines.append(f"port = {port}")
    lines.append('health = "/"   # ? a page that needs the database')
    findings.append(f"web: {name}" + ("; its port in the container is a guess" if port is None else ""))
    return [*lines, ""]


def _tasks(folder: Path, findings: list[str], *, at_start: bool) -> list[str]:
    """Return the tasks of a Django project; the operator fills in any others. `at_start`: the web itself migrates."""
    for path in sorted([folder / "manage.py", *folder.glob("*/manage.py")]):
        if path.is_file() and "django" in path.read_text(errors="replace").lower():
            inside = path.relative_to(folder)
            findings.append(f"a Django project: {inside} migrate" + (", which its start does" if at_start else ""))
            console = f'console = ["python", "{inside}"]   # ? as inside the image'
            known = ["[migrations]", 'kind = "django"', *(["on_start = true"] if at_start else []), ""]
            known += ["[guard]", 'may_shrink = ["django_session"]', ""]
            migrate = [] if at_start else [f'migrate = ["python", "{inside}", "migrate", "--noinput"]']
            return ["[tasks]", *migrate, console, "", *known]
    findings.append("the migration command was not found: fill in tasks.migrate")
    return ["[tasks]", '# migrate = ["..."]   # ? brings the data to a release; runs in the new image', ""]


def _database(project: str, name: str, item: Service, kind: str, findings: list[str]) -> list[str]:
    environment = item.get("environment") or {}
    database = _first(environment, _NAME_KEYS[kind])
    user = _first(environment, _USER_KEYS[kind])
    key = (
        "main"
        if name in ("postgres", "database", "db", "mysql", "mariadb")
        else re.sub(r"[^a-z0-9_-]", "-", name.lower())
    )
    findings.append(f"{kind}: {database or 'a database whose name is not known'} in service {name}")
    lines = [f"[databases.{key}]", f'kind = "{kind}"']
    lines.append(f'name = "{database}"' if database else 'name = "?"   # ? not found')
    lines.append(f'user = "{user}"' if user else '# user = ""   # ? the role that owns it and may create others')
    return [*lines, f'container = "compose:{name}"', ""]


def _first(environment: Mapping[str, object], keys: Sequence[str]) -> str:
    return next((str(environment[key]) for key in keys if environment.get(key)), "")


def _files(model: Model, own: Sequence[Service], others: Sequence[str], project: Project, made: Proposal) -> list[str]:
    """Return the mounts that the application's services may write to: named volumes and folders.

    The data of a database is not files of the application. A folder that contains settings and data is stored with the
    configuration; its subfolders with the usual names of data become datasets.
    """
    found: dict[tuple[str, str], str] = {}
    for item in own:
        for mount in item.get("volumes") or []:
            target = str(mount.get("target", "")).rstrip("/")
            if (
                mount.get("read_only")
                or _source(mount) in others
                or any(word in target.rpartition("/")[2] for word in _NO_DATA)
            ):
                continue
            if mount["type"] == "volume" and mount.get("source"):
                found[("volume", _source(mount))] = target.rpartition("/")[2]
            elif mount["type"] == "bind" and _is_folder_in(Path(_source(mount)), project.folder):
                folder = Path(_source(mount))
                inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name in _UPLOADS]
                if inside:
                    made.config_files.append(str(folder.relative_to(project.folder)))
                for path in inside or [folder]:
                    found[("path", str(path.relative_to(project.folder)))] = (
                        path.name if inside else target.rpartition("/")[2]
                    )
    lines = []
    for (key, place), word in found.items():
        name = re.sub(r"[^a-z0-9_-]", "-", word.lower()).strip("-_") or "data"
        made.findings.append(f"files: {key} {place}")
        unsure = "   # ? is this the application's data?"
        lines += [f"[files.{name if name[0].isalpha() else f'data-{name}'}]", f'{key} = "{place}"{unsure}', ""]
    return lines


def _is_folder_in(path: Path, folder: Path) -> bool:
    return path.is_dir() and path.is_relative_to(folder)
