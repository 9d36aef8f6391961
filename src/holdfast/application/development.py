"""Signs of a development mode, which production must not run in: error pages with source code, open consoles."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from holdfast.application.context import ApplicationContext
from holdfast.application.instances import configured
from holdfast.config.schema import Configuration
from holdfast.errors import RefusedError, StepError
from holdfast.model import Problem, ServiceInstance

_ON = {"1", "true", "yes", "on"}
_SWITCHES = frozenset({"DEBUG", "APP_DEBUG", "DJANGO_DEBUG", "FLASK_DEBUG", "SYMFONY_DEBUG", "WP_DEBUG", "ORO_DEBUG"})
_MODES = frozenset(
    {"APP_ENV", "DJANGO_ENV", "FLASK_ENV", "NODE_ENV", "ORO_ENV", "RACK_ENV", "RAILS_ENV", "SYMFONY_ENV"}
)
_DEVELOPMENT = {"dev", "develop", "development", "local", "debug"}
FRONT_CONTROLLERS = tuple(
    f"{folder}{name}" for folder in ("public/", "web/", "") for name in ("app_dev.php", "index_dev.php")
)
"""Entry points of a development mode, which frameworks ship next to those of production."""


def is_development(name: str, value: str) -> bool:
    """Return whether a variable of the environment switches a development mode on."""
    word = value.strip().lower()
    return (name in _SWITCHES and word in _ON) or (name in _MODES and word in _DEVELOPMENT)


def variables(configuration: Configuration) -> Iterator[tuple[str, str]]:
    """Yield the keys of the configuration that switch a development mode on, each with its value."""
    environments: dict[str, Mapping[str, str]] = {"environment": configuration.environment}
    environments |= {f"services.{name}.environment": one.environment for name, one in configuration.services.items()}
    for prefix, environment in environments.items():
        for name, value in environment.items():
            if is_development(name, value):
                yield f"{prefix}.{name}", value


def problems(application: ApplicationContext) -> list[Problem]:
    """Return an error for each key that switches a development mode on in production."""
    if application.loaded.environment_type != "prod":
        return []
    return [
        Problem(
            key,
            "error",
            f"{key} = {value!r} is a development mode, and this is a production environment",
            f"Remove {key}, or move it to holdfast.dev.toml or holdfast.stag.toml.",
        )
        for key, value in variables(application.loaded.configuration)
    ]


def refuse(application: ApplicationContext) -> None:
    """Raise RefusedError where production would run in a development mode."""
    for problem in problems(application):
        raise RefusedError(problem.message, next_step=problem.advice)


def front_controllers(release: Path) -> list[str]:
    """Return the entry points of a development mode that are in a release."""
    return [name for name in FRONT_CONTROLLERS if (release / name).is_file()]


def reachable(application: ApplicationContext, instance: ServiceInstance) -> list[str]:
    """Return the entry points of a development mode that a web answers at, instead of refusing or not knowing them."""
    if application.loaded.environment_type != "prod" or instance.port is None:
        return []
    paths = dict.fromkeys(f"/{os.path.basename(name)}" for name in front_controllers(Path(instance.directory)))
    if not paths:
        return []
    from holdfast.application.health_request import answers  # noqa: PLC0415 # a client of HTTP

    service = configured(application, instance)
    headers = service.health_headers if service is not None else {}
    statuses = {path: answers(instance.port, path, headers).status for path in paths}
    return [path for path, status in statuses.items() if status is not None and status not in _REFUSALS]


def require_unreachable(application: ApplicationContext, instance: ServiceInstance) -> None:
    """Raise StepError where visitors of production could reach a development mode."""
    for path in reachable(application, instance):
        raise StepError(
            f"{path} of service {instance.service} answers, which is a development mode in a production environment",
            next_step=f"Remove {path} from the release, or refuse it in the web server with 403 or 404.",
        )


_REFUSALS = (401, 403, 404, 405, 410)
