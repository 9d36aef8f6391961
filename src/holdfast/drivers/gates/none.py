"""No gate: visitors reach the web service directly. In maintenance mode, the web service is therefore stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

from holdfast.drivers.gates.state_file import GateFacts
from holdfast.model import GateState, Problem, ServiceInstance
from holdfast.system import durable


class NoGate:
    """No gate, but with the same record as a real one, so that status and recovery need no special case."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "gate.json"

    def _change(self, **changes: Unpack[GateFacts]) -> None:
        durable.make_directory(self._file.parent)
        durable.write_file(self._file, json.dumps({**self._read(), **changes}, indent=1))

    def _read(self) -> GateFacts:
        try:
            return durable.read_json(self._file, GateFacts)
        except FileNotFoundError:
            return {}

    def state(self) -> GateState:
        found = self._read()
        return GateState(
            release=found.get("release"),
            target=found.get("target"),
            hold=found.get("hold"),
            operation=found.get("operation"),
        )

    def close(self, reason: Mapping[str, object], preview_target: str | None = None) -> None:
        self._change(operation=dict(reason))

    def open(self) -> None:
        self._change(operation=None)

    def hold(self, reason: Mapping[str, object] | None) -> None:
        self._change(hold=dict(reason) if reason is not None else None)

    def route(self, release: str, target: str) -> None:
        self._change(release=release, target=target)

    def answers(self) -> bool:
        return True

    def instance(self) -> ServiceInstance | None:
        return None

    def check(self) -> list[Problem]:
        return []
