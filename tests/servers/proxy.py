"""What an operator's proxies have in common: a folder, a first file for the gate, a start and an end."""

from __future__ import annotations

import http.client
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from holdfast.drivers.gates.proxy.driver import Product, ProxyGate
from holdfast.drivers.gates.proxy.location import ProxyLocation
from holdfast.drivers.gates.proxy.probe import SiteProbe
from holdfast.system import processes
from holdfast.system.host import Host
from holdfast.system.ports import free_loopback_port
from tests.proof import patience

_SECONDS = 30


class ProxyServer:
    """`seed` leads visitors to ADDRESS until the gate says something else; `bad` in place of `good` is refused."""

    name: ClassVar[str]
    product: ClassVar[Callable[[ProxyLocation, str], Product]]
    seed: ClassVar[str]
    location: ClassVar[str]
    good: ClassVar[str]
    bad: ClassVar[str]
    argv: list[str]
    environment: Mapping[str, str] | None = None

    def __init__(self, folder: Path, address: str, *, drain_seconds: float = 10, location: str = "") -> None:
        self.folder = folder / self.name
        self.port = free_loopback_port()
        self.include = self.folder / "holdfast" / "gate.conf"
        self.include.parent.mkdir(parents=True)
        self.include.write_text(self.seed.replace("ADDRESS", address))
        self.config = self.folder / "configuration"
        self._prepare()
        self.config.write_text(self.configuration(self.include, location or self.location))
        self.gate = self.gate_of(drain_seconds)
        self.start()

    def gate_of(self, drain_seconds: float) -> ProxyGate:
        place = ProxyLocation(Host())
        return ProxyGate(
            self.folder.parent / "state",
            self.include,
            type(self).product(place, str(self.config)),
            place,
            SiteProbe(f"http://127.0.0.1:{self.port}/"),
            message="Back soon.",
            drain_seconds=drain_seconds,
        )

    def _prepare(self) -> None:
        """Sets `argv`, or skips."""
        raise NotImplementedError

    def configuration(self, include: Path, location: str) -> str:
        raise NotImplementedError

    def start(self) -> None:
        with open(self.folder / "output", "ab") as output:
            self._process = subprocess.Popen(self.argv, stdout=output, stderr=output, env=self.environment)
        deadline = patience.deadline(_SECONDS)
        while self._status() is None:
            assert self._process.poll() is None, (self.folder / "output").read_text()
            assert time.monotonic() < deadline, f"{self.name} did not come up"
            time.sleep(0.02)

    def _status(self) -> int | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_SECONDS)
        try:
            connection.request("GET", "/media/")
            return connection.getresponse().status
        except OSError:
            return None
        finally:
            connection.close()

    def workers(self) -> set[int]:
        """Return its processes but for the first."""
        first = processes.Identity(self._process.pid, processes.started(self._process.pid))
        return set(processes.descendants(first, processes.table()))

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(_SECONDS)
