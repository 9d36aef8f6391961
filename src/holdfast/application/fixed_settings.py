"""What an environment keeps being, whatever its configuration says later."""

from __future__ import annotations

import json
import os

from holdfast.config.load import ResolvedConfig
from holdfast.errors import RefusedError
from holdfast.system import child_environment, durable
from holdfast.system.host import Host


def keep_fixed_settings(loaded: ResolvedConfig, host: Host) -> None:
    """Record the name, type, runtime and container engine of this environment, and keep to what was recorded.

    Editing a file does not take the protection of `prod` away. A variable of another shell, or its absence after a
    reboot, does not choose another container engine. Raise RefusedError where the state directory is that of another
    environment, or where the runtime is another one: what the former runtime started would go on running.
    """
    path = loaded.state / "environment.json"
    runtime = loaded.configuration.runtime.kind
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        known = {}
    application = loaded.configuration.application
    name = f"{application.name}.{application.environment}"
    if known.get("environment", name) != name:
        raise RefusedError(
            f"the state directory {loaded.state} belongs to {known['environment']}, not to {name}",
            next_step="Give each environment an `application.state` of its own. If this one was renamed and keeps its"
            f" data, remove {path}.",
        )
    if known.get("type", loaded.environment_type) != loaded.environment_type and known["type"] == "prod":
        raise RefusedError(
            f"this environment was set up as prod; {loaded.environment_type} in the configuration is refused",
            next_step=f"Put `type` back, or, if it really is no production any more, remove {path}.",
        )
    if known.get("runtime", runtime) != runtime:
        raise RefusedError(
            f"services of this environment run by {known['runtime']}; runtime.kind {runtime!r} is refused",
            next_step=f"Put it back, `holdfast service stop`, change it, and remove {path}.",
        )
    engine = known.get("engine") or {
        name: os.environ[name] for name in child_environment.ENGINE if os.environ.get(name)
    }
    host.engine = engine
    wanted = {"environment": name, "type": loaded.environment_type, "runtime": runtime, "engine": engine}
    if known != wanted:
        durable.write_file(path, json.dumps(wanted))
