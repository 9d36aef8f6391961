"""The model of a Compose project, as `docker compose config --format json` prints it.

Keys are those of the Compose specification; these are the ones that Holdfast reads or sets. Each of them may be
missing, and all others are passed on unchanged.
"""

from __future__ import annotations

from typing import Literal, Required, TypedDict, get_args


class Port(TypedDict, total=False):
    mode: str
    host_ip: str
    target: Required[int]
    published: str
    protocol: str


Mount = TypedDict(
    "Mount",
    {
        "type": Required[str],
        "source": str,
        "target": str,
        "read_only": bool,
        "bind": dict[str, str],
        "volume": dict[str, bool],
        "x-options": list[str],  # options of an engine that the long form lacks
    },
    total=False,
)


class ServiceNetwork(TypedDict, total=False):
    aliases: list[str]
    ipv4_address: str
    ipv6_address: str


class RestartPolicy(TypedDict, total=False):
    condition: str
    max_attempts: int


class Deploy(TypedDict, total=False):
    restart_policy: RestartPolicy
    replicas: int


class Service(TypedDict, total=False):
    build: object
    command: list[str] | None
    container_name: str
    depends_on: object
    deploy: Deploy | None
    develop: object
    entrypoint: list[str] | None
    environment: dict[str, str | None] | None
    expose: list[str] | None
    healthcheck: object
    image: str
    ipc: str
    labels: dict[str, str] | None
    links: list[str]
    network_mode: str
    networks: dict[str, ServiceNetwork | None] | None
    pid: str
    ports: list[Port] | None
    profiles: list[str]
    pull_policy: str
    restart: str
    scale: int
    stop_grace_period: str
    stop_signal: str
    volumes: list[Mount] | None
    volumes_from: list[str]


class Model(TypedDict, total=False):
    name: Required[str]
    services: Required[dict[str, Service]]
    networks: dict[str, object]
    volumes: dict[str, object]
    secrets: dict[str, object]
    configs: dict[str, object]


_Shared = Literal["networks", "volumes", "secrets", "configs"]
SHARED: tuple[_Shared, ...] = get_args(_Shared)
"""What services of a project share."""


class KeptImage(TypedDict):
    """The kept image of a service: `name` is the project's, `tag` is Holdfast's; `built`: the project builds it."""

    name: str
    tag: str
    id: str
    built: bool
