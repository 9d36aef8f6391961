"""A web and a visitor for whom each byte counts, to see what a proxy between them changes."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import threading
from collections.abc import Callable
from typing import NamedTuple

from tests.proof import patience

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Call:
    """One connection that reached the web, with one request."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(patience.limit(30))
        self.rest = b""
        self.head = self.until(b"\r\n\r\n")
        self.left = False

    def until(self, end: bytes) -> bytes:
        while end not in self.rest:
            data = self.connection.recv(65536)
            if not data:
                raise EOFError(self.rest)
            self.rest += data
        found, _, self.rest = self.rest.partition(end)
        return found

    def take(self, size: int) -> bytes:
        while len(self.rest) < size:
            data = self.connection.recv(65536)
            if not data:
                raise EOFError(len(self.rest))
            self.rest += data
        found, self.rest = self.rest[:size], self.rest[size:]
        return found

    def count(self, size: int) -> None:
        """Read a body of this size without keeping it."""
        left = size - len(self.rest)
        while left > 0:
            data = self.connection.recv(min(left, 1 << 20))
            if not data:
                raise EOFError(left)
            left -= len(data)

    def chunked(self) -> tuple[bytes, list[bytes]]:
        """Return a body in chunks and its trailers."""
        body = b""
        while size := int(self.until(b"\r\n").partition(b";")[0], 16):
            body += self.take(size)
            assert self.take(2) == b"\r\n"
        lines = []
        while line := self.until(b"\r\n"):
            lines.append(line)
        return body, lines

    def body(self) -> bytes:
        """Return the request's body, whichever way its end is said."""
        if self.values("transfer-encoding"):
            return self.chunked()[0]
        return self.take(int((self.values("content-length") or [b"0"])[0]))

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def wait_until_left(self) -> None:
        """Wait until the other side closed, which is the news that a visitor is gone."""
        with contextlib.suppress(ConnectionError):
            while self.connection.recv(65536):
                pass
        self.left = True

    @property
    def line(self) -> bytes:
        return self.head.split(b"\r\n")[0]

    @property
    def lines(self) -> list[bytes]:
        return self.head.split(b"\r\n")[1:]

    def values(self, name: str) -> list[bytes]:
        pairs = [line.partition(b":") for line in self.lines]
        return [value.strip() for key, _, value in pairs if key.decode("latin-1").lower() == name]


class RawWeb:
    """A web that answers by a function of each call."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.failures: list[BaseException] = []
        self._answering, self._lock = 0, threading.Lock()
        self._reset()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._stop, self._stopping = socket.socketpair()
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def reset(self) -> None:
        """Forget what came, also what a proxy has opened for an earlier test and nobody has read yet."""
        with socket.create_connection(self._listener.getsockname(), timeout=patience.limit(30)) as last:
            last.shutdown(socket.SHUT_WR)
            last.recv(1)
        patience.until(lambda: not self._answering)
        self._reset()

    def _reset(self) -> None:
        self.answer: Callable[[Call], None] = lambda call: call.send(OK)
        self.calls.clear()
        self.failures.clear()

    def _accept(self) -> None:
        while self._stopping not in select.select([self._listener, self._stopping], [], [])[0]:
            connection, _ = self._listener.accept()
            with self._lock:
                self._answering += 1
            threading.Thread(target=self._serve, args=(connection,)).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                call = Call(connection)
                self.calls.append(call)
                try:
                    self.answer(call)
                except BaseException as error:  # the test's own assertions count, and are raised where it ends
                    self.failures.append(error)
            except (EOFError, ConnectionError):
                pass  # a proxy that opened a connection and thought better of it
            finally:
                with self._lock:
                    self._answering -= 1

    def call(self) -> Call:
        """Return the only call, once it has come."""
        patience.until(lambda: self.calls)
        (call,) = self.calls
        return call

    def close(self) -> None:
        self._stop.send(b"x")
        self._thread.join()
        for each in (self._listener, self._stop, self._stopping):
            each.close()


class Answer(NamedTuple):
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]


class RawVisitor:
    """A connection to a proxy."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=patience.limit(30))
        self._read = self.socket.makefile("rb")

    def __enter__(self) -> RawVisitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._read.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def head(self) -> tuple[int, list[bytes]]:
        """Return status and lines of the next head."""
        lines = []
        while (line := self._read.readline().rstrip(b"\r\n")) or not lines:
            if not line:
                raise EOFError
            lines.append(line)
        return int(lines[0].split()[1]), lines[1:]

    def answer(self, method: str = "GET") -> Answer:
        """Return the next answer; its body is whole, or http.client.IncompleteRead is raised."""
        response = http.client.HTTPResponse(_Kept(self._read), method=method)  # type: ignore[arg-type]
        response.begin()
        return Answer(response.status, response.reason, response.getheaders(), response.read())

    def line(self) -> bytes:
        return self._read.readline()

    def take(self, size: int) -> bytes:
        return self._read.read(size)

    def rest(self) -> bytes:
        """Return all bytes until the connection ends; a reset is an end too."""
        with contextlib.suppress(ConnectionError):
            return self._read.read()
        return b""


class _Kept:
    """What http.client takes for a socket, of which it closes nothing."""

    def __init__(self, file: object) -> None:
        self._file = file

    def makefile(self, mode: str) -> object:
        file = self._file

        class Reader:
            def __getattr__(self, name: str) -> object:
                return getattr(file, name)

            def close(self) -> None:
                pass

            def flush(self) -> None:
                pass

        return Reader()


def ask(port: int, request: bytes, method: str = "GET") -> Answer:
    """Return the answer to one request on its own connection."""
    with RawVisitor(port) as visitor:
        visitor.send(request)
        return visitor.answer(method)


def frame(kind: int, data: bytes, masked: bool) -> bytes:
    """Return a frame of a WebSocket, with an empty mask where it comes from a visitor."""
    assert len(data) < 126
    return bytes([0x80 | kind, (0x80 if masked else 0) | len(data)]) + (bytes(4) if masked else b"") + data
