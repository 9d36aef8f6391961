"""What the client of a registry does with answers that a real registry on this machine does not give."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from holdfast.drivers.packages.registry.client import RegistryClient
from holdfast.errors import RegistryError
from holdfast.system.host import Host

_Answer = tuple[int, dict[str, str], bytes]


class Server:
    """Answers as a function says, and keeps the requests."""

    def __init__(self, answer: Callable[[str, str, str], _Answer]) -> None:
        self.requests: list[tuple[str, str, str]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                request = (self.command, self.path, self.headers["Authorization"] or "")
                outer.requests.append(request)
                status, headers, body = answer(*request)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def serving(answer: Callable[[str, str, str], _Answer]) -> Iterator[Server]:
    server = Server(answer)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def client(server: Server, monkeypatch: pytest.MonkeyPatch, *, user: str = "keeper") -> Iterator[RegistryClient]:
    monkeypatch.setenv("REGISTRY_PASSWORD", "open sesame")
    made = RegistryClient(
        "http", server.address, Host(), user=user, password="env:REGISTRY_PASSWORD" if user else "", timeout_seconds=20
    )
    try:
        yield made
    finally:
        made.close()


def get(asked: RegistryClient, path: str = "/v2/shop/blobs/x") -> bytes:
    with asked.ask("GET", path, "archive") as answer:
        return answer.content(1 << 20)


BASIC = f"Basic {base64.b64encode(b'keeper:open sesame').decode()}"


def test_credentials_do_not_follow_a_redirect_to_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda *_: (200, {}, b"content")) as storage:

        def answer(method: str, path: str, authorization: str) -> _Answer:
            if authorization != BASIC:
                return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b"{}"
            return 307, {"Location": f"http://{storage.address}/signed"}, b""

        with serving(answer) as server, client(server, monkeypatch) as asked:
            assert get(asked) == b"content"
        assert storage.requests == [("GET", "/signed", "")]


@pytest.mark.parametrize("target", ["http://registry.example.org/x", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_a_redirect_to_what_is_not_safe_is_refused(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    with serving(lambda *_: (307, {"Location": target}, b"")) as server, client(server, monkeypatch) as asked:
        with pytest.raises(RegistryError, match="is not https"):
            get(asked)


def test_endless_redirects_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda *_: (302, {"Location": "/v2/again"}, b"")) as server, client(server, monkeypatch) as asked:
        with pytest.raises(RegistryError, match="too often"):
            get(asked)
    assert len(server.requests) < 10


def test_the_password_is_not_sent_to_a_token_service_without_https(monkeypatch: pytest.MonkeyPatch) -> None:
    challenge = {"WWW-Authenticate": 'Bearer realm="http://tokens.example.org/token",service="x"'}
    with serving(lambda *_: (401, challenge, b"{}")) as server, client(server, monkeypatch) as asked:
        with pytest.raises(RegistryError, match="is not https"):
            get(asked)
    assert [authorization for _, _, authorization in server.requests] == [""]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"token": ""}', b'{"token": 5}', b"no json"])
def test_a_token_service_that_gives_no_token(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    def answer(method: str, path: str, authorization: str) -> _Answer:
        if path.startswith("/token"):
            return 200, {}, body
        return 401, {"WWW-Authenticate": f'Bearer realm="http://{server.address}/token",service="x"'}, b"{}"

    with serving(answer) as server, client(server, monkeypatch) as asked:
        with pytest.raises(RegistryError, match="no token"):
            get(asked)


def test_an_access_token_is_a_token_and_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(method: str, path: str, authorization: str) -> _Answer:
        if path.startswith("/token"):
            assert authorization == BASIC and "scope=repository%3Ashop%3Apull" in path
            return 200, {}, json.dumps({"access_token": "t1"}).encode()
        if authorization == "Bearer t1":
            return 200, {}, b"content"
        scope = 'scope="repository:shop:pull"'
        return 401, {"WWW-Authenticate": f'Bearer realm="http://{server.address}/token",service="x",{scope}'}, b"{}"

    with serving(answer) as server, client(server, monkeypatch) as asked:
        assert [get(asked), get(asked)] == [b"content", b"content"]
    assert [path.partition("?")[0] for _, path, _ in server.requests].count("/token") == 1


@pytest.mark.parametrize("status", [403, 404, 429, 500, 503])
def test_an_error_of_the_registry_is_quoted(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    body = json.dumps({"errors": [{"code": "DENIED", "message": "quota exceeded"}]}).encode()
    with serving(lambda *_: (status, {}, body)) as server, client(server, monkeypatch) as asked:
        with pytest.raises(RegistryError) as raised:
            get(asked)
    assert raised.value.status == status and raised.value.next_step
    assert str(status) in raised.value.what
    assert status == 403 or "quota exceeded" in raised.value.what


def test_an_endless_answer_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda *_: (200, {}, bytes(2 << 20))) as server, client(server, monkeypatch) as asked:
        with pytest.raises(RegistryError, match="more than"):
            get(asked)
        with asked.ask("GET", "/v2/x", "archive") as answer:
            assert sum(len(block) for block in answer.blocks()) == 2 << 20, "the connection is usable again"


def test_a_login_that_nobody_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    challenge = {"WWW-Authenticate": 'Basic realm="x"'}
    with serving(lambda *_: (401, challenge, b"{}")) as server, client(server, monkeypatch, user="") as asked:
        with pytest.raises(RegistryError, match="asks for a login"):
            get(asked)
