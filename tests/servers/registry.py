"""A registry of the distribution project on a loopback port, with a login or a certificate where a test wants one."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from holdfast.system.ports import free_loopback_port
from tests.memory import make_folder, remove_folder
from tests.proof import patience
from tests.proof.endings import at_end

USER, PASSWORD = "keeper", "open sesame"
_START_SECONDS = 20
Login = Literal["", "basic", "token"]


def program() -> str:
    """Return the registry's program, or skip the test."""
    found = shutil.which("docker-registry") or shutil.which("registry")
    if found is None:
        pytest.skip("no registry here: `make test-setup` as root installs docker-registry")
    return found


class RegistryServer:
    """One registry with a folder of its own; `repository()` gives each test a part of it."""

    def __init__(self, *, login: Login = "", tls: bool = False, deletes: bool = True, data: Path | None = None) -> None:
        """Start one. `data`: where it keeps contents, which may be put back while it runs: it remembers nothing."""
        self._program = program()
        self.folder = make_folder("hfo")
        self.port = free_loopback_port()
        self.scheme = "https" if tls else "http"
        self.address = f"127.0.0.1:{self.port}"
        self.authority = self.folder / "ca.pem"
        self.data = data or self.folder / "data"
        self._tokens: TokenServer | None = None
        self._number = 0
        if tls or login == "token":
            _certificate(self.folder)
        lines = [
            "version: 0.1",
            "log: {level: warn}",
            "storage:",
            f"  filesystem: {{rootdirectory: {self.data}}}",
            f"  delete: {{enabled: {str(deletes).lower()}}}",
            "http:",
            f"  addr: {self.address}",
        ]
        if tls:
            lines.append(f"  tls: {{certificate: {self.authority}, key: {self.folder}/key.pem}}")
        if login == "basic":
            (self.folder / "users").write_text(f"{USER}:{_hashed(PASSWORD)}\n")
            lines.append(f"auth: {{htpasswd: {{realm: test, path: {self.folder}/users}}}}")
        if login == "token":
            self._tokens = TokenServer(self.folder)
            facts = f"realm: '{self._tokens.realm}', service: test, issuer: test, rootcertbundle: {self.authority}"
            lines.append(f"auth: {{token: {{{facts}}}}}")
        (self.folder / "config.yml").write_text("\n".join(lines) + "\n")
        self.start()

    def repository(self) -> str:
        """Return a repository that nobody else uses."""
        self._number += 1
        return f"shop/packages{self._number}"

    def url(self, repository: str) -> str:
        return f"{self.scheme}://{self.address}/{repository}"

    def start(self) -> None:
        with open(self.folder / "output", "ab") as output:
            self._process = subprocess.Popen(
                [self._program, "serve", str(self.folder / "config.yml")], stdout=output, stderr=output
            )
        deadline = patience.deadline(_START_SECONDS)
        while not self._listens():
            assert self._process.poll() is None, (self.folder / "output").read_text()
            assert time.monotonic() < deadline, "the registry did not come up"
            time.sleep(0.02)

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(patience.limit(10))

    def blob(self, digest: str) -> Path:
        """Return the file in which it keeps a content."""
        name = digest.removeprefix("sha256:")
        return self.data / "docker/registry/v2/blobs/sha256" / name[:2] / name / "data"

    def tags(self, repository: str) -> list[str]:
        """Return what a client without any code of Holdfast sees there."""
        try:
            with urllib.request.urlopen(
                f"{self.url(repository)}/".replace("/shop", "/v2/shop") + "tags/list"
            ) as answer:
                return list(json.load(answer)["tags"] or [])
        except urllib.error.HTTPError:
            return []

    def remove(self) -> None:
        if self._process.poll() is None:
            self.stop()
        if self._tokens is not None:
            self._tokens.close()
        remove_folder(self.folder)


@functools.cache
def shared() -> RegistryServer:
    """The one of this process, without a login."""
    server = RegistryServer()
    at_end(server.remove)
    return server


@functools.cache
def _hashed(password: str) -> str:
    """Return a password as the registry's file of users has it."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import crypt

        return crypt.crypt(password, crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16))


def _certificate(folder: Path) -> None:
    """Write a certificate that signs itself, and its key."""
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    out = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "ca.pem")]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", *subject, *out],
        check=True,
        capture_output=True,
    )


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenServer:
    """Gives tokens to the one account that it knows, as the registry's documentation describes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
                query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
                outer.asked.append(query.get("scope", ""))
                known = self.headers["Authorization"] == wanted
                body = json.dumps({"token": outer.token(query)} if known else {}).encode()
                self.send_response(200 if known else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.realm = f"http://127.0.0.1:{self._server.server_address[1]}/token"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def token(self, query: dict[str, str]) -> str:
        kind, _, rest = query.get("scope", "").partition(":")
        name, _, actions = rest.rpartition(":")
        pem = (self._folder / "ca.pem").read_text().split("-----")[2]
        now = int(time.time())
        claims = {
            "iss": "test",
            "aud": query.get("service", ""),
            "sub": USER,
            "iat": now - 10,
            "nbf": now - 10,
            "exp": now + 600,
            "jti": str(now),
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }
        header = {"alg": "RS256", "typ": "JWT", "x5c": ["".join(pem.split())]}
        text = ".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
        argv = ["openssl", "dgst", "-sha256", "-sign", str(self._folder / "key.pem")]
        signed = subprocess.run(argv, input=text.encode(), capture_output=True, check=True).stdout
        return f"{text}.{_base64(signed)}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Relay:
    """Relays to a registry, and is gone for good after a number of bytes in one direction."""

    def __init__(self, port: int, *, upwards: int | None = None, downwards: int | None = None) -> None:
        self._target = port
        self._left = {"up": upwards, "down": downwards}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.gone = threading.Event()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self.gone.is_set():
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open += [client, server]
                threading.Thread(target=self._copy, args=(client, server, "up"), daemon=True).start()
                threading.Thread(target=self._copy, args=(server, client, "down"), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                left = self._left[way]
                if left is not None:
                    self._left[way] = left - len(data)
                    if left <= len(data):
                        self.close()
                        return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.gone.set()
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextlib.contextmanager
def relay(port: int, *, upwards: int | None = None, downwards: int | None = None) -> Iterator[Relay]:
    made = Relay(port, upwards=upwards, downwards=downwards)
    try:
        yield made
    finally:
        made.close()
