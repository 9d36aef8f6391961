"""What the engine is told: models and commands, without an engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.drivers.runtimes.compose import models
from holdfast.drivers.runtimes.compose.cli.select import compose_of
from holdfast.drivers.runtimes.compose.project import Project, env_files_in, files_in
from holdfast.errors import ConfigurationError
from holdfast.model import ServiceInstance

MODEL: dict[str, Any] = {
    "name": "shop",
    "services": {
        "web": {
            "build": {"context": "."},
            "image": "shop:production",
            "restart": "always",
            "depends_on": {"db": {}},
            "ports": [{"target": 8000, "published": "80", "mode": "ingress", "protocol": "tcp"}],
            "environment": {"KEPT": "1"},
            "labels": {"theirs": "yes"},
            "container_name": "shop-web",
        },
        "db": {"image": "postgres:17", "volumes": [{"type": "volume", "source": "data", "target": "/data"}]},
    },
    "volumes": {"data": {"name": "shop_data"}},
}
IMAGE = {"tag": "holdfast/shop.production/web:v1", "id": "sha256:1234"}
INSTANCE = ServiceInstance("web-1-v1", "web", "web", "1-v1", "/shop/releases/1-v1", (), {}, port=12345)


def made(instance: ServiceInstance = INSTANCE, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = models.instance_model(MODEL, instance, IMAGE, "shop@/state", 8000, **options)
    return found


def test_a_container_is_made_of_its_releases_image_and_does_not_come_back() -> None:
    service = made()["services"]["web"]
    assert (service["image"], service["restart"]) == (IMAGE["tag"], "no")
    assert "build" not in service and "depends_on" not in service
    assert service["labels"]["theirs"] == "yes"
    assert service["labels"]["holdfast.image"] == IMAGE["id"]
    assert made()["services"].keys() == {"web"}
    assert made()["volumes"] == MODEL["volumes"]
    assert MODEL["services"]["web"]["restart"] == "always", "what is given stays as it is"


def test_a_port_of_the_loopback_address_takes_the_place_of_the_files_or_stands_beside() -> None:
    (port,) = made()["services"]["web"]["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "12345", 8000)
    assert [port["published"] for port in made(keep_ports=True)["services"]["web"]["ports"]] == ["80", "12345"]
    taken_over = made(replace(INSTANCE, port=80))
    assert taken_over["services"]["web"]["ports"] == MODEL["services"]["web"]["ports"]


def test_values_are_literal_and_secrets_are_left_to_the_environment() -> None:
    service = made(replace(INSTANCE, environment={"A": "$HOME", "B": "file:/secret"}, command=("echo", "$A")))[
        "services"
    ]["web"]
    assert service["environment"] == {"KEPT": "1", "A": "$$HOME", "B": None}
    assert service["command"] == ["echo", "$$A"]


def test_the_way_a_container_ends_is_its_files_unless_holdfast_toml_says_more() -> None:
    assert not {"stop_signal", "stop_grace_period"} & made()["services"]["web"].keys()
    service = made(replace(INSTANCE, stop_signal="QUIT", stop_timeout_seconds=30))["services"]["web"]
    assert (service["stop_signal"], service["stop_grace_period"]) == ("SIGQUIT", "30s")


def test_every_difference_is_another_definition() -> None:
    digests = {
        made(instance)["services"]["web"]["labels"]["holdfast.definition"]
        for instance in (
            INSTANCE,
            replace(INSTANCE, port=1),
            replace(INSTANCE, environment={"A": "1"}),
            replace(INSTANCE, comes_back=False),
        )
    }
    assert len(digests) == 3, "whether it comes back is no part of it"


def test_a_task_is_reached_by_nobody_and_known_as_its_operations() -> None:
    service = models.task_model(MODEL, "web", IMAGE["tag"], ["TOLD"], "shop@/state", "op")["services"]["web"]
    assert not {"ports", "container_name"} & service.keys()
    assert service["environment"] == {"KEPT": "1", "TOLD": None}
    assert service["labels"] == {"holdfast.application": "shop@/state", "holdfast.operation": "op"}
    assert service["stop_grace_period"] == "2s"


def test_the_port_in_the_container() -> None:
    assert models.port_inside(MODEL, "web", 0) == 8000
    assert models.port_inside(MODEL, "db", 5432) == 5432
    with pytest.raises(ConfigurationError, match="the port on which"):
        models.port_inside(MODEL, "db", 0)
    with pytest.raises(ConfigurationError, match="nothing"):
        models.instance_model(MODEL, replace(INSTANCE, service="nothing"), IMAGE, "shop", 1)


def test_files_come_from_the_sources_where_these_have_them(tmp_path: Path) -> None:
    sources, instance = tmp_path / "sources", tmp_path / "instance"
    sources.mkdir()
    instance.mkdir()
    (sources / "production.yml").touch()
    assert files_in(["production.yml", "local.yml"], sources, instance) == (
        sources / "production.yml",
        instance / "local.yml",
    )
    assert files_in([], sources, instance) == (instance / "compose.yaml",)
    (instance / "docker-compose.yml").touch()
    (instance / "docker-compose.override.yml").touch()
    assert files_in([], sources, instance) == (
        instance / "docker-compose.yml",
        instance / "docker-compose.override.yml",
    )
    (sources / "compose.yml").touch()
    assert files_in([], sources, instance) == (sources / "compose.yml",)
    assert env_files_in([], instance) == ()
    (instance / ".env").touch()
    assert env_files_in([], instance) == (instance / ".env",)
    assert env_files_in([".env_production"], instance) == (instance / ".env_production",)


def test_the_words_of_the_operators_own_command() -> None:
    folder = Path("/shop")
    project = Project(("docker", "compose"), folder, (folder / "a.yml",), (folder / ".env",), ("mail",), "shop")
    compose = compose_of(project)
    assert compose.config_argv() == [
        "docker",
        "compose",
        "--project-directory",
        "/shop",
        "--project-name",
        "shop",
        "--env-file",
        "/shop/.env",
        "--profile",
        "mail",
        "--file",
        "/shop/a.yml",
        "config",
        "--format",
        "json",
    ]
    made = {"name": "shop", "services": {"web": {}}}
    assert compose.creation_argv(made, Path("/m.json"), {"web": 1})[-3:] == ["--scale", "web=2", "web"]
    assert compose.run_argv(made, Path("/m.json"), "web", ["true"])[-2:] == ["web", "true"]


def test_no_value_of_a_variable_is_a_word_of_podmans() -> None:
    folder = Path("/shop")
    compose = compose_of(Project(("podman-compose",), folder, (folder / "a.yml",), (folder / ".env",), (), "shop"))
    assert compose.config_argv() == [
        "podman-compose",
        "--in-pod=false",
        "--env-file=/shop/.env",
        "--project-name",
        "shop",
        "--file",
        "/shop/a.yml",
        "config",
    ]
    environment = {"KEY": "a $$b 'c'", "PASSWORD": None}
    made = {"name": "shop", "services": {"web": {"environment": environment, "stop_grace_period": "1m30s"}}}
    placed = compose.placed(made, "web", ["shop_web_1"])
    assert placed["services"]["web"]["container_name"] == "shop_web_2"
    words = compose.creation_argv(placed, Path("/m.json"), {"web": 1})
    assert "--podman-run-args=--env-file=/m.env --env=PASSWORD --stop-timeout=90" in words
    files = compose.contents(placed, Path("/m.json"))
    assert files[Path("/m.env")] == "KEY=a $b 'c'\n"
    assert "environment" not in json.loads(files[Path("/m.json")])["services"]["web"]
    assert compose.refused("web", {"environment": {"KEY": "one\ntwo"}})


@pytest.mark.parametrize("arguments", [("podman", "compose"), ("docker",), ("compose",), ("docker", "stack")])
def test_a_command_that_is_not_known_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="not a known Compose command"):
        compose_of(Project(arguments, Path("/shop"), ()))


def test_podman_compose_takes_one_environment_file() -> None:
    folder = Path("/shop")
    with pytest.raises(ConfigurationError, match="one environment file"):
        compose_of(Project(("podman-compose",), folder, (), (folder / "a", folder / "b"))).config_argv()


def test_the_webs_own_ports_stand_against_no_second_one() -> None:
    port = {"mode": "ingress", "target": 8000, "published": "80", "protocol": "tcp"}
    model = {"name": "shop", "services": {"web": {"ports": [port]}, "worker": {"ports": [port]}}}
    against, _ = models.beside_another(model, ["web", "worker"], web="web")
    assert against == ["service worker publishes port 80 of this machine, which only one container can do"]
