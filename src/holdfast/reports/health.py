"""Whether running services answer their health checks now: one short request each, for `status`.

`application/health` brings the HTTP client of the standard library, which imports more than all else in `status`.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

from msgspec.structs import replace

from holdfast.application.application import App
from holdfast.config.schema import Service
from holdfast.model import ServiceStatus
from holdfast.steps import services

_SECONDS = 1.0
_HEAD_BYTES = 4096


def with_health(app: App, statuses: Mapping[str, ServiceStatus]) -> dict[str, ServiceStatus]:
    """Return statuses with the answer to `health` of services that have such a path, and are asked by HTTP."""
    found = dict(statuses)
    for instance in services.wanted(app.context):
        status = found.get(instance.name)
        service = app.loaded.configuration.running_services().get(instance.service)
        if status is not None and status.running and service is not None and service.health and instance.port:
            healthy = status.healthy is not False and _answers(instance.port, service)
            found[instance.name] = replace(status, healthy=healthy)
    return found


def _answers(port: int, service: Service) -> bool:
    """Return whether a web on a loopback port answers its health check with 2xx, and with the text that it needs."""
    if service.health_contains:
        from holdfast.application.health_request import answers  # noqa: PLC0415 # with the HTTP client

        return answers(
            port, service.health, service.health_headers, contains=service.health_contains, timeout_seconds=_SECONDS
        ).is_healthy
    headers = {"Host": "localhost", "User-Agent": "holdfast", "Connection": "close", **service.health_headers}
    lines = [f"GET {service.health} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items()), "", ""]
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_SECONDS) as connection:
            connection.sendall("\r\n".join(lines).encode())
            head = connection.recv(_HEAD_BYTES)
    except (OSError, UnicodeError):
        return False
    words = head.split(maxsplit=2)
    return len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].startswith(b"2")
