"""The gate `front`: Holdfast's own proxy in front of the web service, controlled by one durable file.

The file decides: the proxy reads it at its start, so after a reboot in the middle of an operation visitors get the
maintenance page.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from holdfast.drivers.gates.state_file import GateFacts, GateStateFile, end_preview, hold, preview
from holdfast.errors import ConfigurationError, StepError
from holdfast.model import GateState, Problem, ServiceInstance

_CONTROL_SLACK_SECONDS = 10
_SOCKET_PATH_BYTES = 107  # unix(7)


class Answer(TypedDict, total=False):
    """What the running proxy answers: the generation that it follows, and what it did for visitors."""

    state: int | None
    under_way: int
    counts: dict[str, int]


class FrontGate:
    def __init__(
        self,
        folder: Path,
        listen: str,
        *,
        message: str = "",
        template: str = "",
        pages: GateFacts | None = None,
        drain_seconds: float = 10,
        trusted_proxies: Sequence[str] | None = None,
    ) -> None:
        self._folder = folder
        self._record = GateStateFile(folder)
        self._socket = folder / "front.sock"
        self._listen = listen
        self._message = message
        self._template = template
        self._pages: GateFacts = pages or {}
        self._drain_seconds = drain_seconds
        self._trusted_proxies = trusted_proxies
        if len(os.fsencode(self._socket)) > _SOCKET_PATH_BYTES:
            raise ConfigurationError(
                "the state directory's path is too long for a socket",
                [f"application.state: {folder.parent} results in a socket path over {_SOCKET_PATH_BYTES} bytes"],
            )

    def _change(self, change: Callable[[GateFacts], None], drain: bool = False) -> None:
        with self._record.locked():
            state = self._record.read()
            before = json.dumps(state, sort_keys=True)
            state.update({"listen": self._listen, "message": self._message, "template": self._template})
            state.update(self._pages)
            if self._trusted_proxies is not None:
                state["trusted_proxies"] = list(self._trusted_proxies)
            change(state)
            if json.dumps(state, sort_keys=True) != before:
                state["generation"] = state.get("generation", 0) + 1
                self._record.write(state)
            self._tell(self._drain_seconds if drain else 0, state.get("generation", 0))

    def _tell(self, drain_seconds: float, generation: int) -> None:
        """Make a running proxy follow the file and wait until it does; one that is down reads it at its start."""
        answer = self.ask({"do": "reload", "drain_seconds": drain_seconds}, drain_seconds)
        if answer is not None and answer.get("state") != generation:
            raise StepError(f"the front proxy follows state {answer.get('state')} instead of {generation}")

    def ask(self, order: Mapping[str, object], wait_seconds: float = 0) -> Answer | None:
        """Return the running proxy's answer to an order, or None if none runs."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(wait_seconds + _CONTROL_SLACK_SECONDS)
            try:
                connection.connect(str(self._socket))
            except (FileNotFoundError, ConnectionRefusedError):
                return None
            connection.sendall(json.dumps(order).encode() + b"\n")
            data = b""
            while chunk := connection.recv(65536):
                data += chunk
        answer: Answer | None = json.loads(data) if data else None
        return answer

    def state(self) -> GateState:
        return self._record.state()

    def close(self, reason: Mapping[str, object], preview_target: str | None = None) -> None:
        def change(state: GateFacts) -> None:
            state.update({"operation": dict(reason)})
            if preview_target is not None:
                preview(state, preview_target)

        self._change(change, drain=True)

    def open(self) -> None:
        self._change(end_preview)

    def hold(self, reason: Mapping[str, object] | None) -> None:
        self._change(
            lambda state: hold(state, dict(reason) if reason is not None else None),
            drain=reason is not None,
        )

    def route(self, release: str, target: str) -> None:
        self._change(lambda state: state.update({"release": release, "target": target}), drain=True)

    def answers(self) -> bool:
        return self.ask({"do": "status"}) is not None

    def instance(self) -> ServiceInstance | None:
        return ServiceInstance(
            name="front",
            service="front",
            kind="gate",
            release="",
            directory="/",
            command=(sys.executable, "-m", "holdfast.drivers.gates.front.server", str(self._folder)),
            environment={},
            stop_timeout_seconds=15,
        )

    def check(self) -> list[Problem]:
        host, _, port = self._listen.rpartition(":")
        if self.answers():
            return []
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host.strip("[]"), int(port)))
            except OSError as error:
                return [
                    Problem(
                        "gate",
                        "error",
                        f"{self._listen} cannot be opened: {error.strerror}",
                        f"Run `ss -ltnp sport = :{port}` to see which process uses it, or change gate.listen.",
                    )
                ]
        return []
