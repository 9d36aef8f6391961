"""Compose models of single services and tasks, made from the release's model. Pure.

Compose's own merging of files appends ports and keeps restart policies, so a model is written completely. Keys are
those of the Compose specification.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, get_args

from holdfast.containers.container import (
    APPLICATION_LABEL,
    DEFINITION_LABEL,
    IMAGE_LABEL,
    INSTANCE_LABEL,
    OPERATION_LABEL,
    RELEASE_LABEL,
)
from holdfast.drivers.compose_model import SHARED, KeptImage, Model, Port, Service, ServiceNetwork
from holdfast.errors import ConfigurationError
from holdfast.model import ServiceInstance
from holdfast.system.secrets import is_secret

# Tuples of literals, because a key of a typed dictionary must be known to the type checker.
_NotOurs = Literal["build", "depends_on", "profiles", "scale", "develop"]
_NOT_OURS: tuple[_NotOurs, ...] = get_args(_NotOurs)
_ByDeploy = Literal["restart_policy", "replicas"]  # Compose lets restart_policy override `restart`
_BY_DEPLOY: tuple[_ByDeploy, ...] = get_args(_ByDeploy)
_NotForTasks = Literal["ports", "container_name", "healthcheck"]
_NOT_FOR_TASKS: tuple[_NotForTasks, ...] = get_args(_NotForTasks)
_TASK_GRACE = "2s"  # the fence's grace too: a first process without a handler ignores every signal except SIGKILL
_USUAL = ServiceInstance("", "", "", "", "", (), {})


def _service(model: Model, name: str, image: str) -> Service:
    """Return a service with its local image, and without anything that restarts it by itself."""
    if name not in model["services"]:
        raise ConfigurationError(
            f"the Compose files have no service {name!r}",
            [f"services.{name}: use one of {', '.join(model['services'])}"],
        )
    service = model["services"][name].copy()
    for key in _NOT_OURS:
        service.pop(key, None)
    deploy = (service.pop("deploy", None) or {}).copy()
    for part in _BY_DEPLOY:
        deploy.pop(part, None)
    if deploy:
        service["deploy"] = deploy
    return {**service, "image": image, "restart": "no", "pull_policy": "never"}


def _alone(model: Model, name: str, service: Service) -> Model:
    alone: Model = {"name": model["name"], "services": {name: service}}
    for key in SHARED:
        if key in model:
            alone[key] = model[key]
    return alone


def _literal(value: str) -> str:
    """Double dollar signs, which Compose takes for variables."""
    return value.replace("$", "$$")


def restart_policy(model: Model, service: str) -> str:
    """Return the restart policy in the project's own files, in the syntax of `docker update`."""
    given = model["services"][service]
    deploy = (given.get("deploy") or {}).get("restart_policy")
    if deploy is None:
        return str(given.get("restart") or "no")
    attempts = f":{deploy['max_attempts']}" if deploy.get("max_attempts") else ""
    return {"none": "no", "on-failure": f"on-failure{attempts}"}.get(deploy.get("condition", "any"), "always")


