"""What is said of an answer that does not contain the wanted text."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from holdfast.application.health_request import answers

PAGE = b"<html><head><title>Wiki</title><style>p { color: red }</style></head><body><h1>Setup Error</h1>\n<p>%s</p>"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = PAGE % (b"no data" if self.path == "/short" else b"word " * 200)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_page_without_the_text_is_quoted(port: int) -> None:
    found = answers(port, "/short", contains="Welcome")
    assert not found.is_healthy
    assert found.said.endswith("without the text of `health_contains`: Setup Error no data")
    assert len(answers(port, "/long", contains="Welcome").said) < 400
    assert answers(port, "/short", contains="no data").is_healthy
