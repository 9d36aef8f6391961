"""The durable file of a gate: whether visitors are held, and the release and address to which they are routed."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from holdfast.model import GateState
from holdfast.system import durable


class Record:
    """The file `gate.json` of a folder. Changes are made while holding `locked`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "gate.json"

    def read(self) -> dict[str, Any]:
        """Return the state; empty before the first change."""
        try:
            found = durable.read_json(self._file)
            return found if isinstance(found, dict) else {}
        except FileNotFoundError:
            return {}

    def write(self, state: Mapping[str, Any]) -> None:
        durable.write_file(self._file, json.dumps(state, indent=1))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the file, because an operator's `maintenance on` may come while an operation changes it."""
        durable.make_directory(self._folder)
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def state(self) -> GateState:
        found = self.read()
        return GateState(
            release=found.get("release"),
            target=found.get("target"),
            hold=found.get("hold"),
            operation=found.get("operation"),
            preview_target=found.get("preview_target"),
            preview_token=found.get("preview_token"),
        )
