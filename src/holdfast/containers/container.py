"""One container: the engine's facts about it, the labels by which Holdfast finds it, and the instance that it is."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

from holdfast.containers.facts import Known
from holdfast.model import ServiceStatus

# Labels of containers that Holdfast started, whoever looks for them.
APPLICATION_LABEL = "holdfast.application"
INSTANCE_LABEL = "holdfast.instance"
RELEASE_LABEL = "holdfast.release"
IMAGE_LABEL = "holdfast.image"
DEFINITION_LABEL = "holdfast.definition"
OPERATION_LABEL = "holdfast.operation"

_DETAILS = {"running": "running", "created": "stopped", "restarting": "backoff", "paused": "paused", "dead": "fatal"}


@dataclass(frozen=True)
class Container:
    """The engine's facts about a container, and its instance; `image` is the one that it should run."""

    known: Known
    name: str
    release: str
    image: str

    @classmethod
    def labelled(cls, known: Known) -> Container:
        wanted = (INSTANCE_LABEL, RELEASE_LABEL, IMAGE_LABEL)
        return cls(known, *(label(known, name) for name in wanted))

    @property
    def id(self) -> str:
        return str(self.known["Id"])

    @property
    def running(self) -> bool:
        return bool(self.known["State"]["Running"]) and not self.known["State"].get("Restarting")

    @property
    def runs(self) -> str:
        """Return the image that it really runs."""
        return str(self.known["Image"])

    @property
    def definition(self) -> str:
        return label(self.known, DEFINITION_LABEL)

    @property
    def restart_policy(self) -> str:
        policy = self.known["HostConfig"]["RestartPolicy"]
        attempts = f":{policy['MaximumRetryCount']}" if policy.get("MaximumRetryCount") else ""
        return f"{policy['Name'] or 'no'}{attempts}"

    def status(self) -> ServiceStatus:
        state = self.known["State"]
        detail = _DETAILS.get(state["Status"], "exited")
        health = (state.get("Health") or {}).get("Status", "none")
        if self.running and health in ("starting", "unhealthy"):
            detail = health
        return ServiceStatus(
            name=self.name,
            running=self.running,
            pid=state["Pid"] or None,
            uptime_seconds=_seconds_since(state["StartedAt"]) if self.running else 0.0,
            detail=detail,
            healthy=None if health in ("none", "") else health == "healthy",
            holds_port=True,
        )


_BELOW_MICROSECONDS = re.compile(r"(\.\d{6})\d+")


def reached_by(item: Known) -> int | None:
    """Return the only port of this machine that leads to a container; None where there is none or several."""
    bound = (item["HostConfig"].get("PortBindings") or {}).values()
    ports = {
        int(binding["HostPort"]) for bindings in bound for binding in bindings or () if binding["HostPort"].isdigit()
    }
    return ports.pop() if len(ports) == 1 else None


def label(item: Known, name: str) -> str:
    return str((item["Config"]["Labels"] or {}).get(name, ""))


def _seconds_since(text: str) -> float:
    """Return the seconds since a time that the engine printed: with nanoseconds, in UTC or with an offset."""
    try:
        begun = datetime.datetime.fromisoformat(_BELOW_MICROSECONDS.sub(r"\1", text).replace("Z", "+00:00"))
    except ValueError:
        return 0.0
    return max(0.0, (datetime.datetime.now(datetime.UTC) - begun).total_seconds())
