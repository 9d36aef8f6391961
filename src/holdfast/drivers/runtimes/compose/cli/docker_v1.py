"""The argv of `docker-compose`, the separate program, for a project and for Holdfast's own models. Runs nothing.

Facts measured on 1.29: `config` prints short forms without the project's name, a dollar sign written twice; there is
one environment file; a port's long form has no address of this machine, a mount's has no SELinux label. Version 2 under
this name accepts the same arguments and forms.
"""

from __future__ import annotations

import json
from pathlib import Path

from holdfast.drivers.compose_model import Model, Port, Service
from holdfast.drivers.runtimes.compose.cli.docker_v2 import DockerCompose
from holdfast.drivers.runtimes.compose.cli.short_syntax import mount, one_environment_file, printed


class ClassicCompose(DockerCompose):
    """The commands of version 2, whose argv it shares, with other output and other input."""

    def config_argv(self) -> list[str]:
        one_environment_file(self._project)
        return self._words("config")

    def model(self, output: str) -> Model:
        """Return the printed model in the one form. Raise ConfigurationError."""
        return printed(output, self._project, escaped=True)

    def contents(self, made: Model, file: Path) -> dict[Path, str]:
        services = {name: _written(service) for name, service in made["services"].items()}
        model = {key: value for key, value in made.items() if key != "name"}
        return {file: json.dumps({**model, "services": services}, indent=1)}


def _written(service: Service) -> dict[str, object]:
    made: dict[str, object] = dict(service)
    if "ports" in service:
        made["ports"] = [_port(port) for port in service["ports"] or []]
    if "volumes" in service:
        made["volumes"] = [mount(each) for each in service["volumes"] or []]
    return made


def _port(given: Port) -> str:
    address = given.get("host_ip") or ""
    address = f"[{address}]:" if ":" in address else f"{address}:" if address else ""
    published = f"{address}{given['published']}:" if given.get("published") else ""
    return f"{published}{given['target']}/{given.get('protocol', 'tcp')}"
