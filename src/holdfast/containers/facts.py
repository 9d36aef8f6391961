"""What an engine's `inspect` prints about a container or an image, as far as Holdfast reads it.

Keys are those of the Engine API of Docker, and of Podman, which prints the same ones. Each of them may be missing or
null where an engine has nothing to say.
"""

from __future__ import annotations

from typing import TypedDict


class Health(TypedDict, total=False):
    Status: str


class State(TypedDict, total=False):
    Status: str
    Running: bool
    Restarting: bool
    Pid: int
    ExitCode: int
    StartedAt: str
    Health: Health | None
    Healthcheck: Health | None
    """The name of the same in Podman."""


class ContainerConfig(TypedDict, total=False):
    Labels: dict[str, str] | None
    StopTimeout: int | None


class RestartPolicy(TypedDict, total=False):
    Name: str
    MaximumRetryCount: int


class Binding(TypedDict):
    HostPort: str


class HostConfig(TypedDict, total=False):
    RestartPolicy: RestartPolicy
    AutoRemove: bool
    PortBindings: dict[str, list[Binding] | None] | None


class Network(TypedDict, total=False):
    IPAddress: str
    GlobalIPv6Address: str
    Aliases: list[str] | None


class NetworkSettings(TypedDict, total=False):
    Networks: dict[str, Network] | None


class Mount(TypedDict, total=False):
    Type: str
    Source: str
    Destination: str
    RW: bool


class Known(TypedDict, total=False):
    """The facts about one container."""

    Id: str
    Name: str
    Image: str
    Config: ContainerConfig
    HostConfig: HostConfig
    State: State
    NetworkSettings: NetworkSettings
    Mounts: list[Mount] | None
    ResolvConfPath: str
    Dependencies: list[str] | None
    """Ids of the containers that it needs; only Podman has them."""


class ImageConfig(TypedDict, total=False):
    """The defaults with which a container of an image starts."""

    Cmd: list[str] | None
    Entrypoint: list[str] | None
    ExposedPorts: dict[str, object] | None
    Volumes: dict[str, object] | None


class ListedImage(TypedDict):
    """One image of a list, which Docker's API answers."""

    Id: str
    RepoTags: list[str] | None


class KnownImage(TypedDict, total=False):
    """The facts about one image."""

    Id: str
    Config: ImageConfig
