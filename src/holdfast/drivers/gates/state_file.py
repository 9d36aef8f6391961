"""The durable file of a gate: whether visitors are held, and the release and address to which they are routed."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
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
    pages: str
    releases: str
    root: str
    bypass: str | None
    trusted_proxies: list[str]
    # `pages` is the folder of the application's own pages in a release below `releases`, or else below `root`. `bypass`
    # is the operator's token, with which the application is reached while visitors are held.
    # For an operator's own proxy: the identity of the gate, the file that was there before, the generation that the
    # proxy is known to follow, and the addresses to which it may still send visitors.
    id: str
    seed: str
    settled: int
    led_to: list[str] | None


def hold(state: GateFacts, reason: JsonObject | None) -> None:
    """Note the operator's hold. As long as it lasts, the holder of one token reaches the application."""
    state["hold"] = reason
    if reason is not None:
        state["bypass"] = state.get("bypass") or secrets.token_urlsafe(24)
        state["preview_token"] = state["bypass"]
    else:
        state["bypass"] = None
        if not state.get("preview_target"):
            state["preview_token"] = None


def end_preview(state: GateFacts) -> None:
    """Forget the web that an operation lets only a token reach; the operator's own token stays."""
    state.update({"operation": None, "preview_target": None, "preview_token": state.get("bypass")})


def preview(state: GateFacts, target: str) -> None:
    """Let the holder of a token reach a web that has no visitors yet; the operator's own token does for that, too."""
    if state.get("preview_target") != target:
        state.update({"preview_target": target, "preview_token": state.get("bypass") or secrets.token_urlsafe(24)})


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