def instance_model(
    model: Model,
    instance: ServiceInstance,
    image: KeptImage,
    application: str,
    container_port: int,
    *,
    keep_ports: bool = False,
    restart: str = "no",
) -> Model:
    """Return the model of one instance: its image fixed, its labels, and only `restart` to start it again by itself.

    `image` has the `tag` under which it is kept and its `id`. With a port, only that one is published, on the loopback
    address, unless the files' own are kept; an adopted instance with a port of the files is published as they say.
    """
    service = _service(model, instance.service, image["tag"])
    service["restart"] = restart
    if instance.command:
        service["command"] = [_literal(word) for word in instance.command]
    # A secret's value comes from the environment of Compose itself and is in no file of Holdfast's.
    environment = {key: None if is_secret(value) else _literal(value) for key, value in instance.environment.items()}
    service["environment"] = {**(service.get("environment") or {}), **environment}
    if instance.port is not None and instance.port not in published(service):
        own: Port = {
            "mode": "host",
            "host_ip": "127.0.0.1",
            "target": container_port,
            "published": str(instance.port),
            "protocol": "tcp",
        }
        service["ports"] = [*((service.get("ports") or []) if keep_ports else []), own]
    # A value of the Compose files or the image is kept unless holdfast.toml sets another one.
    if instance.stop_signal != _USUAL.stop_signal:
        service["stop_signal"] = f"SIG{instance.stop_signal}"
    if instance.stop_timeout_seconds != _USUAL.stop_timeout_seconds:
        service["stop_grace_period"] = f"{instance.stop_timeout_seconds}s"
    labels = {
        **(service.get("labels") or {}),
        APPLICATION_LABEL: application,
        INSTANCE_LABEL: instance.name,
        RELEASE_LABEL: instance.release,
        IMAGE_LABEL: image["id"],
    }
    service["labels"] = labels
    service["labels"] = {**labels, DEFINITION_LABEL: _digest(service)}
    return _alone(model, instance.service, service)


def own_name(instance: ServiceInstance) -> str:
    """Return a network name that no other container has, and that a new container of the instance gets again."""
    return f"holdfast-{hashlib.sha256(instance.name.encode()).hexdigest()[:16]}"


def named(made: Model, instance: ServiceInstance) -> Model:
    """Return the model of an instance, with that name on each of its networks."""
    service = made["services"][instance.service]
    present: dict[str, ServiceNetwork | None] = service.get("networks") or {"default": None}
    networks: dict[str, ServiceNetwork | None] = {}
    for name, given in present.items():
        network = (given or {}).copy()
        network["aliases"] = [*(network.get("aliases") or []), own_name(instance)]
        networks[name] = network
    labels = {key: value for key, value in (service.get("labels") or {}).items() if key != DEFINITION_LABEL}
    service = {**service, "networks": networks, "labels": labels}
    service["labels"] = {**labels, DEFINITION_LABEL: _digest(service)}
    return {**made, "services": {instance.service: service}}


def merged(made: Sequence[Model]) -> Model:
    """Return one model with the services of several of one project."""
    return {**made[0], "services": {name: service for each in made for name, service in each["services"].items()}}


def fit_together(first: ServiceInstance, second: ServiceInstance) -> bool:
    """Return whether two instances are of one release and can be in one model, created with one environment."""
    pairs = ((value, second.environment.get(name)) for name, value in first.environment.items())
    clash = any(
        other is not None and value != other and (is_secret(value) or is_secret(other)) for value, other in pairs
    )
    return first.directory == second.directory and first.service != second.service and not clash


