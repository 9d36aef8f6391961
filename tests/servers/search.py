"""An Elasticsearch server in a folder of its own, on a port of the loopback; it has a folder for snapshots."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from holdfast.config.schema import Index
from holdfast.drivers.indices.search.client import JsonObject, SearchClient
from holdfast.errors import StepError
from tests.proof import patience
from tests.proof.endings import at_end

ORDINARY = "7.17.29"
OTHERS = ("6.8.23", "8.19.0", "9.1.0")
_CACHE = Path("/var/cache/holdfast-tests")
_UID = 26000  # it refuses to run as root, and needs no account for this number
_START_SECONDS = 60


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _java(version: str) -> Path | None:
    """Return the folder of a Java that the version runs on: the newest needs a newer one than the others."""
    homes = sorted(Path("/usr/lib/jvm").glob("*/bin/java")) if Path("/usr/lib/jvm").is_dir() else []
    wanted = ("temurin-2", "java-2", "openjdk-2") if version.startswith("9") else ("java-", "openjdk-", "temurin-")
    for start in wanted:
        for program in homes:
            if program.parent.parent.name.removeprefix("java-1.").startswith(start.removeprefix("java-1.")):
                return program.parent.parent
    return None


class _Snapshot(msgspec.Struct):
    snapshot: str


class _Snapshots(msgspec.Struct):
    snapshots: list[_Snapshot]


class _Source(msgspec.Struct):
    text: str


class _Hit(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    source: _Source = msgspec.field(name="_source")


class _Hits(msgspec.Struct):
    hits: list[_Hit]


class _Found(msgspec.Struct):
    hits: _Hits


class SearchServer:
    """One node that serves this process until its end."""

    def __init__(self, version: str = ORDINARY) -> None:
        self.version = version
        program = _CACHE / f"elasticsearch-{version}" / "bin" / "elasticsearch"
        java = _java(version)
        if os.geteuid() != 0:
            pytest.skip("no Elasticsearch here: it is started as another account, which takes root")
        if not program.exists() or java is None:
            pytest.skip(f"no Elasticsearch {version} here: `tests/install-search {version}` as root installs it")
        self._program, self._java = program, java
        self.folder = Path(tempfile.mkdtemp(prefix="hfe"))
        self.snapshots = self.folder / "snapshots"
        for name in ("snapshots", "tmp", "data", "logs"):
            (self.folder / name).mkdir()
        # The distribution's own folder is shared by all, so what the server writes into it is in this one.
        shutil.copytree(program.parent.parent / "config", self.folder / "config")
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._configure()
        self.start()

    def _configure(self) -> None:
        transport = "transport.tcp.port" if self.version.startswith("6") else "transport.port"
        lines = [
            "cluster.name: holdfast-tests",
            f"path.data: {self.folder}/data",
            f"path.logs: {self.folder}/logs",
            f'path.repo: ["{self.snapshots}"]',
            "network.host: 127.0.0.1",
            f"http.port: {self.port}",
            f"{transport}: {_free_port()}",
            "discovery.type: single-node",
            "cluster.routing.allocation.disk.threshold_enabled: false",
        ]
        if not self.version.startswith("6"):
            lines.append("xpack.security.enabled: false")
        (self.folder / "config" / "elasticsearch.yml").write_text("\n".join(lines) + "\n")
        options = self.folder / "config" / "jvm.options"  # its logs would go into the distribution's own folder
        lines_of = options.read_text().splitlines(keepends=True)
        options.write_text("".join(line for line in lines_of if "logs/" not in line))
        for path in [self.folder, *self.folder.rglob("*")]:
            os.chown(path, _UID, _UID)

    def start(self) -> None:
        settings = "-Xms256m -Xmx256m -XX:TieredStopAtLevel=1"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "ES_TMPDIR": str(self.folder / "tmp"),
            "ES_JAVA_HOME": str(self._java),
            "JAVA_HOME": str(self._java),
            "ES_PATH_CONF": str(self.folder / "config"),
            "ES_JAVA_OPTS": settings,
        }
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", f"--reuid={_UID}", f"--regid={_UID}", "--clear-groups", str(self._program)],
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        patience.until(self._answers, _START_SECONDS)

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self.folder / "log").read_text()[-4000:]
        try:
            self.ask("GET", "/_cluster/health")
        except StepError:
            return False
        return True

    def stop(self) -> None:
        """End it, with the server that a launcher started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(patience.limit(60))
        end = patience.deadline(60)
        while self._listens() and time.monotonic() < end:
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as by a power failure of the server alone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        patience.until(lambda: not self._listens())

    def _listens(self) -> bool:
        with contextlib.closing(socket.socket()) as tried:
            return tried.connect_ex(("127.0.0.1", self.port)) == 0

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- as the application --------------------------------------------------------------------------

    @functools.cached_property
    def client(self) -> SearchClient:
        return SearchClient("tests", Index("elasticsearch", "tests", self.url), None, no_secret)

    def ask(self, method: str, path: str, body: object = None) -> JsonObject:
        return self.client.ask(JsonObject, method, path, body)

    def index(self, name: str, number: int, text: str) -> None:
        """Write one document, which is found by the next search."""
        kind = "_doc"
        self.ask("PUT", f"/{name}/{kind}/{number}?refresh=true", {"text": text})

    def texts(self, name: str) -> list[str]:
        """Return the texts of an index in the order of their numbers."""
        self.ask("POST", f"/{name}/_refresh")
        found = self.client.ask(_Found, "GET", f"/{name}/_search?size=10000")
        return [hit.source.text for hit in sorted(found.hits.hits, key=lambda hit: int(hit.id))]

    def snapshot_names(self, repository: str) -> list[str]:
        """Return the names of the snapshots in a repository."""
        found = self.client.ask(_Snapshots, "GET", f"/_snapshot/{repository}/_all")
        return [one.snapshot for one in found.snapshots]

    def clear(self) -> None:
        """Remove every index and every snapshot."""
        for name in self.client.ask(dict[str, JsonObject], "GET", "/*/_alias"):
            self.ask("DELETE", f"/{name}")
        for repository in self.ask("GET", "/_snapshot/_all"):
            self.ask("DELETE", f"/_snapshot/{repository}")
        for path in self.snapshots.iterdir():
            shutil.rmtree(path, ignore_errors=True)


def no_secret(reference: str) -> str:
    raise AssertionError(reference)


@functools.cache
def shared(version: str = ORDINARY) -> SearchServer:
    """Return the server of this process, started once."""
    server = SearchServer(version)
    at_end(server.remove)
    return server


Shared = Callable[[], SearchServer]
