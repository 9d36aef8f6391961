"""The durable file of a gate: whether visitors are held, and the release and address to which they are routed."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from holdfast.model import GateState, JsonObject
from holdfast.system import durable


class GateFacts(TypedDict, total=False):
    """The content of the file. `hold` and `operation` say why visitors are held; None where they are not."""

    release: str | None
    target: str | None
    hold: JsonObject | None
    operation: JsonObject | None
    preview_target: str | None
    preview_token: str | None
    generation: int
    listen: str
    message: str
    template: str
    trusted_proxies: list[str]
    # For an operator's own proxy: the identity of the gate, the file that was there before, the generation that the
    # proxy is known to follow, and the addresses to which it may still send visitors.
    id: str
    seed: str
    settled: int
    led_to: list[str] | None


class GateStateFile:
    """The file `gate.json` of a folder. Changes are made while holding `locked`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "gate.json"

    def read(self) -> GateFacts:
        """Return the state; empty before the first change. Raise DamagedError."""
        try:
            return durable.read_json(self._file, GateFacts)
        except FileNotFoundError:
            return {}

    def write(self, state: GateFacts) -> None:
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