def secret_values(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables whose values are in no file, and come from the environment of Compose itself."""
    return {name: value for name, value in environment.items() if is_secret(value)}


def task_model(
    model: Model, service_name: str, image: str, variables: Iterable[str], application: str, operation: str
) -> Model:
    """Return the model of a one-off command: the service without ports, labelled as the operation's.

    The values of `variables` come from the environment of Compose itself.
    """
    service = _service(model, service_name, image)
    for key in _NOT_FOR_TASKS:
        service.pop(key, None)
    service["environment"] = {**(service.get("environment") or {}), **dict.fromkeys(variables)}
    service["stop_grace_period"] = _TASK_GRACE
    service["labels"] = {APPLICATION_LABEL: application, OPERATION_LABEL: operation}
    return _alone(model, service_name, service)


def prepared_task(made: Model, service_name: str, argv: Sequence[str]) -> Model:
    """Return the model of a one-off command whose container is created ahead, as a service of another name.

    So it is never taken for a container of the service itself, on the network too.
    """
    service: Service = {**made["services"][service_name], "command": [_literal(word) for word in argv]}
    digest = _digest(service)
    service["labels"] = {**(service.get("labels") or {}), DEFINITION_LABEL: digest}
    return {**made, "services": {f"{service_name}-task-{digest}": service}}


def beside(made: Model, service: str) -> Model:
    """Return the model without a fixed container name, which is taken while another container of the service runs."""
    alone = made["services"][service].copy()
    alone.pop("container_name", None)
    return {**made, "services": {service: alone}}


def beside_another(model: Model, services: Iterable[str], *, web: str) -> tuple[list[str], list[str]]:
    """Return what prevents second containers of these services, and what they would lack."""
    against, without = [], []
    for name in services:
        service: Service = model["services"].get(name) or {}
        ports = ", ".join(map(str, published(service))) if name != web else ""  # only the gate uses the web's ports
        if ports:
            against.append(f"service {name} publishes port {ports} of this machine, which only one container can do")
        for network, given in (service.get("networks") or {}).items():
            places = [(given or {}).get("ipv4_address"), (given or {}).get("ipv6_address")]
            fixed = [address for address in places if address]
            against += [f"service {name} has the fixed address {address} in network {network}" for address in fixed]
        if service.get("container_name"):
            without.append(
                f"the new container of {name} is not named {service['container_name']}: the old one has that name while"
                " both run"
            )
    return against, without


def refused(model: Model, services: Mapping[str, int], images: Collection[str], *, web: str, gated: bool) -> list[str]:
    """Return the reasons why these services, each with its configured port, cannot run one by one."""
    found = []
    for name, port in services.items():
        service = model["services"].get(name)
        if service is None:
            continue
        if name not in images:
            found.append(f"service {name} has no image")
        needs = [key for key in ("links", "volumes_from") if service.get(key)]
        needs += [key for key in ("network_mode", "pid", "ipc") if str(service.get(key, "")).startswith("service:")]
        found += [f"service {name} has `{key}`: it cannot be started without the other service" for key in needs]
        found += [
            f"service {name} keeps {volume.get('target')} in a volume without a name,"
            " which its next container would not have"
            for volume in service.get("volumes") or []
            if volume.get("type") == "volume" and not volume.get("source")
        ]
        if name == web and gated and service.get("network_mode") == "host":
            found.append(f"service {name} is on the host's network: the front cannot reach it")
        if name == web:
            try:
                port_inside(model, name, port)
            except ConfigurationError as error:
                found += error.problems
    if web and web not in model["services"]:
        found.append(f"the Compose files have no service {web}")
    return found


def of_another_project(model: Model, name: str) -> list[str]:
    """Return the problem of files that name another project than the one that runs."""
    if not name or model["name"] == name:
        return []
    return [f"its Compose files name the project {model['name']} instead of {name}: it would start with empty volumes"]


def volumes_without_name(name: str, service: Service, of_image: Iterable[str]) -> list[str]:
    """Return problems of folders that an image keeps in an unnamed volume because the service mounts nothing there."""
    mounted = {str(mount.get("target", "")).rstrip("/") for mount in service.get("volumes") or []}
    return [
        f"the image of {name} keeps {place} in a volume without a name: mount a named volume there"
        for place in of_image
        if place.rstrip("/") not in mounted
    ]


def published(service: Service) -> dict[int, int]:
    """Return published ports of this machine, each with its port in the container; ranges are left out."""
    ports = service.get("ports") or []
    return {int(port["published"]): int(port["target"]) for port in ports if str(port.get("published", "")).isdigit()}


def port_inside(model: Model, service: str, configured: int) -> int:
    """Return the port on which a web service listens in its container.

    Raise ConfigurationError where nothing or more than one thing says it.
    """
    if configured:
        return configured
    found = {int(port["target"]) for port in model["services"][service].get("ports") or []}
    found |= {int(port) for port in model["services"][service].get("expose") or [] if not found}
    if len(found) == 1:
        return found.pop()
    raise ConfigurationError(
        f"the port on which {service} listens in its container is not known",
        [f"services.{service}.port: set it; the Compose files have {', '.join(map(str, sorted(found))) or 'none'}"],
    )


def _digest(service: Service) -> str:
    return hashlib.sha256(json.dumps(service, sort_keys=True).encode()).hexdigest()[:16]
