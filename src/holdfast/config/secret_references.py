"""The references to secrets in a configuration."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.config.schema import Configuration, Task
from holdfast.system.secrets import STORED, is_secret


def of_services(configuration: Configuration) -> dict[str, str]:
    """Return the references in the environments of services, by their keys."""
    environments = {"environment": configuration.environment}
    environments |= {f"services.{name}.environment": one.environment for name, one in configuration.services.items()}
    return _in(environments)


def everywhere(configuration: Configuration) -> dict[str, str]:
    """Return all references, by their keys: of services, tasks, hooks and databases."""
    tasks = {name: getattr(configuration.tasks, name) for name in configuration.tasks.__struct_fields__}
    found = of_services(configuration)
    found |= _in(
        {f"tasks.{name}.environment": task.environment for name, task in tasks.items() if isinstance(task, Task)}
    )
    hooks = {name: getattr(configuration.hooks, name) for name in configuration.hooks.__struct_fields__}
    found |= _in(
        {f"hooks.{name}.environment": hook.environment for name, hook in hooks.items() if isinstance(hook, Task)}
    )
    found |= _in({f"schedule.{name}.environment": one.environment for name, one in configuration.schedule.items()})
    found |= {
        f"databases.{name}.password": one.password for name, one in configuration.databases.items() if one.password
    }
    found |= {f"queues.{name}.url": one.url for name, one in configuration.queues.items() if is_secret(one.url)}
    found |= {"sanitize.key": configuration.sanitize.key} if configuration.sanitize.key else {}
    return found


def keys_of(configuration: Configuration, name: str) -> list[str]:
    """Return the keys that refer to a secret that Holdfast keeps."""
    return [key for key, reference in everywhere(configuration).items() if reference == f"{STORED}{name}"]


def _in(environments: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    return {
        f"{prefix}.{key}": value
        for prefix, environment in environments.items()
        for key, value in environment.items()
        if is_secret(value)
    }
