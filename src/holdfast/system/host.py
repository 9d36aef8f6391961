"""The module through which everything starts processes; it redacts secrets and streams output to the log.

What an operation starts runs below a keeper, so that recovery finds it, and in a session of its own, so that a
terminal's Ctrl-C does not reach it before Holdfast decides. It has HOLDFAST_OPERATION in its environment.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from holdfast.errors import CancelledError, CommandFailedError, CommandTimeoutError, HoldfastError
from holdfast.system import child_environment, console, fault_points, pipes, secrets
from holdfast.system.accounts import OWN, Account
from holdfast.system.following import follow
from holdfast.system.keeper_client import Keeper, Process, end_session
from holdfast.system.redaction import RedactingStream, Redactor
from holdfast.system.secret_store import SecretStore

OPERATION_VARIABLE = "HOLDFAST_OPERATION"
_TERMINAL = ("TERM", "COLORTERM", "COLUMNS", "LINES", "LANG", "LC_ALL", "LC_CTYPE")
TAIL_BYTES = 8192
_STREAM_BYTES = 65536


class CommandResult(msgspec.Struct, frozen=True):
    argv: tuple[str, ...]
    exit_code: int
    output_tail: str
    seconds: float


class Host(msgspec.Struct):
    """The runner of commands on this machine.

    `cancelled` is polled while a command runs; `log` receives JSON-able records. A keeper holds what runs while an
    `operation` is entered; `record` names the keeper.
    """

    redactor: Redactor = msgspec.field(default_factory=Redactor)
    operation: str | None = None
    record: Path | None = None
    cancelled: Callable[[], bool] = lambda: False
    log: Callable[[Mapping[str, object]], None] = lambda record: None
    announce: Callable[[str], None] = lambda line: None
    warn: Callable[[str], None] = lambda line: None  # receives warnings for the operator
    store: SecretStore | None = None  # the secrets that Holdfast keeps itself
    engine: Mapping[str, str] = msgspec.field(default_factory=dict)
    """The address of the container engine, whatever the shell's variables say."""
    _closing: list[Callable[[], None]] = msgspec.field(default_factory=list)
    _keeper: Keeper | None = None
    _keeper_lock: threading.Lock = msgspec.field(default_factory=threading.Lock)

    def enter(self, operation: str, record: Path) -> None:
        """Make all further commands part of an operation, with a record of its processes."""
        self.operation, self.record = operation, record

    def leave(self) -> None:
        """End the operation's part; what it left running goes on."""
        self.let_go()
        self.operation = self.record = None

    def at_leave(self, close: Callable[[], None]) -> None:
        """Call a function when the operation is left, and before its fence."""
        self._closing.append(close)

    def let_go(self) -> None:
        """Close what waits for its next use, leave the rest to its keeper; later commands get a new one."""
        while self._closing:
            with contextlib.suppress(subprocess.TimeoutExpired):  # a client that does not end was killed
                self._closing.pop()()
        with self._keeper_lock:
            if self._keeper is not None:
                self._keeper.let_go()
            self._keeper = None

    def _spawn(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        cwd: str | Path | None = None,
        stdin: IO[bytes] | int = subprocess.DEVNULL,
        stdout: IO[bytes] | int,
        stderr: IO[bytes] | int,
        account: Account = OWN,
    ) -> Process:
        """Start a command, below the operation's keeper if there is an operation. Raise CommandFailedError."""
        try:
            if self.operation is None:
                return subprocess.Popen(
                    list(argv),
                    cwd=cwd,
                    env=environment,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                    user=account.uid,
                    group=account.gid,
                    extra_groups=account.groups if account.ids else None,
                )
            streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
            return self._kept().spawn(argv, cwd=cwd, environment=environment, account=account, **streams)
        except OSError as error:
            raise CommandFailedError(f"cannot start {argv[0]}: {error.strerror}", exit_code_of_command=127) from error

    def _kept(self) -> Keeper:
        with self._keeper_lock:
            if self._keeper is not None and not self._keeper.alive():
                self._keeper.let_go()
                self._keeper = None
            if self._keeper is None:
                self._keeper = Keeper(self.record, self.environment(marked=False))
            return self._keeper

    def environment(
        self, extra: Mapping[str, str] | None = None, *, marked: bool = True, begin: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Return a child's environment: `begin` or that of programs, then `extra` and the operation's variable."""
        merged = {**({**child_environment.for_programs(), **self.engine} if begin is None else begin), **(extra or {})}
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
        account: Account | None = None,
    ) -> CommandResult:
        """Run one command to its end. Standard output goes to `output` if given, else with errors to the log.

        A command with an account is one of the application's: it gets the environment of a service. Any other one gets
        that of programs.

        Raise CommandFailedError (if `check`), CommandTimeoutError or CancelledError; on the last two the command's
        whole session has been ended.
        """
        command = tuple(str(word) for word in argv)
        fault_points.reach(f"before {name_of(command)} {' '.join(command[1:2])}")
        shown = self.begun(command, str(cwd or ""))
        started = time.monotonic()
        process = self._spawn(
            command,
            cwd=cwd,
            environment=self.environment(environment, begin=_begin(account, cwd)),
            account=account or OWN,
            stdin=stdin if stdin is not None else subprocess.DEVNULL,
            stdout=output if output is not None else subprocess.PIPE,
            stderr=subprocess.PIPE if output is not None else subprocess.STDOUT,
        )
        pipe = process.stderr if output is not None else process.stdout
        assert pipe is not None
        tail = self._follow(process, pipe, shown, started, timeout_seconds, ignore_cancel)
        seconds = time.monotonic() - started
        code = process.wait()
        self.ended(shown, code, seconds, tail, check=check)
        return CommandResult(command, code, tail, seconds)

    def begun(self, argv: Sequence[str], cwd: str) -> str:
        """Announce and log a redacted command that is about to start."""
        shown = self.redactor.text(" ".join(argv))
        self.announce(shown)
        self.log({"kind": "command", "argv": [self.redactor.text(word) for word in argv], "cwd": cwd})
        return shown

    def ended(self, shown: str, exit_code: int, seconds: float, tail: str, *, check: bool = True) -> None:
        """Log a command's end. Raise CommandFailedError."""
        self.log({"kind": "exit", "exit_code": exit_code, "seconds": round(seconds, 3)})
        if check and exit_code != 0:
            raise CommandFailedError(
                f"`{shown}` ended with exit code {exit_code}", exit_code_of_command=exit_code, output_tail=tail
            )

    def _follow(
        self,
        process: Process,
        pipe: IO[bytes],
        shown: str,
        started: float,
        timeout_seconds: float | None,
        ignore_cancel: bool,
    ) -> str:
        """Send output to the log until the process ends; return the last of it."""
        fault_points.reach("during the command")
        tail = bytearray()

        def keep(data: bytes) -> None:
            self.log({"kind": "output", "text": data.decode(errors="replace")})
            tail.extend(data)
            del tail[:-TAIL_BYTES]

        def check() -> None:
            if not ignore_cancel and self.cancelled():
                raise CancelledError(f"stopped `{shown}` on request")
            if timeout_seconds is not None and time.monotonic() - started > timeout_seconds:
                raise CommandTimeoutError(f"`{shown}` was ended after {timeout_seconds:g} seconds (time-out)")

        stream = RedactingStream(self.redactor, keep)
        try:
            follow(process, pipe, stream.feed, check)
        finally:
            stream.close()
        return bytes(tail).decode(errors="replace")

    def feed(
        self, argv: Sequence[str], chunks: Iterable[bytes], *, environment: Mapping[str, str] | None = None
    ) -> CommandResult:
        """Run one command with a stream as its standard input; its output is only kept for messages.

        Raise CommandFailedError, CancelledError, and what `chunks` raises; the command has ended then.
        """
        fault_points.reach(f"before feeding {name_of(argv)}")
        shown = self.begun(argv, "/")
        started = time.monotonic()
        with tempfile.TemporaryFile() as printed:
            process = self._spawn(
                argv,
                cwd="/",
                environment=self.environment(environment),
                stdin=subprocess.PIPE,
                stdout=printed,
                stderr=printed,
            )
            assert process.stdin is not None
            try:
                for number, chunk in enumerate(chunks):
                    pipes.write_all(process.stdin, chunk, self.check_cancelled)
                    if number == 0:
                        fault_points.reach(f"during feeding {name_of(argv)}")
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
                while process.poll() is None:
                    self.check_cancelled()
                    time.sleep(0.02)
            except BrokenPipeError:  # it ended before it had read everything; its exit code and output show why
                process.wait()
            except BaseException:
                end_session(process)
                raise
            finally:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
            size = os.fstat(printed.fileno()).st_size
            tail = os.pread(printed.fileno(), TAIL_BYTES, max(0, size - TAIL_BYTES)).decode(errors="replace")
        tail = self.redactor.text(tail)
        if tail:
            self.log({"kind": "output", "text": tail})
        seconds = time.monotonic() - started
        self.ended(shown, process.wait(), seconds, tail)
        fault_points.reach(f"after feeding {name_of(argv)}")
        return CommandResult(tuple(argv), 0, tail, seconds)

    def check_cancelled(self) -> None:
        """Raise CancelledError once the operation was asked to stop."""
        if self.cancelled():
            raise CancelledError("stopped a command on request")

    def capture(self, argv: Sequence[str], *, cwd: str | Path | None = None, timeout_seconds: float = 60) -> str:
        """Run a short command for its output (at most some megabytes), outside of an operation's log.

        Raise CommandFailedError.
        """
        fault_points.reach(f"capture {' '.join(argv[:2])}")
        self.announce(self.redactor.text(" ".join(argv)))
        with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as errors:
            process = self._spawn(
                argv, cwd=cwd, environment=self.environment(), stdin=subprocess.DEVNULL, stdout=printed, stderr=errors
            )
            try:
                code = process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                end_session(process)
                raise CommandTimeoutError(f"`{argv[0]}` was ended after {timeout_seconds:g} seconds") from None
            except BaseException:
                end_session(process)
                raise
            output = _content(printed)
            if code != 0:
                raise CommandFailedError(
                    f"`{self.redactor.text(' '.join(argv))}` ended with exit code {code}",
                    exit_code_of_command=code,
                    output_tail=self.redactor.text((output + _content(errors)).decode(errors="replace"))[-TAIL_BYTES:],
                )
        return output.decode(errors="surrogateescape")

    def stream(self, argv: Sequence[str]) -> Generator[bytes]:
        """Yield what a command prints while it prints it, both streams together; it ends with the iterator."""
        self.announce(self.redactor.text(" ".join(argv)))
        process = self._spawn(
            argv,
            environment=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        try:
            while data := os.read(process.stdout.fileno(), _STREAM_BYTES):
                yield data
        finally:
            end_session(process)
            process.stdout.close()

    def interactive(
        self,
        argv: Sequence[str],
        *,
        cwd: str | Path,
        environment: Mapping[str, str],
        account: Account = OWN,
        timeout_seconds: float | None = None,
    ) -> int:
        """Run a command of the application on the operator's own terminal; return its exit code.

        After a time-out everything that it started is ended. Raise CommandTimeoutError.
        """
        self.announce(self.redactor.text(" ".join(argv)))
        terminal = {name: os.environ[name] for name in _TERMINAL if name in os.environ}
        begin = {**child_environment.for_the_application(account.name, cwd), **terminal}
        wanted = self.environment(environment, marked=False, begin=begin)
        return console.run(argv, cwd=cwd, environment=wanted, account=account, timeout_seconds=timeout_seconds)

    def start_server(
        self,
        argv: Sequence[str],
        *,
        cwd: str | Path,
        log_path: Path,
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Start a process that outlives Holdfast and belongs to no operation; return its pid."""
        fault_points.reach("before the server")
        with open(log_path, "ab") as log:
            process = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env=self.environment(environment, marked=False),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        pid = process.pid
        process.returncode = 0  # do not wait for it: supervisord becomes a daemon or is adopted by init
        fault_points.reach("after the server")
        return pid

    def start_kept_server(
        self,
        argv: Sequence[str],
        *,
        cwd: str | Path,
        log_path: Path,
        record: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start a process like `start_server`, below a keeper of its own, which holds all that it starts."""
        # The services below it resolve their own secrets, which may be in the caller's environment.
        hers = self.environment(environment, marked=False, begin=os.environ)
        fault_points.reach("before the server")
        try:
            own = Keeper(record, self.environment(marked=False))
            try:
                with open(log_path, "ab") as log:
                    process = own.spawn(
                        argv, cwd=cwd, environment=hers, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                    )
                process.forget()
            finally:
                own.let_go()
        except OSError as error:
            raise CommandFailedError(f"cannot start {argv[0]}: {error.strerror}", exit_code_of_command=127) from error
        fault_points.reach("after the server")

    def start_pipes(
        self, argv: Sequence[str], *, environment: Mapping[str, str] | None = None, errors: IO[bytes] | None = None
    ) -> Process:
        """Start a process of the operation for a dialogue over its standard input and output.

        Its standard error goes to `errors`, or nowhere. Raise CommandFailedError if it cannot be started.
        """
        process = self._spawn(
            argv,
            cwd="/",
            environment=self.environment(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors if errors is not None else subprocess.DEVNULL,
        )
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipes.enlarge(pipe)
        return process

    def resolved(self, values: Mapping[str, str]) -> dict[str, str]:
        """Return an environment with the values of its secret references. Raise HoldfastError."""
        return {
            name: self.resolve_secret(value) if secrets.is_secret(value) else value for name, value in values.items()
        }

    def resolve_secret(self, reference: str) -> str:
        """Return the value of a reference, such as `file:PATH`; it is redacted from now on.

        Raise HoldfastError naming the reference, never the value.
        """
        value = secrets.resolve(reference, self.capture, self._stored)
        self.redactor.add(value)
        return value

    def _stored(self, name: str) -> str:
        if self.store is None:
            raise HoldfastError(f"secret {name}: this process knows no file of secrets")
        return self.store.value(name)


def _begin(account: Account | None, cwd: str | Path | None) -> dict[str, str] | None:
    """Return the environment with which a command of the application begins; None for one of another program."""
    return child_environment.for_the_application(account.name, cwd) if account is not None else None


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def name_of(argv: Sequence[str]) -> str:
    """Return the name of a command's program, for the points at which tests end the process."""
    return os.path.basename(argv[0])
