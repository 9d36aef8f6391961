"""The definition of a service for its runtime, and the address at which the gate reaches it."""

from __future__ import annotations

from msgspec.structs import replace

from holdfast.application.commands import filled
from holdfast.application.context import ApplicationContext
from holdfast.config.schema import Service
from holdfast.model import Release, ServiceInstance
from holdfast.system.ports import can_be_reached, free_loopback_port


def instance_of(
    application: ApplicationContext, name: str, service: Service, release: Release, port: int | None
) -> ServiceInstance:
    """Return the definition of one service of one release."""
    environment = application.environment(release, service.environment)
    if port is not None and application.runtime.tells_port:
        environment["PORT"] = str(port)
    return ServiceInstance(
        name=f"{name}-{release.id}",
        service=name,
        kind=application.loaded.configuration.service_kind(name),
        release=release.id,
        directory=release.path,
        command=filled(application, service.command, release.path, service.port or port),
        environment=environment,
        port=port,
        user=service.user or None,
        stop_signal=service.stop_signal,
        stop_timeout_seconds=service.stop_timeout_seconds,
        port_inside=service.port,
        files=service.files,
    )


def configured(application: ApplicationContext, instance: ServiceInstance) -> Service | None:
    """Return the configuration of an instance's service; None if holdfast.toml no longer has it."""
    return application.loaded.configuration.running_services().get(instance.service)


def on_a_free_port(application: ApplicationContext, instance: ServiceInstance) -> ServiceInstance:
    """Return an instance that does not run, with another port if another process uses its own.

    Return it unchanged if no gate sends visitors there, because then visitors know its port. Start it at once.
    """
    leads = application.loaded.configuration.gate.kind != "none"
    if instance.port is None or not leads or can_be_reached(instance.port):
        return instance
    port = free_loopback_port()
    if not application.runtime.tells_port:
        return replace(instance, port=port)
    service = configured(application, instance)
    # A command that is no longer configured cannot get another port; the start will show whether its port is free.
    if service is None:
        return instance
    command = filled(application, service.command, instance.directory, service.port or port)
    return replace(instance, port=port, command=command, environment={**instance.environment, "PORT": str(port)})


def target_of(application: ApplicationContext, instance: ServiceInstance) -> str:
    """Return where the gate reaches a web: a port of this machine, or its name for a proxy in a container."""
    return application.runtime.address_of(
        instance, inside=application.proxy is not None and application.proxy.is_inside
    )
