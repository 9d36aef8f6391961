"""The record of adopted containers: Holdfast did not start them, so they have none of its labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from holdfast.model import ServiceInstance
from holdfast.system import durable

_NAME = "adopted.json"


class Adopted:
    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME

    def read(self) -> dict[str, dict[str, str]]:
        """Return by container id the name and release of its instance, and its image."""
        try:
            found: dict[str, dict[str, str]] = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        return found

    def write(self, instances: Mapping[str, ServiceInstance], images: Mapping[str, str]) -> None:
        """Write instances and images by container id. Idempotent."""
        found = {
            id: {"name": instance.name, "release": instance.release, "image": images[id]}
            for id, instance in instances.items()
        }
        durable.make_directory(self._path.parent)
        durable.write_file(self._path, json.dumps(found, indent=1))

    def forget(self, name: str) -> None:
        """Remove the containers of one instance from the record. Idempotent."""
        known = self.read()
        left = {id: facts for id, facts in known.items() if facts["name"] != name}
        if left != known:
            durable.write_file(self._path, json.dumps(left, indent=1))
