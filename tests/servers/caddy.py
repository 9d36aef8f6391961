"""A Caddy of the tests' own on a loopback port, configured by an operator who follows docs/howto/proxies.md."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from holdfast.drivers.gates.proxy.caddy import Caddy
from holdfast.system.ports import free_loopback_port
from tests.servers.proxy import ProxyServer

LOCATION = """
    handle {
        import INCLUDE
    }
"""


class CaddyServer(ProxyServer):
    name, product = "caddy", Caddy
    seed = "reverse_proxy ADDRESS\n"
    location = LOCATION
    good, bad = "handle {", "no_such_word {"

    def _prepare(self) -> None:
        if shutil.which("caddy") is None:
            pytest.skip("no Caddy here: `make test-setup` as root installs one")
        self.argv = ["caddy", "run", "--config", str(self.config), "--adapter", "caddyfile"]
        self.environment = {**os.environ, "HOME": str(self.folder)}

    def configuration(self, include: Path, location: str) -> str:
        return f"""
{{
    admin 127.0.0.1:{free_loopback_port()}
    auto_https off
}}
http://:{self.port} {{
    bind 127.0.0.1
    handle /media/* {{
        respond "media"
    }}
    {location.replace("INCLUDE", str(include))}
}}
"""
