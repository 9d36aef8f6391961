"""Opens the gate that is configured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from holdfast.config.load import ResolvedConfig
from holdfast.drivers.kinds import DriverClass, driver
from holdfast.drivers.protocols.containers import Containers
from holdfast.drivers.protocols.gates import Gate
from holdfast.errors import ConfigurationError
from holdfast.system.host import Host

if TYPE_CHECKING:
    from holdfast.drivers.gates.proxy.driver import Product, ProxyGate
    from holdfast.drivers.gates.state_file import GateFacts


def _front() -> Callable[..., Gate]:
    from holdfast.drivers.gates.front.driver import FrontGate

    return FrontGate


def _none() -> Callable[..., Gate]:
    from holdfast.drivers.gates.none import NoGate

    return NoGate


def _caddy() -> Callable[..., Product]:
    from holdfast.drivers.gates.proxy.caddy import Caddy

    return Caddy


def _nginx() -> Callable[..., Product]:
    from holdfast.drivers.gates.proxy.nginx import Nginx

    return Nginx


KINDS: Mapping[str, DriverClass[Gate]] = {"front": _front, "none": _none}
PROXIES: Mapping[str, DriverClass[Product]] = {"caddy": _caddy, "nginx": _nginx}
"""Proxies of the operator, by what differs among them."""


def open_gate(loaded: ResolvedConfig) -> Gate:
    """Return the gate, where it is no proxy of the operator. Raise ConfigurationError for an unknown kind."""
    gate = loaded.configuration.gate
    folder = loaded.state / "front"
    kind = driver(KINDS, gate.kind, "gate.kind")
    if gate.kind == "none":
        return kind(folder)
    return kind(
        folder,
        gate.listen,
        trusted_proxies=gate.trusted_proxies,
        message=gate.message,
        template=str(loaded.path(gate.template)) if gate.template else "",
        pages=_pages(loaded),
        drain_seconds=gate.drain_seconds,
    )


def _pages(loaded: ResolvedConfig) -> GateFacts:
    """Return where the application's own pages are, as the gate's file keeps it; nothing if none are configured."""
    configuration = loaded.configuration
    if not configuration.gate.pages:
        return {"pages": ""}
    releases = loaded.path(configuration.releases.path)
    return {"pages": configuration.gate.pages, "releases": str(releases), "root": str(loaded.root)}


def open_proxy(loaded: ResolvedConfig, host: Host, containers: Containers | None) -> ProxyGate | None:
    """Return the gate, where it is a proxy of the operator."""
    gate = loaded.configuration.gate
    if gate.kind not in PROXIES:
        return None
    from holdfast.containers.engines import engine_named
    from holdfast.drivers.gates.proxy.driver import ProxyGate
    from holdfast.drivers.gates.proxy.location import ProxyLocation
    from holdfast.drivers.gates.proxy.probe import SiteProbe

    engine, _, name = gate.container.partition(":")
    if engine == "compose":
        if containers is None:
            raise ConfigurationError("holdfast.toml is wrong", ["gate.container: needs runtime.kind compose"])
        place = ProxyLocation(host, engine_named(containers.engine_name, host), partial(containers.container_of, name))
    else:
        place = ProxyLocation(host, engine_named(engine, host) if engine else None, partial(str, name))
    return ProxyGate(
        loaded.state / "front",
        loaded.path(gate.include),
        driver(PROXIES, gate.kind, "gate.kind")(place, gate.config),
        place,
        SiteProbe(gate.check_url, gate.check_host),
        message=gate.message,
        template=str(loaded.path(gate.template)) if gate.template else "",
        pages=_pages(loaded),
        drain_seconds=gate.drain_seconds,
    )
