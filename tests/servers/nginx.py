"""An nginx of the tests' own on a loopback port, configured by an operator who follows docs/howto/proxies.md."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from holdfast.drivers.gates.proxy.nginx import Nginx
from tests.servers.proxy import ProxyServer

LOCATION = """
        location / {
            if ($holdfast_closed) { rewrite ^ $holdfast_page last; }
            proxy_pass http://$holdfast_web;
        }
"""


class NginxServer(ProxyServer):
    name, product = "nginx", Nginx
    seed = 'set $holdfast_closed ""; set $holdfast_page /; set $holdfast_web "ADDRESS";\n'
    location = LOCATION
    good, bad = "server {", "server { no_such_word on;"

    def _prepare(self) -> None:
        if shutil.which("nginx") is None:
            pytest.skip("no nginx here: `make test-setup` as root installs one")
        self.argv = ["nginx", "-c", str(self.config)]

    def configuration(self, include: Path, location: str) -> str:
        folder = self.folder
        return f"""
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 2;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{self.port};
        include {include};
        location /media/ {{ return 200 "media"; }}
        {location}
    }}
}}
"""
