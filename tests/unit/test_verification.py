"""The health request as an application sees it."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from holdfast.application.health_request import answers


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
    found, words = answers(port, "/", headers)
    assert found is well
    assert said in words
