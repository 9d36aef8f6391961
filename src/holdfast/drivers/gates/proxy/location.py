"""Where the user's own proxy runs: on this machine, or in a container that its engine's client leads into."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.errors import CommandFailedError, StepError
from holdfast.system.host import Host

_COMMAND_SECONDS = 60
_ATTEMPTS = 5
_DNS_OF_DOCKER = "127.0.0.11"  # documentation of Docker, "Embedded DNS server"


@dataclass(frozen=True)
class Place:
    """`engine` is `docker` or `podman`, and `named` finds the container; without an engine it is this machine."""

    host: Host
    engine: str = ""
    named: Callable[[], str] = str

    @property
    def is_container(self) -> bool:
        return bool(self.engine)

    def run(self, *words: str) -> None:
        """Runs a program of the proxy's. Raises CommandFailedError, StepError."""
        inside = [self.engine, "exec", self.named()] if self.engine else []
        # A Ctrl-C must not leave a change half done.
        self.host.run([*inside, *words], ignore_cancel=True, timeout_seconds=_COMMAND_SECONDS)

    def known(self) -> dict[str, Any]:
        """What the engine says of the container. Raises StepError where there is none."""
        name = self.named()
        try:
            found = json.loads(self.host.capture([self.engine, "inspect", "--type=container", name]))
        except CommandFailedError as error:
            raise StepError(
                f"{self.engine} knows no container {name}", next_step="gate.container names that of the proxy."
            ) from error
        return dict(found[0])

    def runs(self) -> bool:
        """Of this machine it is not known: true."""
        return not self.engine or bool(self.known()["State"]["Running"])

    def first_process(self) -> int | str:
        return int(self.known()["State"]["Pid"]) if self.engine else "self"

    def nameservers(self) -> list[str]:
        """Who knows other containers' names, as the container itself asks."""
        if not self.engine:
            return []
        try:
            lines = Path(self.known().get("ResolvConfPath") or "").read_text().splitlines()
        except OSError:  # not this user's to read
            lines = []
        return [line.split()[1] for line in lines if line.startswith("nameserver ")] or [_DNS_OF_DOCKER]

    def addresses_of(self, name: str) -> set[str]:
        """Addresses of what a name leads to from the proxy: in a container, of others that have it on one of their networks."""
        if not self.engine:
            try:
                return {str(found[4][0]) for found in socket.getaddrinfo(name, None)}
            except OSError:
                return set()
        return {
            address
            for item in self._running()
            for network in (item["NetworkSettings"].get("Networks") or {}).values()
            for address in (network.get("IPAddress"), network.get("GlobalIPv6Address"))
            if address and name in (address, str(item["Name"]).lstrip("/"), *(network.get("Aliases") or []))
        }

    def _running(self) -> list[dict[str, Any]]:
        """What the engine says of all that run. Raises CommandFailedError."""
        for attempt in range(_ATTEMPTS):
            ids = self.host.capture([self.engine, "ps", "--quiet", "--no-trunc"]).split()
            try:
                return json.loads(self.host.capture([self.engine, "inspect", "--type=container", *ids])) if ids else []
            except CommandFailedError:  # one of them, of whichever application, has ended meanwhile
                if attempt + 1 == _ATTEMPTS:
                    raise
        return []

    def seen_at(self, folder: Path) -> str:
        """Where the container has a folder of this machine; the folder's own path where it has not."""
        if self.engine:
            for source, inside in sorted(self._mounts(), key=lambda pair: len(pair[0].parts), reverse=True):
                if source != Path("/") and folder.is_relative_to(source):
                    return str(inside / folder.relative_to(source))
        return str(folder)

    def _mounts(self) -> list[tuple[Path, Path]]:
        mounts = self.known().get("Mounts") or []
        return [(Path(mount.get("Source") or "/"), Path(mount.get("Destination") or "/")) for mount in mounts]

    def unseen(self, file: Path) -> str:
        """Why the container would not see that a file was replaced; empty where it would."""
        if not self.engine:
            return ""
        sources = [source for source, _ in self._mounts()]
        if file in sources:
            return f"{file} itself is mounted into the proxy's container, which keeps the old file when it is replaced"
        if not any(file.is_relative_to(source) for source in sources if source != Path("/")):
            return f"no folder that holds {file} is mounted into the proxy's container"
        return ""
