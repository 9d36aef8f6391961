"""An nginx of the tests' own on a loopback port, configured as docs/howto/proxies.md says; what an operator would write."""

from __future__ import annotations

import http.client
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from holdfast.drivers.gates.nginx import Nginx
from holdfast.drivers.gates.place import Place
from holdfast.drivers.gates.proxy import ProxyGate
from holdfast.drivers.gates.visit import Door
from holdfast.host import Host
from holdfast.ports import free_loopback_port

_SECONDS = 30
SEED = 'set $holdfast_closed ""; set $holdfast_page /; set $holdfast_web "{address}";\n'
LOCATION = """
        location / {
            if ($holdfast_closed) { rewrite ^ $holdfast_page last; }
            proxy_pass http://$holdfast_web;
        }
"""


def configuration(folder: Path, port: int, include: Path, location: str = LOCATION) -> str:
    return f"""
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 2;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        include {include};
        location /media/ {{ return 200 "media"; }}
        {location}
    }}
}}
"""


class NginxServer:
    def __init__(self, folder: Path, address: str, *, drain_seconds: float = 10, location: str = LOCATION) -> None:
        """`address` is where visitors are led to until the gate says something else."""
        if shutil.which("nginx") is None:
            pytest.skip("no nginx here: `make test-setup` as root installs one")
        self.folder = folder / "nginx"
        self.port = free_loopback_port()
        self.include = self.folder / "holdfast" / "gate.conf"
        self.include.parent.mkdir(parents=True)
        self.include.write_text(SEED.format(address=address))
        self.config = self.folder / "nginx.conf"
        self.config.write_text(configuration(self.folder, self.port, self.include, location))
        place = Place(Host())
        self.gate = ProxyGate(
            folder / "state", self.include, Nginx(place, str(self.config)), place,
            Door(f"http://127.0.0.1:{self.port}/"), message="Back soon.", drain_seconds=drain_seconds,
        )  # fmt: skip
        self.start()

    def start(self) -> None:
        with open(self.folder / "output", "ab") as output:
            self._process = subprocess.Popen(["nginx", "-c", str(self.config)], stdout=output, stderr=output)
        deadline = time.monotonic() + _SECONDS
        while self._status() is None:
            assert self._process.poll() is None, (self.folder / "output").read_text()
            assert time.monotonic() < deadline, "nginx did not come up"
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

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(_SECONDS)
