"""Podman's differences to Docker: no server, and no change of a container's restart policy.

Facts measured on 4.3: `inspect` of a container names its image without `sha256:`, and its health as Healthcheck; a
container that was stopped by hand is not started again by its policy, unless `podman-restart.service` does so when the
machine starts; podman-compose marks a one-off container only by a name that ends with `tmp` and a number. A removal
that was killed may leave a container in the state `removing`: it is listed, keeps its name and refuses to be stopped,
and where its storage was removed already it cannot be inspected either; `rm --force` completes the removal.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence

from holdfast.containers.container import label
from holdfast.containers.docker import PROJECT, SERVICE, Engine
from holdfast.containers.facts import Known
from holdfast.errors import CommandFailedError

_ONE_OFF = re.compile(r"[_-]tmp\d+$")
_DIGEST = "sha256:"


class PodmanEngine(Engine):
    version_arguments = ("version", "--format={{.Client.Version}}")
    storage_words = ("info", "--format={{.Store.GraphRoot}}")
    not_one_off = ()
    changes_policies = False
    has_api = False

    def inspected(self, ids: Sequence[str]) -> list[Known]:
        """Complete half-done removals, which would make the inspection of the others fail."""
        try:
            found = super().inspected(ids)
        except CommandFailedError:
            listed = self.ask("ps", "--all", "--quiet", "--no-trunc", "--filter=status=removing").split()
            half = [id for id in ids if id in listed]
            if not half:
                raise
            self.do("rm", "--force", "--ignore", *half)
            return self.inspected([id for id in ids if id not in half])
        return [_as_docker_says(item) for item in found]

    def blocked_by_dependents(self, project: str, services: Collection[str], order: Sequence[str]) -> dict[str, str]:
        """Return those needed by others that are not stopped before, because podman-compose enforces `depends_on`."""
        containers = self.containers(f"{PROJECT}={project}") if project else []  # one-off ones have dependencies too
        by_id = {item["Id"]: item for item in containers}
        earlier = [list(pair) for pair in itertools.combinations(order, 2)]
        found = {}
        for item in containers:
            for needed in (by_id[id] for id in item.get("Dependencies") or [] if id in by_id):
                pair = [label(each, SERVICE) for each in (item, needed)]
                stopped = item["State"]["Running"] and not self.is_one_off(item) and pair in earlier
                if pair[1] in services and not stopped:
                    found[str(needed["Name"])] = str(item["Name"])
        return found

    def is_one_off(self, container: Known) -> bool:
        return _ONE_OFF.search(container["Name"]) is not None


def _as_docker_says(container: Known) -> Known:
    image, state = str(container["Image"]), container["State"]
    health = state.get("Health") or state.get("Healthcheck")
    return {
        **container,
        "Image": image if image.startswith(_DIGEST) else f"{_DIGEST}{image}",
        "State": {**state, "Health": health},
    }
