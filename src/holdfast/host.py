"""The only module that starts processes; redacts secrets and streams output to the operation log.

Children carry HOLDFAST_OPERATION in their environment and run in a session of their own, so that recovery
finds them and a terminal's Ctrl-C does not reach them before Holdfast decides.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from holdfast.errors import CancelledError, CommandFailedError, CommandTimeoutError, HoldfastError
from holdfast.redaction import MASK, RedactingStream, Redactor

__all__ = ["MASK", "CommandResult", "Host", "RedactingStream", "Redactor"]

OPERATION_VARIABLE = "HOLDFAST_OPERATION"
_TAIL_BYTES = 8192
_GRACE_SECONDS = 5.0
_EXEC_LOOKS = 5
_PIPE_BYTES = 1 << 20  # what pipe(7) lets every user have


@dataclass(frozen=True)
class CommandResult:
    argv: tuple[str, ...]
    exit_code: int
    output_tail: str
    seconds: float


@dataclass
class Host:
    """Runs commands on this machine. `cancelled` is polled while one runs; `log` receives JSON-able records."""

    redactor: Redactor = field(default_factory=Redactor)
    operation: str | None = None
    cancelled: Callable[[], bool] = lambda: False
    log: Callable[[Mapping[str, Any]], None] = lambda record: None
    announce: Callable[[str], None] = lambda line: None

    def environment(self, extra: Mapping[str, str] | None = None, *, marked: bool = True) -> dict[str, str]:
        """The children's environment: ours, `extra`, and the operation's mark."""
        merged = {**os.environ, **(extra or {})}
        merged.pop(OPERATION_VARIABLE, None)
        if marked and self.operation:
            merged[OPERATION_VARIABLE] = self.operation
        return merged

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
        output: IO[bytes] | None = None,
        stdin: IO[bytes] | int | None = None,
        check: bool = True,
        ignore_cancel: bool = False,
    ) -> CommandResult:
        """Runs one command to its end. Standard output goes to `output` if given, else with errors to the log.

        Raises CommandFailedError (if `check`), CommandTimeoutError, CancelledError; on the last two the
        command's whole session has been ended.
        """
        command = tuple(str(word) for word in argv)
        shown = self.redactor.text(" ".join(command))
        self.announce(shown)
        self.log({"kind": "command", "argv": [self.redactor.text(word) for word in command], "cwd": str(cwd or "")})
        started = time.monotonic()
        try:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=self.environment(environment),
                stdin=stdin if stdin is not None else subprocess.DEVNULL,
                stdout=output if output is not None else subprocess.PIPE,
                stderr=subprocess.PIPE if output is not None else subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise CommandFailedError(
                f"cannot start {command[0]}: {error.strerror}", exit_code_of_command=127
            ) from error
        pipe = process.stderr if output is not None else process.stdout
        assert pipe is not None
        tail = self._follow(process, pipe, shown, started, timeout_seconds, ignore_cancel)
        seconds = time.monotonic() - started
        self.log({"kind": "exit", "exit_code": process.returncode, "seconds": round(seconds, 3)})
        if check and process.returncode != 0:
            raise CommandFailedError(
                f"`{shown}` ended with exit code {process.returncode}",
                exit_code_of_command=process.returncode,
                output_tail=tail,
            )
        return CommandResult(command, process.returncode, tail, seconds)

    def _follow(
        self,
        process: subprocess.Popen[bytes],
        pipe: IO[bytes],
        shown: str,
        started: float,
        timeout_seconds: float | None,
        ignore_cancel: bool,
    ) -> str:
        """Streams output until the process ends. A grandchild that keeps the pipe open does not hold us."""
        tail = bytearray()

        def keep(data: bytes) -> None:
            self.log({"kind": "output", "text": data.decode(errors="replace")})
            tail.extend(data)
            del tail[:-_TAIL_BYTES]

        stream = RedactingStream(self.redactor, keep)
        os.set_blocking(pipe.fileno(), False)
        pidfd = os.pidfd_open(process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(pipe, selectors.EVENT_READ)
                selector.register(pidfd, selectors.EVENT_READ)
                while process.poll() is None:
                    for key, _ in selector.select(0.1):
                        if key.fileobj is pipe and not self._drain(pipe, stream):
                            selector.unregister(pipe)
                    if not ignore_cancel and self.cancelled():
                        end_session(process)
                        raise CancelledError(f"stopped `{shown}` on request")
                    if timeout_seconds is not None and time.monotonic() - started > timeout_seconds:
                        end_session(process)
                        raise CommandTimeoutError(f"`{shown}` was ended after {timeout_seconds:g} seconds (time-out)")
                self._drain(pipe, stream)
        finally:
            stream.close()
            os.close(pidfd)
            pipe.close()
        return bytes(tail).decode(errors="replace")

    @staticmethod
    def _drain(pipe: IO[bytes], stream: RedactingStream) -> bool:
        """Reads what is there; False at end of file."""
        while True:
            try:
                chunk = os.read(pipe.fileno(), 65536)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            stream.feed(chunk)

    def capture(self, argv: Sequence[str], *, cwd: str | Path | None = None, timeout_seconds: float = 60) -> str:
        """Runs a short command for its output (at most some megabytes), not marked as part of an operation's log.

        Raises CommandFailedError.
        """
        self.announce(self.redactor.text(" ".join(argv)))
        try:
            done = subprocess.run(
                list(argv), cwd=cwd, env=self.environment(), stdin=subprocess.DEVNULL,
                capture_output=True, timeout=timeout_seconds, start_new_session=True, check=False,
            )  # fmt: skip
        except OSError as error:
            raise CommandFailedError(f"cannot start {argv[0]}: {error.strerror}", exit_code_of_command=127) from error
        except subprocess.TimeoutExpired as error:
            raise CommandTimeoutError(f"`{argv[0]}` was ended after {timeout_seconds:g} seconds") from error
        if done.returncode != 0:
            raise CommandFailedError(
                f"`{self.redactor.text(' '.join(argv))}` ended with exit code {done.returncode}",
                exit_code_of_command=done.returncode,
                output_tail=self.redactor.text((done.stdout + done.stderr).decode(errors="replace"))[-_TAIL_BYTES:],
            )
        return done.stdout.decode(errors="surrogateescape")

    def interactive(self, argv: Sequence[str], *, cwd: str | Path, environment: Mapping[str, str]) -> int:
        """Runs a command on the operator's own terminal; returns its exit code."""
        done = subprocess.run(list(argv), cwd=cwd, env=self.environment(environment, marked=False), check=False)
        return done.returncode

    def start_server(
        self,
        argv: Sequence[str],
        *,
        cwd: str | Path,
        log_path: Path,
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Starts a process that outlives Holdfast and is not part of any operation; returns its pid."""
        with open(log_path, "ab") as log:
            process = subprocess.Popen(
                list(argv), cwd=cwd, env=self.environment(environment, marked=False),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        pid = process.pid
        process.returncode = 0  # it is not ours to wait for; supervisord daemonises or is adopted by init
        return pid

    def start_pipes(
        self, argv: Sequence[str], *, environment: Mapping[str, str] | None = None, errors: IO[bytes] | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts a process of the operation that is talked to over its standard input and output.

        Its standard error goes to `errors`, or nowhere. Raises CommandFailedError if it cannot be started.
        """
        try:
            process = subprocess.Popen(
                list(argv), cwd="/", env=self.environment(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=errors if errors is not None else subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise CommandFailedError(f"cannot start {argv[0]}: {error.strerror}", exit_code_of_command=127) from error
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            # Room for several orders and answers; refused beyond what this user may have in pipes.
            with contextlib.suppress(OSError):
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        return process

    def resolve_secret(self, reference: str) -> str:
        """The value behind `env:NAME`, `file:PATH` or `command:ARGV`; it is redacted from now on.

        Raises HoldfastError naming the reference, never the value.
        """
        kind, _, rest = reference.partition(":")
        try:
            if kind == "env":
                value = os.environ[rest]
            elif kind == "file":
                value = Path(rest).read_text().rstrip("\n")
            elif kind == "command":
                value = self.capture(rest.split()).rstrip("\n")
            else:
                raise HoldfastError(f"secret reference {reference!r} is none of env:, file:, command:")
        except KeyError:
            raise HoldfastError(f"secret {reference}: the environment has no such variable") from None
        except (OSError, CommandFailedError) as error:
            raise HoldfastError(f"secret {reference}: {error}") from None
        except UnicodeDecodeError:
            raise HoldfastError(f"secret {reference}: it is not UTF-8") from None
        try:
            value.encode()
        except UnicodeEncodeError:
            raise HoldfastError(f"secret {reference}: it is not UTF-8") from None
        self.redactor.add(value)
        return value


def _session_members(session: int) -> list[int]:
    """Living processes of a session (proc(5) stat field 6), background jobs with groups of their own too."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(name))
    return found


def end_session(process: subprocess.Popen[bytes]) -> None:
    """Ends a command with all that it started in its session: SIGTERM, then SIGKILL after a grace period."""
    session = process.pid  # the command leads its session, and keeps the number taken until it is waited for
    for pid in _session_members(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_SECONDS
    while _session_members(session) and time.monotonic() < deadline:
        time.sleep(0.02)
    while members := _session_members(session):
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    process.wait()


@dataclass(frozen=True)
class Process:
    pid: int
    command: str


def _carries(pid: int, prefix: bytes) -> bool:
    """A process that is just becoming another program has no environment for a moment, and is looked at again."""
    for _ in range(_EXEC_LOOKS):
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            if environment or _has_no_memory(pid):
                return b"\0" + prefix in b"\0" + environment
        except OSError:  # gone, or another user's: not a child that this user started
            return False
        time.sleep(0.001)
    return False


def _has_no_memory(pid: int) -> bool:
    """A kernel thread or a process that has ended: proc(5) stat, fields 3 and 9, PF_KTHREAD of the kernel's sched.h."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0] in "ZX" or bool(int(fields[6]) & 0x00200000)


def processes_with(prefix: str) -> list[Process]:
    """Living processes whose environment (proc(5) environ) has a variable starting with `prefix`; not this one.

    A prefix that ends with NUL matches a whole variable.
    """
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid() and _carries(int(name), prefix.encode()):
            try:
                command = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            found.append(Process(int(name), command.strip()))
    return found


def _signal_all(prefix: str, number: int) -> list[int]:
    """Signals each such process through a pidfd; returns the pidfds, which the caller closes."""
    descriptors = []
    for process in processes_with(prefix):
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            continue
        if not _carries(process.pid, prefix.encode()):  # the pid was reused between the listing and the pidfd
            os.close(descriptor)
            continue
        try:
            signal.pidfd_send_signal(descriptor, number)
        except (ProcessLookupError, PermissionError):
            pass  # gone is what is wanted; a refused signal shows as a survivor
        descriptors.append(descriptor)
    return descriptors


def _wait_for_end(descriptors: list[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    poller = select.poll()
    waiting = set(descriptors)
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    while waiting and time.monotonic() < deadline:
        for descriptor, _ in poller.poll(max(1, int((deadline - time.monotonic()) * 1000))):
            waiting.discard(descriptor)
            poller.unregister(descriptor)
    for descriptor in descriptors:
        os.close(descriptor)


def end_processes_with(prefix: str, *, grace_seconds: float, wait_seconds: float) -> list[Process]:
    """Ends all such processes, also those that they start meanwhile; returns what could not be ended."""
    if not processes_with(prefix):
        return []
    _wait_for_end(_signal_all(prefix, signal.SIGTERM), grace_seconds)
    deadline = time.monotonic() + wait_seconds
    while left := processes_with(prefix):
        _wait_for_end(_signal_all(prefix, signal.SIGKILL), 1.0)
        if time.monotonic() > deadline:
            return left
    return []
