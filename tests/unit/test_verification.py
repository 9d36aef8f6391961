"""The health request as an application sees it, and what is said of a service that does not answer it."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from holdfast.application.health import _where_it_listens
from holdfast.application.health_request import answers
from holdfast.application.health_watch import Seen
from holdfast.model import ServiceInstance, ServiceStatus


class _Strict(http.server.BaseHTTPRequestHandler):
    """As Django with ALLOWED_HOSTS and SECURE_SSL_REDIRECT."""

    def do_GET(self) -> None:
        known = self.headers["Host"] == "www.example.org"
        self.send_response((200 if self.headers["X-Forwarded-Proto"] == "https" else 301) if known else 400)
        self.send_header("Content-Length", "0")
        self.send_header("Location", "https://www.example.org/login/?token=secret")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Strict)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("headers", "well", "said"),
    [
        ({}, False, "answered 400; if it accepts only requests to its own name, set that as Host in `health_headers`"),
        (
            {"Host": "www.example.org"},
            False,
            "answered 301, a redirect to https://www.example.org/login/; only 2xx counts",
        ),
        ({"Host": "www.example.org", "X-Forwarded-Proto": "https"}, True, "answered 200"),
    ],
)
def test_headers_are_those_of_the_configuration(port: int, headers: dict[str, str], well: bool, said: str) -> None:
    found, arguments, _ = answers(port, "/", headers)
    assert found is well
    assert said in arguments


_LISTENS = "import socket, sys; one = socket.create_server(('127.0.0.1', 0)); print(one.getsockname()[1], flush=True)"


def test_a_service_that_listens_elsewhere_is_told() -> None:
    """The most frequent mistake in a service's command, and one that no output shows."""
    program = f"{_LISTENS}; sys.stdin.read()"
    arguments = ["sh", "-c", '"$0" -c "$1"; :', sys.executable, program]  # its child has the socket
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        status = ServiceStatus("web-r1", True, process.pid, 9.0, "running")
        instance = ServiceInstance("web-r1", "web", "web", "r1", "/", ("sh",), {}, port=1)
        said = _where_it_listens(instance, Seen(60.0, status))
        assert f"its process {process.pid} (sh -c" in said
        assert said.endswith(f"listens on {port}, and was given port 1")
        assert _where_it_listens(replace(instance, port=port), Seen(60.0, status)) == ""
        assert _where_it_listens(replace(instance, port=None), Seen(60.0, status)) == ""
