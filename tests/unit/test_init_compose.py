"""What `init` makes of a resolved Compose model, here one of a Django project from a well-known template."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.config.load import load
from holdfast.drivers.runtimes.compose.project import Project
from holdfast.errors import CommandFailedError
from holdfast.scaffold import compose, init
from holdfast.system.host import Host


class Answering(Host):
    """Knows nothing."""

    def capture(self, argv: Sequence[str], **options: Any) -> str:
        raise CommandFailedError(f"`{argv[0]}` ended", exit_code_of_command=1, output_tail="it is not running")


def project(folder: Path) -> Project:
    folder.mkdir()
    for name in ("production.yml", ".env_production"):
        (folder / name).touch()
    (folder / "backend").mkdir()
    (folder / "backend" / "manage.py").write_text("import django\n")
    (folder / ".git").mkdir()
    made = compose.project_in(folder, Answering())
    assert made is not None
    return made


def _volume(source: str, target: str, **more: bool) -> dict[str, Any]:
    return {"type": "volume", "source": source, "target": target, **more}


def _model() -> dict[str, Any]:
    media = _volume("production_django_media", "/app/backend/access/media")
    built = {"build": {"context": "."}}
    return {
        "name": "access",
        "services": {
            "django": {**built, "image": "access_django:production", "volumes": [media], "command": ["/start"]},
            "celeryworker": {
                **built,
                "image": "access_celeryworker",
                "volumes": [media],
                "command": ["/start-celeryworker"],
            },
            "celerybeat": {**built, "image": "access_celerybeat", "volumes": [media], "command": ["/start-celerybeat"]},
            "flower": {**built, "image": "access_flower", "volumes": [media]},
            "postgres": {
                **built,
                "image": "access_postgres:production",
                "environment": {"POSTGRES_DB": "access", "POSTGRES_USER": "debug"},
                "volumes": [_volume("production_postgres_data", "/var/lib/postgresql/data")],
            },
            "redis": {"image": "redis:5.0"},
            "traefik": {**built, "image": "access_traefik", "ports": [{"target": 80, "published": "80"}]},
            "nginx": {
                **built,
                "image": "access_nginx",
                "volumes": [_volume("production_django_media", "/usr/share/nginx/media", read_only=True)],
            },
        },
        "volumes": {
            name: {"name": f"access_{name}"} for name in ("production_django_media", "production_postgres_data")
        },
    }


def test_services_databases_volumes_and_tasks_are_proposed(tmp_path: Path) -> None:
    given = project(tmp_path / "access")
    assert ([path.name for path in given.files], [path.name for path in given.env_files]) == (
        ["production.yml"],
        [".env_production"],
    )
    made = compose.propose(given, _model(), Answering())
    value = tomllib.loads("\n".join(made.lines))
    assert value["runtime"] == {
        "kind": "compose",
        "files": ["production.yml"],
        "env_files": [".env_production"],
        "project": "access",
    }
    assert {name: item["kind"] for name, item in value["services"].items()} == {
        "django": "web",
        "celeryworker": "worker",
        "celerybeat": "scheduler",
    }
    assert value["databases"] == {
        "main": {"kind": "postgresql", "name": "access", "user": "debug", "container": "compose:postgres"}
    }
    assert value["files"] == {"media": {"volume": "production_django_media"}}
    assert value["tasks"]["migrate"][:2] == ["python", "backend/manage.py"]
    assert (
        "ignored, because they are not services of the application itself: flower, postgres, redis, traefik, nginx"
        in made.findings
    )
    assert "web: django; its port in the container is a guess" in made.findings
    assert made.config_files == [".env_production"]


def test_a_web_that_is_reached_by_a_socket_is_what_its_proxy_leads_to(tmp_path: Path) -> None:
    model = _model()
    socket = _volume("socket_data", "/app/socket")
    model["services"]["django"]["volumes"].append(socket)
    model["services"]["nginx"] |= {"ports": [{"target": 80, "published": "80"}], "volumes": [socket]}
    given = project(tmp_path / "access")
    made = compose.propose(given, model, Answering())
    value = tomllib.loads("\n".join(made.lines))
    kinds = {name: item["kind"] for name, item in value["services"].items()}
    assert kinds == {"nginx": "web", "django": "backend", "celeryworker": "worker", "celerybeat": "scheduler"}
    assert value["files"] == {"media": {"volume": "production_django_media"}}
    assert "port" not in value["services"]["nginx"]

    model["services"]["nginx"]["build"] = {"context": "web"}
    model["services"]["nginx"]["image"] = "access_frontend"
    made = compose.propose(given, model, Answering())
    value = tomllib.loads("\n".join(made.lines))
    assert {name: item["kind"] for name, item in value["services"].items()} == kinds, "one of its own that is built"


def test_sockets_of_an_engine_or_a_database_are_no_way_to_a_web(tmp_path: Path) -> None:
    model = _model()
    engine = {"type": "bind", "source": "/var/run/docker.sock", "target": "/var/run/docker.sock"}
    sockets = _volume("sockets", "/sockets")
    for name in ("traefik", "django"):
        model["services"][name].setdefault("volumes", []).append(engine)
    model["services"]["postgres"] |= {"ports": [{"target": 5432, "published": "5432"}]}
    for name in ("postgres", "django"):
        model["services"][name]["volumes"].append(sockets)
    for name in ("traefik", "celerybeat"):
        model["services"][name]["volumes"].append({"type": "tmpfs", "target": "/run/sock"})
    made = compose.propose(project(tmp_path / "access"), model, Answering())
    value = tomllib.loads("\n".join(made.lines))
    assert {name: item["kind"] for name, item in value["services"].items()} == {
        "django": "web",
        "celeryworker": "worker",
        "celerybeat": "scheduler",
    }


def test_what_is_proposed_is_a_configuration(tmp_path: Path) -> None:
    given = project(tmp_path / "access")
    made = compose.propose(given, _model(), Answering())
    text = '[application]\nname = "access"\n' + "\n".join(made.lines)
    (given.folder / "holdfast.toml").write_text(text)
    assert load(str(given.folder)).configuration.task_service() == "django"


def test_files_that_compose_cannot_read_are_left_aside_and_named(tmp_path: Path) -> None:
    given = project(tmp_path / "access")
    text, findings = init.propose(given.folder, None, Answering())
    assert "production.yml is ignored, because docker compose cannot read it: it is not running" in findings
    assert "compose" not in tomllib.loads(text).get("runtime", {}).get("kind", "")
