"""The location of the user's own proxy: this machine, or a container that is reached by its engine's client."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from holdfast.containers.docker import Engine
from holdfast.containers.facts import Known
from holdfast.errors import StepError
from holdfast.system.host import Host

_COMMAND_SECONDS = 60
_DNS_OF_DOCKER = "127.0.0.11"  # documentation of Docker, "Embedded DNS server"


@dataclass(frozen=True)
class ProxyLocation:
    """The machine or container of the proxy.

    `named` returns the container's name; without an engine it is this machine.
    """

    host: Host
    engine: Engine | None = None
    named: Callable[[], str] = str

    @property
    def is_container(self) -> bool:
        return self.engine is not None

    def run(self, *arguments: str) -> None:
        """Run a program of the proxy's. Raise CommandFailedError, StepError."""
        inside = [self.engine.name, "exec", self.named()] if self.engine is not None else []
        # A Ctrl-C must not leave a change half done.
        self.host.run([*inside, *arguments], ignore_cancel=True, timeout_seconds=_COMMAND_SECONDS)

    def known(self) -> Known:
        """Return the engine's facts about the container. Raise StepError where there is none."""
        assert self.engine is not None
        name = self.named()
        found = self.engine.inspected([name])
        if not found:
            raise StepError(
                f"{self.engine.name} has no container {name}",
                next_step="Set gate.container to the name of the proxy's container.",
            )
        return found[0]

    def runs(self) -> bool:
        """Return whether the container runs; on this machine always true, because it is not known."""
        return not self.engine or bool(self.known()["State"]["Running"])

    def first_process(self) -> int | str:
        return int(self.known()["State"]["Pid"]) if self.engine else "self"

    def nameservers(self) -> list[str]:
        """Return the nameservers that know other containers' names, as the container itself asks them."""
        if not self.engine:
            return []
        try:
            lines = Path(self.known().get("ResolvConfPath") or "").read_text().splitlines()
        except OSError:  # this user may not read it
            lines = []
        return [line.split()[1] for line in lines if line.startswith("nameserver ")] or [_DNS_OF_DOCKER]

    def addresses_of(self, name: str) -> set[str]:
        """Return the addresses of a name as the proxy sees it.

        In a container, these are other containers with that name on one of its networks.
        """
        if not self.engine:
            try:
                return {str(found[4][0]) for found in socket.getaddrinfo(name, None)}
            except OSError:
                return set()
        return {
            address
            for item in self.engine.running()
            for network in (item["NetworkSettings"].get("Networks") or {}).values()
            for address in (network.get("IPAddress"), network.get("GlobalIPv6Address"))
            if address and name in (address, str(item["Name"]).lstrip("/"), *(network.get("Aliases") or []))
        }

    def seen_at(self, folder: Path) -> str:
        """Return a folder's path inside the container; the folder's own path where it is not mounted."""
        if self.engine:
            for source, inside in sorted(self._mounts(), key=lambda pair: len(pair[0].parts), reverse=True):
                if source != Path("/") and folder.is_relative_to(source):
                    return str(inside / folder.relative_to(source))
        return str(folder)

    def _mounts(self) -> list[tuple[Path, Path]]:
        mounts = self.known().get("Mounts") or []
        return [(Path(mount.get("Source") or "/"), Path(mount.get("Destination") or "/")) for mount in mounts]

    def unseen(self, file: Path) -> str:
        """Return why the container would not see the replacement of a file; empty where it would."""
        if not self.engine:
            return ""
        sources = [source for source, _ in self._mounts()]
        if file in sources:
            return f"{file} itself is mounted into the proxy's container, which keeps the old file after a replacement"
        if not any(file.is_relative_to(source) for source in sources if source != Path("/")):
            return f"no folder that contains {file} is mounted into the proxy's container"
        return ""
