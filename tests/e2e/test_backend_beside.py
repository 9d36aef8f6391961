"""A web and its backend as a pair: two versions next to each other, each with a socket in its own release."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.config.load import load
from holdfast.wiring import open_app
from tests.e2e.cli import run, succeed
from tests.memory import make_folder
from tests.proof import patience
from tests.small_application import SmallApplication
from tests.standins.visitor import Visitor

_BACKEND = """
import os, socketserver, sys

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(open("VERSION", "rb").read())

if os.path.exists(sys.argv[1]):
    os.unlink(sys.argv[1])
socketserver.ThreadingUnixStreamServer(sys.argv[1], Handler).serve_forever()
"""
_WEB = """
import http.server, json, socket, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with socket.socket(socket.AF_UNIX) as backend:
            backend.connect(sys.argv[2])
            said = backend.makefile().read()
        body = json.dumps({"web": open("VERSION").read(), "backend": said}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

port = json.load(open("var/web.json"))["port"]  # as nginx, which reads its port from its file alone
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


class Pair(SmallApplication):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for version in ("v1", "v2"):
            files = {"backend.py": _BACKEND, "web.py": _WEB, "web.json.in": '{"port": {port}, "place": "{release}"}'}
            self.release(version, files)
        self.write("{release}/b.sock")

    def write(self, socket: str) -> None:
        python = json.dumps(sys.executable)
        self.config.write_text(f"""
[application]
name = "pair"
state = "{self.folder}/state"
[source]
repository = "{self.repository}"
[services.web]
command = [{python}, "web.py", "here", "{socket}"]
files = {{ "var/web.json" = "web.json.in" }}
health = "/"
settle_seconds = 0.1
[services.app]
kind = "backend"
command = [{python}, "backend.py", "{socket}"]
settle_seconds = 0.1
[vaults.local]
path = "{self.folder}/vault"
[gate]
kind = "front"
listen = "127.0.0.1:{self.port}"
drain_seconds = {patience.limit(2)}
""")


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair(make_folder("hfp"))
    yield made
    made.end()


def test_each_web_meets_its_own_backend_and_no_visitor_waits(pair: Pair) -> None:
    succeed(pair, "install", "v1")
    with Visitor(pair.port, "/", interval_seconds=0) as visitor:
        succeed(pair, "upgrade", "v2", "--source")
    assert set(visitor.statuses) == {200}, visitor.unanswered
    assert {tuple(json.loads(body).values()) for body in visitor.bodies} <= {("v1", "v1"), ("v2", "v2")}
    assert pair.get() == {"web": "v2", "backend": "v2"}
    with Visitor(pair.port, "/", interval_seconds=0) as visitor:
        succeed(pair, "rollback")
    assert set(visitor.statuses) == {200}, visitor.unanswered
    assert pair.get() == {"web": "v1", "backend": "v1"}
    app = open_app(load(str(pair.config)))
    running = sorted(status.name for status in app.context.runtime.statuses().values() if status.running)
    app.close()
    assert len(running) == 3, f"front, web and backend of one release: {running}"


def test_a_pair_with_one_address_is_refused(pair: Pair) -> None:
    pair.write(f"{pair.folder}/b.sock")
    succeed(pair, "install", "v1")
    done = run(pair, "upgrade", "v2", "--source")
    assert done.returncode == 4
    assert "contain {release}" in done.stderr
    pair.write("{release}/b.sock")
    done = run(pair, "upgrade", "v2", "--source")
    assert done.returncode == 4, "the pair that runs still has the other address"
    succeed(pair, "upgrade", "v2")
    succeed(pair, "upgrade", "v1", "--source")
    assert pair.get() == {"web": "v1", "backend": "v1"}
