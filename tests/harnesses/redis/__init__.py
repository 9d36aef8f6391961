"""Redis: an example of a dataset that answers no SQL, with a driver and the harness for the suite."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.harnesses.harness import Harness, OpenHarness, WriterHeldError
from tests.harnesses.redis.driver import RedisKeySpace
from tests.memory import make_folder, remove_folder
from tests.proof import patience
from tests.proof.endings import at_end

_LIVE, _OTHER = 0, 7
_MOMENT_SECONDS = 0.5


@functools.cache
def _server() -> Path:
    """Start the server of this process, once, and return its socket."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no Redis server here: `make test-setup` as root installs one")
    folder = make_folder()
    socket = folder / "socket"
    settings = ["--port", "0", "--unixsocket", str(socket), "--dir", str(folder), "--databases", "64"]
    durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    process = subprocess.Popen([program, *settings, *durable], stdout=subprocess.DEVNULL)

    def end() -> None:
        process.kill()
        process.wait()
        remove_folder(folder)

    at_end(end)
    patience.until(socket.exists)
    return socket


class RedisHarness(Harness):
    """Entries are the keys of one key space, by their number."""

    holders_go_together = True

    def __init__(self, socket: Path, folder: Path) -> None:
        super().__init__(RedisKeySpace("main", socket, _LIVE), folder)
        self.socket = socket

    def _client(self, number: int = _LIVE, timeout: float | None = None) -> closing[redis.Redis]:
        client = redis.Redis(
            unix_socket_path=str(self.socket),
            db=number,
            socket_timeout=timeout or patience.limit(5),
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        return closing(client)

    def create(self) -> None:
        """Do nothing: a key space begins with its first key."""

    def add(self, text: str) -> None:
        with self._client() as client:
            number = client.dbsize()
        with self._client(timeout=_MOMENT_SECONDS * patience.FACTOR) as client:
            try:
                client.set(f"entry:{number}", text)
            except redis.exceptions.TimeoutError as error:
                raise WriterHeldError(str(error)) from error

    def clear(self) -> None:
        with self._client() as client:
            client.flushdb()

    def texts(self) -> list[str]:
        return self._texts(_LIVE)

    def _texts(self, number: int) -> list[str]:
        with self._client(number) as client:
            return [str(client.get(key)) for key in sorted(client.scan_iter(), key=lambda key: int(key.split(":")[1]))]

    def free_name(self) -> str:
        return str(_OTHER)

    def texts_under(self, name: str) -> list[str]:
        return self._texts(int(name))


@contextmanager
def opened(folder: Path) -> Iterator[RedisHarness]:
    harness = RedisHarness(_server(), folder)
    with harness._client() as client:
        client.flushall()
    yield harness


DATASETS: Mapping[str, OpenHarness] = {"redis": opened}
