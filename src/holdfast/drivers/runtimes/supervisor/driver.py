"""Services under a supervisord that Holdfast starts and owns.

Programs never start by themselves (autostart=false): after a reboot `holdfast recover --auto` starts those that ran. A
running one that dies is started again by supervisord. Each program is an instance: a service of one release. A
service's title, environment and parent process do not identify it reliably. So supervisord runs below a keeper, which
holds everything that any service started, and each start of a service is recorded with its process.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TypedDict, cast

from holdfast.drivers.runtimes.processes import ProcessRuntime
from holdfast.drivers.runtimes.supervisor import files, interface
from holdfast.drivers.runtimes.supervisor.interface import RefusedCallError
from holdfast.drivers.runtimes.supervisor.started import Started, read
from holdfast.errors import ConfigurationError, RefusedError, StepError
from holdfast.model import Problem, ServiceInstance, ServiceStatus
from holdfast.system import durable, fault_points, keeper_client, processes
from holdfast.system.host import Host
from holdfast.system.processes import Identity
from holdfast.system.secret_store import paths_for

_SOCKET_PATH_BYTES = 100  # sun_path of unix(7) holds 108; supervisord binds a longer temporary name in the same folder
_START_SECONDS = 15.0
_END_GRACE_SECONDS = 5.0
_END_SECONDS = 10.0
_REMOVALS = 20
_CHANGING = ("reloadConfig", "addProcessGroup", "removeProcessGroup", "startProcess", "stopProcess")
_RUNNING, _STARTING, _STOPPING = 20, 10, 40


class _ProcessInfo(TypedDict):
    """What supervisord says of a program; times are seconds since the epoch."""

    name: str
    state: int
    statename: str
    pid: int
    start: int
    now: int


class SupervisorRuntime(ProcessRuntime):
    def __init__(self, folder: Path, environment_id: str, host: Host) -> None:
        self._folder = folder
        self._programs = folder / "programs"
        self._output = folder / "output"
        self._socket = folder / "s.sock"
        self._record = folder / "processes"
        self._environment_id = environment_id
        super().__init__(host)
        if len(os.fsencode(self._socket)) > _SOCKET_PATH_BYTES:
            raise ConfigurationError(
                "the state directory's path is too long for a socket",
                [f"application.state: {folder.parent} results in a socket path over {_SOCKET_PATH_BYTES} bytes"],
            )

    # --- the server --------------------------------------------------------------------------------

    def _call(self, name: str, *arguments: str | bool) -> object:
        if name not in _CHANGING:
            return interface.call(self._socket, name, *arguments)
        fault_points.reach(f"before call {name}")
        answer = interface.call(self._socket, name, *arguments)
        fault_points.reach(f"after call {name}")
        return answer

    def _answers(self) -> bool:
        if not self._socket.exists():
            return False
        try:
            self._call("getState")
        except (OSError, RefusedCallError, ValueError):
            return False
        return True

    def prepare(self) -> None:
        if self._answers():
            return
        for folder in (self._folder, self._programs, self._output):
            durable.make_directory(folder)
        self._end_everything()  # a killed supervisord leaves its programs, and no service must ever run twice
        durable.write_file(self._folder / "supervisord.conf", self._configuration())
        self._socket.unlink(missing_ok=True)
        self._host.start_kept_server(
            [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", "supervisord.conf"],
            cwd=str(self._folder),
            log_path=self._folder / "supervisord.out",
            record=self._record,
            environment={"HOLDFAST_INSTANCE": f"{self._environment_id}/supervisord"},
        )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                raise StepError("supervisord does not answer", state=_tail(self._folder / "supervisord.out"))
            time.sleep(0.02)

    def _end_everything(self) -> None:
        """End every process that was ever started here. Raise StepError where one cannot be ended."""
        found = self._recorded_processes(self._started_ones())
        processes.signal_processes(found, signal.SIGTERM)
        _, left = keeper_client.end_recorded(
            self._record,
            hint=f"HOLDFAST_INSTANCE={self._environment_id}/",
            grace_seconds=_END_GRACE_SECONDS,
            wait_seconds=_END_SECONDS,
        )
        _, stays = processes.end(
            lambda: processes.still_running(found), grace_seconds=_END_GRACE_SECONDS, wait_seconds=_END_SECONDS
        )
        if left or stays:
            pid = next(iter(stays), 0) or left[0].pid
            raise StepError(f"process {pid} ({processes.command_of(pid)}) of an earlier supervisord cannot be ended")
        self._record.unlink(missing_ok=True)

    def _configuration(self) -> str:
        """Return supervisord's configuration, in which every path is relative to its working directory.

        So a blank or a percent sign in the state directory's path, at which supervisord splits or which it expands, is
        not in it.
        """
        lines = [
            "[unix_http_server]",
            f"file={self._socket.name}",
            "chmod=0600",
            "[supervisord]",
            "logfile=supervisord.log",
            "logfile_maxbytes=1MB",
            "pidfile=supervisord.pid",
            f"childlogdir={self._output.name}",
            "nodaemon=true",
            "silent=true",
            "umask=077",
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
            "[include]",
            f"files={self._programs.name}/*.conf",
            "",
        ]
        if os.geteuid() == 0:
            lines.insert(4, "user=root")
        return "\n".join(lines)

    # --- instances ---------------------------------------------------------------------------------

    def statuses(self) -> dict[str, ServiceStatus]:
        if not self._answers():
            return {}
        found = {}
        # The answer as the documentation of supervisord's XML-RPC interface describes it.
        for info in cast(list[_ProcessInfo], self._call("getAllProcessInfo")):
            running = info["state"] in (_RUNNING, _STARTING)
            found[info["name"]] = ServiceStatus(
                name=info["name"],
                running=running,
                pid=info["pid"] or None,
                # Both are whole seconds; one less, so that the uptime is never overstated.
                uptime_seconds=float(max(0, info["now"] - info["start"] - 1)) if running else 0.0,
                detail=info["statename"].lower(),
            )
        return found

    def _definition(self, instance: ServiceInstance) -> str:
        return json.dumps(
            {
                "command": list(instance.command),
                "directory": instance.directory,
                "user": instance.user,
                "environment": dict(instance.environment),
                "release": instance.release,
                "instance": f"{self._environment_id}/{instance.name}",
                **({"files": dict(instance.files)} if instance.files else {}),
                **({"secrets": paths} if (paths := paths_for(self._host.store, instance.environment)) else {}),
            },
            indent=1,
            sort_keys=True,
        )

    def start(self, *instances: ServiceInstance) -> None:
        self.prepare()
        for instance in instances:
            self._start(instance)

    def _start(self, instance: ServiceInstance) -> None:
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
        except RefusedCallError as fault:
            if "ALREADY_ADDED" not in fault.text:  # supervisord's own identifier, from supervisor.xmlrpc.Faults
                raise StepError(f"supervisord refuses {instance.name}: {fault.text}") from fault
        try:
            self._call("startProcess", instance.name, False)
        except RefusedCallError as fault:
            if "ALREADY_STARTED" not in fault.text:
                raise StepError(f"{instance.service} does not start: {fault.text}") from fault

    def _program(self, instance: ServiceInstance, definition: Path) -> str:
        argv = [
            sys.executable,
            "-m",
            "holdfast.drivers.runtimes.supervisor.launch",
            f"{self._programs.name}/{definition.name}",
        ]
        command = shlex.join(argv)
        return "\n".join(
            [
                f"[program:{instance.name}]",
                f"command={_escape(command)}",
                "autostart=false",
                f"autorestart={'true' if instance.keep_running else 'false'}",
                "startsecs=1",
                "startretries=3",
                f"stopsignal={instance.stop_signal}",
                f"stopwaitsecs={instance.stop_timeout_seconds}",
                "stopasgroup=false",
                "killasgroup=true",
                "redirect_stderr=true",
                f"stdout_logfile={self._output.name}/{instance.name}.log",
                "stdout_logfile_maxbytes=5MB",
                "stdout_logfile_backups=1",
                "",
            ]
        )

    def stop(self, *names: str, keep: bool = False, at_most_seconds: float | None = None) -> dict[str, float]:
        """Stop services side by side. `keep` makes no difference: a process leaves nothing that is started again.

        Neither does `at_most_seconds`: supervisord takes the time from the definition of a program.
        """
        found = {name: self._processes_of(name) for name in names}
        log = self._folder / "supervisord.log"
        seen_bytes = log.stat().st_size if log.exists() else 0
        killed: dict[str, float] = {}
        if names and self._answers():
            for name in names:
                self._call_unless("stopProcess", name, False, tolerated=("BAD_NAME", "NOT_RUNNING"))
            for name in names:
                self._remove(name)
                if (seconds := self._killed_after(name, log, seen_bytes)) is not None:
                    killed[name] = seconds
        orphans = self._orphans() if names and not self._runs_another(names) else {}
        for name in names:
            self._end_processes(name, {**found[name], **self._processes_of(name), **orphans})
            for ending in ("conf", "json", "started"):
                durable.unlink(self._programs / f"{name}.{ending}")
        return killed

    def _remove(self, name: str) -> None:
        """Wait until a program has stopped, and take it from supervisord. Raise StepError.

        One that had just ended by itself could not be stopped, and supervisord may start it again meanwhile.
        """
        for _ in range(_REMOVALS):
            self._wait_until_stopped(name)
            try:
                self._call("removeProcessGroup", name)
                return
            except RefusedCallError as fault:
                if fault.text.startswith("BAD_NAME"):
                    return
                if not fault.text.startswith("STILL_RUNNING"):
                    raise StepError(f"supervisord refuses to remove {name}: {fault.text}") from fault
            self._call_unless("stopProcess", name, False, tolerated=("BAD_NAME", "NOT_RUNNING"))
        raise StepError(f"{name} does not stop: it ends by itself and is started again, over and over")

    def _call_unless(self, call: str, name: str, *arguments: str | bool, tolerated: tuple[str, ...]) -> None:
        """Call supervisord; that there is nothing to do is fine. Raise StepError."""
        try:
            self._call(call, name, *arguments)
        except RefusedCallError as fault:
            if not fault.text.startswith(tolerated):
                raise StepError(f"supervisord refuses {call} of {name}: {fault.text}") from fault

    def _end_processes(self, name: str, found: dict[int, int]) -> None:
        """End processes that a service left. Raise StepError where one cannot be ended."""
        _, left = processes.end(lambda: processes.still_running(found), grace_seconds=1, wait_seconds=_END_SECONDS)
        if left:
            pid = next(iter(left))
            raise StepError(f"process {pid} ({processes.command_of(pid)}) of {name} cannot be ended")

    def _killed_after(self, name: str, log: Path, seen_bytes: int) -> float | None:
        """Return the seconds after which supervisord killed a program, from its log; None where it did not."""
        try:
            with open(log, "rb") as file:
                if os.fstat(file.fileno()).st_size >= seen_bytes:  # otherwise the log was rotated meanwhile
                    file.seek(seen_bytes)
                written = file.read().decode(errors="replace")
            program = (self._programs / f"{name}.conf").read_text()
        except OSError:
            return None
        wait = re.search(r"^stopwaitsecs=(\d+)$", program, re.MULTILINE)
        killed = re.search(rf"killing '{re.escape(name)}' \(\d+\) with SIGKILL", written)
        return float(wait[1]) if wait is not None and killed is not None else None

    # --- its processes -----------------------------------------------------------------------------

    def _started_ones(self) -> list[Started]:
        paths = sorted(self._programs.glob("*.started")) if self._programs.is_dir() else []
        return [started for path in paths if (started := read(path)) is not None]

    def _processes_of(self, name: str) -> dict[int, int]:
        """Return the processes of a service, each with its start, by its record and by their environment."""
        started = read(self._programs / f"{name}.started")
        found = self._recorded_processes([started] if started is not None else [])
        variable = f"HOLDFAST_INSTANCE={self._environment_id}/{name}\0"
        return found | processes.identified(processes.processes_with(variable))

    def _recorded_processes(self, those: Iterable[Started]) -> dict[int, int]:
        """Return the recorded processes that are alive, their descendants, and the process groups that they led.

        A group's number is not reused while it has a member; so its members belong to the service if its leader does,
        or if the leader is gone and they began after it.
        """
        table = processes.table()
        found: dict[int, int] = {}
        for one in those:
            leader = table.get(one.pid)
            if leader is not None and leader.started != one.started:
                continue
            group = {
                pid: entry.started
                for pid, entry in table.items()
                if entry.group == one.pid and entry.started >= one.started
            }
            for pid, start in group.items():
                found |= {pid: start, **processes.descendants(Identity(pid, start), table)}
        return {pid: start for pid, start in found.items() if not table[pid].ended}

    def _runs_another(self, names: Collection[str]) -> bool:
        """Return whether a service of the application other than these runs; a gate's own server does not count."""
        for other, status in self.statuses().items():
            if other not in names and status.running:
                started = read(self._programs / f"{other}.started")
                if started is None or started.release:
                    return True
        return False

    def _orphans(self) -> dict[int, int]:
        """Return orphans of services: processes that the keeper holds and supervisord does not."""
        table = processes.table()
        held = keeper_client.recorded(self._record, table)
        heads = [one for one in keeper_client.commands(self._record) if one.pid in held]
        owned = {one.pid for one in heads}
        for one in heads:
            owned |= processes.descendants(one, table).keys()
        return {pid: start for pid, start in held.items() if pid not in owned}

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
        started = read(self._programs / f"{name}.started")
        if (
            started is not None
            and started.pid == status.pid
            and processes.still_running({started.pid: started.started})
        ):
            return started.release
        return processes.variable_of(status.pid, "HOLDFAST_RELEASE")

    def output_tail(self, name: str) -> str:
        return _tail(self._output / f"{name}.log")

    def outputs(self) -> list[str]:
        files = self._output.glob("*.log") if self._output.is_dir() else ()
        return [path.stem for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)]

    def output(
        self, name: str, *, lines: int, since_seconds: float | None = None, follow: bool = False
    ) -> Iterator[bytes]:
        if since_seconds is not None:
            raise RefusedError(
                "supervisord keeps no times with the output of services",
                next_step="Choose by the number of lines instead: -n LINES",
            )
        return files.output(self._output / f"{name}.log", lines=lines, follow=follow)

    def shut_down(self) -> None:
        self.stop(*self.statuses())
        if self._answers():
            self._call("shutdown")
            deadline = time.monotonic() + _START_SECONDS
            while self._socket.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
        self._end_everything()

    def check(self) -> list[Problem]:
        problems = []
        if not self._answers():
            problems.append(
                Problem(
                    "runtime",
                    "warning",
                    "supervisord is not running",
                    "Run `holdfast service start` to start the services that ran before,"
                    " or `holdfast install REF` if nothing is installed.",
                )
            )
        for status in self.statuses().values():
            if not status.running:
                problems.append(
                    Problem("runtime", "error", f"{status.name} is {status.detail}", "`holdfast service restart`")
                )
        return problems


def _escape(value: str) -> str:
    """Escape a value for supervisord, which expands %(name)s."""
    return value.replace("%", "%%")


def _tail(path: Path, size_bytes: int = 4096) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size_bytes))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
