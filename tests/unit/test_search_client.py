"""How a search server is reached: what a configuration may say, and what a request carries."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from holdfast.config.schema import Index
from holdfast.drivers.indices.search.client import JsonObject, SearchClient, SearchError
from holdfast.errors import StepError


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"url": "http://search.example:9200"}, "url: must begin with https://"),
        ({"url": "http://127.0.0.1.example:9200"}, "url: must begin with https://"),
        ({"url": "http://localhost:9200", "ca": "ca.pem"}, "ca: is for a url with https://"),
        ({"user": "shop"}, "user: needs a password"),
        ({"api_key": "env:KEY", "user": "shop", "password": "env:P"}, "api_key: contradicts"),
        ({"content": "snapshot", "repository_type": "fs"}, "repository_settings: location is missing"),
        ({"repository_type": "fs", "repository_settings": {"location": "/x"}}, "repository_type: is for content"),
    ],
)
def test_what_contradicts_itself_is_refused(more: dict[str, Any], problem: str) -> None:
    assert any(text.startswith(problem) for text in Index("elasticsearch", "shop", **more).problems())


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9200", "http://localhost", "http://[::1]:9200/", "https://a.example"]
)
def test_this_machine_needs_no_tls(url: str) -> None:
    assert Index("elasticsearch", "shop", url).problems() == []


class _Server(BaseHTTPRequestHandler):
    seen: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.seen.append(self.headers["Authorization"])
        refused = self.path == "/refused"
        body = b'{"error": {"type": "index_not_found", "reason": "no such\\n index"}}' if refused else b"not JSON"
        self.send_response(404 if refused else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    _Server.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_secrets_are_resolved_for_each_request_and_never_printed(url: str) -> None:
    values = {"env:PASSWORD": "open sesame", "env:KEY": "encoded"}
    basic = SearchClient("main", Index("elasticsearch", "shop", url, "shop", "env:PASSWORD"), None, values.__getitem__)
    with pytest.raises(SearchError, match="index_not_found: no such index") as refused:
        basic.ask(JsonObject, "GET", "/refused")
    key = SearchClient("main", Index("elasticsearch", "shop", url, api_key="env:KEY"), None, values.__getitem__)
    with pytest.raises(StepError, match="unexpected answer"):
        key.ask(JsonObject, "GET", "/")
    assert _Server.seen == ["Basic c2hvcDpvcGVuIHNlc2FtZQ==", "ApiKey encoded"]
    assert "sesame" not in str(refused.value)


def test_a_server_that_does_not_answer_is_named() -> None:
    client = SearchClient("main", Index("elasticsearch", "shop", "http://127.0.0.1:1"), None, str)
    with pytest.raises(StepError, match="cannot be reached"):
        client.ask(JsonObject, "GET", "/")
