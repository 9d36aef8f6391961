"""Gates that are the user's own proxy; the proxy does not run yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from holdfast.drivers.gates.proxy.caddy import Caddy
from holdfast.drivers.gates.proxy.driver import Product, ProxyGate
from holdfast.drivers.gates.proxy.location import ProxyLocation
from holdfast.drivers.gates.proxy.nginx import Nginx
from holdfast.drivers.gates.proxy.probe import SiteProbe
from holdfast.drivers.protocols.gates import Gate
from holdfast.system.host import Host
from holdfast.system.ports import free_loopback_port


def _proxy(product: Callable[[ProxyLocation], Product], folder: Path) -> Gate:
    place = ProxyLocation(Host())
    door = SiteProbe(f"http://127.0.0.1:{free_loopback_port()}/")
    return ProxyGate(folder, folder / "proxy" / "gate.conf", product(place), place, door)


GATES: Mapping[str, Callable[[Path], Gate]] = {
    "nginx": partial(_proxy, Nginx),
    "caddy": partial(_proxy, Caddy),
}
