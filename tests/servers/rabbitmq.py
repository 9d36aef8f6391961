"""A RabbitMQ of a test's own on loopback ports, as Debian packages it."""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from holdfast.system.ports import free_loopback_port
from tests.memory import make_folder
from tests.proof import patience
from tests.proof.endings import at_end

PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_START_SECONDS = 60


class RabbitServer:
    """One node with its own name server, both ended with the run."""

    def __init__(self) -> None:
        if not PROGRAM.exists() or os.geteuid() != 0:
            pytest.skip("no RabbitMQ here: `make test-setup` as root installs rabbitmq-server")
        self.folder = make_folder("hfr")
        self.port, distribution, names = (free_loopback_port() for _ in range(3))
        account = pwd.getpwnam("rabbitmq")
        for name in ("db", "log", "home"):
            (self.folder / name).mkdir()
        (self.folder / "plugins").write_text("[].\n")
        (self.folder / "c.conf").write_text("vm_memory_high_watermark.absolute = 200MB\n")
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid)
        self.folder.parent.chmod(0o711)
        environment = {
            **os.environ,
            "RABBITMQ_NODENAME": f"hf{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "db"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "c"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "HOME": str(self.folder / "home"),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(names),
        }
        as_account = ["setpriv", "--reuid=rabbitmq", "--regid=rabbitmq", "--init-groups"]
        self._epmd = subprocess.Popen(["epmd", "-address", "127.0.0.1", "-port", str(names)], env=environment)
        with open(self.folder / "output", "ab") as output:
            self._server = subprocess.Popen(
                [*as_account, str(PROGRAM)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        at_end(self.stop)
        deadline = time.monotonic() + patience.limit(_START_SECONDS)
        while not self._answers():
            assert self._server.poll() is None and time.monotonic() < deadline, (self.folder / "output").read_text()
            time.sleep(0.1)

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    def _answers(self) -> bool:
        import pika

        with contextlib.suppress(pika.exceptions.AMQPError, OSError):
            pika.BlockingConnection(pika.URLParameters(self.url)).close()
            return True
        return False

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._server.pid, 9)
        for process in (self._server, self._epmd):
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@functools.cache
def server() -> RabbitServer:
    """Return the node of this run, which is started for the first test that needs it."""
    return RabbitServer()
