"""What podman-compose prints, in the form of Docker Compose: both asked the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from holdfast.drivers.runtimes.compose.cli.select import compose_of
from holdfast.drivers.runtimes.compose.project import Project
from holdfast.errors import ConfigurationError
from tests.servers import docker, podman

FILES = """
services:
  web:
    build: .
    env_file: [.env, {path: no.env, required: false}]
    environment: [A=b$$c, MISSING, PORTS, "Q=${PORTS}"]
    ports: ["127.0.0.1:8080:8000", "9000", "7000-7002:7000-7002/udp", {target: 80, published: 8088}, "[::1]:99:98"]
    volumes:
      - ./media:/media:ro,z
      - data:/data
      - /etc/hosts:/etc/hosts
      - {type: bind, source: ./x, target: /x}
      - /anon
      - named:/named:Z
    depends_on: [db]
    command: python -m "x y" $$HOME
    labels: ["a=b", "c"]
    secrets: [s1]
    networks: [default, back]
    stop_grace_period: 1m30s
  db:
    image: postgres
    restart: always
    environment: {PW: x, N: 5, B: true}
    network_mode: host
  cron:
    image: cron
    build: {context: sub, dockerfile: D, args: [K=v]}
    profiles: [never]
volumes: {data: , ext: {external: true}, named: {name: foo}}
networks: {back: {}, default: {}}
secrets: {s1: {file: ./sec}}
"""


@pytest.fixture
def podman_that_answers(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Provide Podman or a substitute: podman-compose only asks it for its version before it prints."""
    if shutil.which("podman") is None:
        program = tmp_path_factory.mktemp("bin") / "podman"
        program.write_text("#!/bin/sh\necho podman version 4.3.1\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)


@pytest.fixture
def project(tmp_path: Path, podman_that_answers: None) -> Project:
    (tmp_path / "compose.yml").write_text(FILES)
    (tmp_path / "sub").mkdir()
    (tmp_path / ".env").write_text("PORTS=55\nX='a b'\n")
    return Project(podman.command(), tmp_path, (tmp_path / "compose.yml",), (tmp_path / ".env",), (), "shop")


def resolved(project: Project) -> dict[str, Any]:
    compose = compose_of(project)
    done = subprocess.run(compose.config_argv(), capture_output=True, text=True, check=True)
    return compose.model(done.stdout)


def comparable(model: dict[str, Any]) -> dict[str, Any]:
    """What both say, without what an empty value or a default of either engine is."""
    services = {}
    for name, item in model["services"].items():
        kept = {key: value for key, value in item.items() if value is not None}
        kept["environment"] = {
            key: value for key, value in (item.get("environment") or {}).items() if value is not None
        }
        for mount in kept.get("volumes") or []:
            mount.pop("volume", None)
            mount["bind"] = {key: value for key, value in (mount.get("bind") or {}).items() if key == "selinux"}
        if "build" in kept:
            kept["build"].pop("dockerfile", None)
            kept.pop("image", None)  # what is built is called otherwise
        for secret in kept.get("secrets") or []:
            secret.pop("target", None)
        kept.pop("depends_on", None)
        services[name] = kept
    named = {kind: {key: item["name"] for key, item in model[kind].items()} for kind in ("networks",)}
    return {"name": model["name"], "services": services, **named}


@pytest.mark.parametrize("command", [podman.command(), ("docker-compose",)])
def test_all_say_the_same(
    project: Project, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here: `make test-setup` as root installs it")
    if not docker.COMPOSE.exists():
        pytest.skip("no Docker Compose here: `make test-setup` as root installs it")
    plugins = tmp_path / "client" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / docker.COMPOSE.name).symlink_to(docker.COMPOSE)
    monkeypatch.setenv("DOCKER_CONFIG", str(plugins.parent))
    if command == ("docker-compose",):  # of its first version, which refuses these
        text = FILES.replace(", {path: no.env, required: false}", "").replace("B: true", 'B: "true"')
        (tmp_path / "compose.yml").write_text(text)
    theirs = resolved(Project(("docker", "compose"), *_rest(project)))
    assert comparable(resolved(Project(command, *_rest(project)))) == comparable(theirs)


def _rest(project: Project) -> tuple[Any, ...]:
    return project.folder, project.files, project.env_files, project.profiles, project.name


def test_a_build_belongs_to_the_projects_folder_wherever_its_files_are(project: Project, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    os.rename(tmp_path / "compose.yml", tree / "compose.yml")
    (tree / ".env").symlink_to(tmp_path / ".env")
    moved = resolved(Project(project.command, tmp_path, (tree / "compose.yml",), project.env_files, (), "shop"))
    assert moved["services"]["web"]["build"]["context"] == str(tmp_path)
    assert moved["services"]["web"]["image"] == "shop_web"
    assert json.dumps(moved).count("/tree") == 0


def test_the_name_is_that_of_variables_then_of_files_then_of_the_folder(project: Project, tmp_path: Path) -> None:
    nameless = Project(project.command, tmp_path, project.files, project.env_files)
    (tmp_path / "compose.yml").write_text("services: {web: {image: x}}\n")
    assert resolved(nameless)["name"] == tmp_path.name.lower()
    (tmp_path / "compose.yml").write_text("name: of-files\nservices: {web: {image: x}}\n")
    assert resolved(nameless)["name"] == "of-files"
    (tmp_path / ".env").write_text("COMPOSE_PROJECT_NAME=of-variables\n")
    assert resolved(nameless)["name"] == "of-variables"


@pytest.mark.parametrize(
    ("service", "said"),
    [
        ("{image: x, env_file: nothing.env}", "nothing.env"),
        ("{image: x, ports: ['what']}", "port"),
        ("{extends: {service: other}}", "extends"),
    ],
)
def test_what_cannot_be_told_is_refused(project: Project, tmp_path: Path, service: str, said: str) -> None:
    (tmp_path / "compose.yml").write_text(f"services: {{web: {service}, other: {{image: x}}}}\n")
    with pytest.raises(ConfigurationError) as refused:
        resolved(project)
    assert said in refused.value.what + "".join(refused.value.problems)
