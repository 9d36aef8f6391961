"""What images of the stand-ins have in common: where programs of this machine are, and Debian's nginx as a proxy."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.servers import docker

PATH = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"

_NGINX = """
user www-data;
worker_processes 1;
daemon off;
pid /tmp/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_max_body_size 100m;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    resolver 127.0.0.11 valid=1s ipv6=off;
    server {
        listen 80;
PLACES
    }
}
"""
NGINX_DOCKERFILE = f"""FROM {docker.IMAGE}
ENV PATH={PATH}
COPY nginx.conf /nginx.conf
STOPSIGNAL SIGQUIT
CMD ["nginx", "-e", "stderr", "-c", "/nginx.conf"]
"""


def nginx_configuration(places: str) -> str:
    """Build an nginx with these lines in its server on port 80. It looks up names again, as containers may change."""
    if shutil.which("nginx") is None:
        pytest.skip("no nginx here: `make test-setup` as root installs one")
    return _NGINX.replace("PLACES", places)
