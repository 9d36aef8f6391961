"""Services under a supervisord that Holdfast starts and owns.

Programs never start by themselves (autostart=false): after a reboot `holdfast recover --auto` starts what ran.
A running one that dies is started again by supervisord. Each program is an instance: a service of one release.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
import xmlrpc.client
from pathlib import Path
from typing import Any, cast

from supervisor.xmlrpc import SupervisorTransport

from holdfast import durable
from holdfast.errors import ConfigurationError, StepError
from holdfast.host import Host
from holdfast.model import Problem, ServiceInstance, ServiceStatus
from holdfast.processes import end_processes_with

_SOCKET_PATH_BYTES = 100  # sun_path of unix(7) holds 108; supervisord binds a longer temporary name beside it
_START_SECONDS = 15.0
_RUNNING, _STARTING, _STOPPING = 20, 10, 40


class SupervisorRuntime:
    def __init__(self, folder: Path, mark: str, host: Host) -> None:
        self._folder = folder
        self._programs = folder / "programs"
        self._output = folder / "output"
        self._socket = folder / "s.sock"
        self._mark = mark
        self._host = host
        if len(os.fsencode(self._socket)) > _SOCKET_PATH_BYTES:
            raise ConfigurationError(
                "the state directory's path is too long for a socket",
                [f"application.state: {folder.parent} leads to a socket path over {_SOCKET_PATH_BYTES} bytes"],
            )

    # --- the server --------------------------------------------------------------------------------

    def _call(self, name: str, *arguments: Any) -> Any:
        """One call of supervisord's interface. Raises OSError or xmlrpc.client.Error."""
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        try:
            server = xmlrpc.client.ServerProxy("http://localhost", transport=cast(Any, transport))
            return getattr(server.supervisor, name)(*arguments)
        finally:
            transport.close()

    def _answers(self) -> bool:
        if not self._socket.exists():
            return False
        try:
            self._call("getState")
        except (OSError, xmlrpc.client.Error, ValueError):
            return False
        return True

    def prepare(self) -> None:
        if self._answers():
            return
        for folder in (self._folder, self._programs, self._output):
            durable.make_directory(folder)
        # A supervisord that was killed leaves its programs behind; two of one kind must never run.
        left = end_processes_with(f"HOLDFAST_INSTANCE={self._mark}/", grace_seconds=5, wait_seconds=10)
        if left:
            raise StepError(f"process {left[0].pid} of an earlier supervisord cannot be ended")
        durable.write_file(self._folder / "supervisord.conf", self._configuration())
        self._socket.unlink(missing_ok=True)
        self._host.start_server(
            [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", "supervisord.conf"],
            cwd=str(self._folder), log_path=self._folder / "supervisord.out",
            environment={"HOLDFAST_INSTANCE": f"{self._mark}/supervisord"},
        )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                raise StepError("supervisord does not answer", state=_tail(self._folder / "supervisord.out"))
            time.sleep(0.02)

    def _configuration(self) -> str:
        """Return its configuration, in which every path is relative to its working directory.

        So a blank or a percent sign in the state directory's path, which supervisord splits at or expands, is not in it.
        """
        lines = [
            "[unix_http_server]", f"file={self._socket.name}", "chmod=0600",
            "[supervisord]", "logfile=supervisord.log", "logfile_maxbytes=1MB",
            "pidfile=supervisord.pid", f"childlogdir={self._output.name}",
            "nodaemon=true", "silent=true", "umask=077",
            "[rpcinterface:supervisor]", "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
            "[include]", f"files={self._programs.name}/*.conf", "",
        ]  # fmt: skip
        if os.geteuid() == 0:
            lines.insert(4, "user=root")
        return "\n".join(lines)

    # --- instances ---------------------------------------------------------------------------------

    def statuses(self) -> dict[str, ServiceStatus]:
        if not self._answers():
            return {}
        found = {}
        for info in self._call("getAllProcessInfo"):
            running = info["state"] in (_RUNNING, _STARTING)
            found[info["name"]] = ServiceStatus(
                name=info["name"], running=running, pid=info["pid"] or None,
                # Both are whole seconds: what is told is never more than was.
                uptime_seconds=float(max(0, info["now"] - info["start"] - 1)) if running else 0.0,
                detail=info["statename"].lower(),
            )  # fmt: skip
        return found

    def _definition(self, instance: ServiceInstance) -> str:
        return json.dumps(
            {
                "command": list(instance.command), "directory": instance.directory, "user": instance.user,
                "environment": dict(instance.environment), "release": instance.release,
                "mark": f"{self._mark}/{instance.name}",
            },
            indent=1, sort_keys=True,
        )  # fmt: skip

    def start(self, instance: ServiceInstance) -> None:
        self.prepare()
        definition = self._definition(instance)
        path = self._programs / f"{instance.name}.json"
        status = self.statuses().get(instance.name)
        if status is not None:
            if status.running and path.exists() and path.read_text() == definition:
                return
            self.stop(instance.name)
        durable.write_file(path, definition)
        durable.write_file(self._programs / f"{instance.name}.conf", self._program(instance, path))
        self._call("reloadConfig")
        try:
            self._call("addProcessGroup", instance.name)
        except xmlrpc.client.Fault as fault:
            if "ALREADY_ADDED" not in fault.faultString:  # supervisord's own identifier, from supervisor.xmlrpc.Faults
                raise StepError(f"supervisord refuses {instance.name}: {fault.faultString}") from fault
        try:
            self._call("startProcess", instance.name, False)
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                raise StepError(f"{instance.service} does not start: {fault.faultString}") from fault

    def _program(self, instance: ServiceInstance, definition: Path) -> str:
        words = [sys.executable, "-m", "holdfast.drivers.runtimes.launch", f"{self._programs.name}/{definition.name}"]
        command = shlex.join(words)
        return "\n".join(
            [
                f"[program:{instance.name}]", f"command={_escape(command)}", "autostart=false",
                f"autorestart={'true' if instance.keep_running else 'false'}", "startsecs=1", "startretries=3",
                f"stopsignal={instance.stop_signal}", f"stopwaitsecs={instance.stop_timeout_seconds}",
                "stopasgroup=false", "killasgroup=true", "redirect_stderr=true",
                f"stdout_logfile={self._output.name}/{instance.name}.log", "stdout_logfile_maxbytes=5MB",
                "stdout_logfile_backups=1", "",
            ]
        )  # fmt: skip

    def stop(self, name: str) -> None:
        if self._answers():
            try:
                self._call("stopProcess", name, False)
            except xmlrpc.client.Fault as fault:
                if not fault.faultString.startswith(("BAD_NAME", "NOT_RUNNING")):
                    raise StepError(f"{name} cannot be stopped: {fault.faultString}") from fault
            self._wait_until_stopped(name)
            try:
                self._call("removeProcessGroup", name)
            except xmlrpc.client.Fault as fault:
                if not fault.faultString.startswith("BAD_NAME"):
                    raise StepError(f"{name} cannot be removed: {fault.faultString}") from fault
        for ending in ("conf", "json"):
            durable.unlink(self._programs / f"{name}.{ending}")
        left = end_processes_with(f"HOLDFAST_INSTANCE={self._mark}/{name}\0", grace_seconds=1, wait_seconds=10)
        if left:
            raise StepError(f"process {left[0].pid} of {name} cannot be ended")

    def _wait_until_stopped(self, name: str) -> None:
        # supervisord itself sends SIGKILL after stopwaitsecs; this bound only guards against a dead supervisord.
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            status = self.statuses().get(name)
            if status is None or not (status.running or status.detail == "stopping"):
                return
            time.sleep(0.02)
        raise StepError(f"{name} does not stop")

    def release_of(self, name: str) -> str | None:
        status = self.statuses().get(name)
        if status is None or status.pid is None:
            return None
        try:
            environment = Path(f"/proc/{status.pid}/environ").read_bytes()
        except OSError:
            return None
        for variable in environment.split(b"\0"):
            if variable.startswith(b"HOLDFAST_RELEASE="):
                return variable.partition(b"=")[2].decode()
        return None

    def output_tail(self, name: str) -> str:
        return _tail(self._output / f"{name}.log")

    def shut_down(self) -> None:
        for name in list(self.statuses()):
            self.stop(name)
        if self._answers():
            self._call("shutdown")
            deadline = time.monotonic() + _START_SECONDS
            while self._socket.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
        end_processes_with(f"HOLDFAST_INSTANCE={self._mark}/", grace_seconds=5, wait_seconds=10)

    def check(self) -> list[Problem]:
        problems = []
        if not self._answers():
            problems.append(Problem("runtime", "warning", "supervisord is not running",
                                    "`holdfast service start` starts it with what ran before."))  # fmt: skip
        for status in self.statuses().values():
            if not status.running:
                problems.append(Problem("runtime", "error", f"{status.name} is {status.detail}",
                                        "`holdfast service restart`"))  # fmt: skip
        return problems


def _escape(value: str) -> str:
    """Return a value as supervisord takes it, which expands %(name)s."""
    return value.replace("%", "%%")


def _tail(path: Path, size_bytes: int = 4096) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size_bytes))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
