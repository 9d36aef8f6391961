"""Client programs that run inside the server's container, by `docker exec` and `podman exec`.

Facts from the documentation of both and measured on Docker 20.10 and Podman 4.3: a variable that is named without a
value comes from the environment of the command itself; the exit code is the program's; a program runs on after its
`exec` was killed, with its input at an end and its output discarded. Processes that such a program starts become, once
orphaned, children of the server, and PostgreSQL takes a killed child for a crash of its own: so only clients without
children are run.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from holdfast.drivers.databases.sql.session import SqlError
from holdfast.errors import CommandFailedError, CommandTimeoutError, StepError
from holdfast.model import Problem, Server
from holdfast.system.host import OPERATION_VARIABLE, Host

_CLIENT_VARIABLE = "HOLDFAST_CLIENT"
_ROUNDS = 100
_ROUND_SECONDS = 1  # at most: some versions of `sleep` accept no fractions
# The script looks at the environment of every process. SIGINT comes first, as from Ctrl-C, because on it a client also
# cancels its statement.
_PROGRAMS = ("tr", "grep", "sleep")
_NOT_FOUND = 127  # the exit code for a program that is not there
_NOT_EXECUTED = 126
_NO_PROGRAM = 97
_MISSING = f"""
missing=
for program in {" ".join(_PROGRAMS)}; do
    command -v $program > /dev/null || missing="$missing $program"
done
[ -z "$missing" ] || {{ echo $missing >&2; exit {_NO_PROGRAM}; }}
"""
_END = """
round=0
while [ "$round" -le "$2" ]; do
    case $round in
        0) signal=INT ;;
        10) signal=TERM ;;
        20) signal=KILL ;;
    esac
    left=
    for place in /proc/[0-9]*; do
        if tr '\\0' '\\n' < "$place/environ" | grep -qxF -e "$1"; then
            left=yes
            kill -s "$signal" "${place#/proc/}"
        fi
    done 2> /dev/null
    [ -n "$left" ] || exit 0
    sleep 0.1 2> /dev/null || sleep 1
    round=$((round + 1))
done
exit 1
"""


class MissingProgramError(StepError):
    """A program that ending commands in a container needs and that is not there."""

    may_pass = False


@dataclass(frozen=True)
class Container:
    """A running container. `engine` is `docker` or `podman`, `find` returns the container's name or id.

    A container's operator may create it again under the same name, so `find` is called only once.
    """

    engine: str
    find: Callable[[], str]

    @classmethod
    def of(cls, server: Server) -> Container | None:
        """Return the container in which a server's clients run; None where they run on this machine."""
        engine, _, name = server.container.partition(":")
        find = server.find_container if not name and server.find_container is not None else lambda: name
        return cls(engine, functools.cache(find)) if engine else None

    @property
    def name(self) -> str:
        """Return the container's name or id. Raise StepError where it is looked up and not there."""
        return self.find()

    def argv(self, command: Sequence[str], variables: Iterable[str], *, user: str = "") -> list[str]:
        """Return the argv that runs a command inside, with variables of the caller's environment.

        No value of a variable appears in the argv. `user` is another one than the container's own.
        """
        options = [f"--env={name}" for name in (*variables, OPERATION_VARIABLE, _CLIENT_VARIABLE)]
        options += [f"--user={user}"] if user else []
        return [self.engine, "exec", "--interactive", *options, self.name, *command]

    def ending(self, variable: str) -> list[str]:
        """Return the argv that ends the processes with a variable, `NAME=value`, in their environment; without our own.

        It runs as the container's own user, like the others: root may not read the environment of others' processes.
        """
        options = ["sh", "-c", _MISSING + _END, "sh", variable, str(_ROUNDS)]
        return [self.engine, "exec", self.name, *options]

    def looking(self) -> list[str]:
        """Return the argv that fails as `ending` does where a program is missing, and ends nothing."""
        return [self.engine, "exec", self.name, "sh", "-c", _MISSING]

    def inspection(self) -> list[str]:
        """Return the argv that prints `true` while the container runs."""
        return [self.engine, "inspect", "--type=container", "--format={{.State.Running}}", self.name]


def missing_programs(container: Container | None, subject: str, host: Host) -> list[Problem]:
    """Return an error for a container in which Holdfast could not end the commands that it starts there."""
    if container is None:
        return []
    try:
        host.capture(container.looking())
    except CommandFailedError as error:
        # Docker 20.10 reports so a shell that is not there; elsewhere the code may mean that the container is ending.
        missing = "sh" if error.exit_code_of_command == _NOT_EXECUTED else _missing_of(error)
        if missing is None:
            raise
        return [Problem(subject, "error", f"{_without(container, missing)} {_NEEDS}", _CURE)]
    return []


_NEEDS = f"Holdfast needs sh, {', '.join(_PROGRAMS[:-1])} and {_PROGRAMS[-1]} there, to end commands in it"
_CURE = "Start the database from an image that has them."


def _without(container: Container, missing: str) -> str:
    return f"the container {container.name} has no {missing}."


def _missing_of(error: CommandFailedError) -> str | None:
    """Return the programs whose lack made a command fail; None where it failed for another reason."""
    if error.exit_code_of_command == _NOT_FOUND:
        return "sh"
    return ", ".join(error.output_tail.split()) if error.exit_code_of_command == _NO_PROGRAM else None


def end_inside(container: Container | None, operation: str, host: Host) -> None:
    """End the processes of an operation's clients inside a container that runs.

    Raise SqlError where something still runs or that cannot be determined, for example while the container restarts,
    and MissingProgramError.
    """
    if container is not None:
        _end(container, f"{OPERATION_VARIABLE}={operation}", host)


def _end(container: Container, variable: str, host: Host) -> None:
    ending = False
    try:
        if host.capture(container.inspection()).strip() == "true":
            ending = True
            host.run(container.ending(variable), ignore_cancel=True, timeout_seconds=2 * _ROUNDS * _ROUND_SECONDS)
    except (CommandFailedError, CommandTimeoutError) as error:
        if isinstance(error, CommandFailedError):
            _refuse_missing(container, error, ending=ending)
        raise SqlError(
            f"processes started inside the container {container.name} may still run:"
            f" {error.state.strip() or error.what}",
            next_step=f"Check that {container.engine} answers and that {container.name} runs,"
            " then run the command again.",
        ) from error


def _refuse_missing(container: Container, error: CommandFailedError, *, ending: bool) -> None:
    """Raise MissingProgramError where a program is not there: the engine's here, or one that ends commands there."""
    if not ending and error.exit_code_of_command == _NOT_FOUND:
        raise MissingProgramError(
            f"commands in a container cannot be ended: {container.engine} cannot be started on this machine",
            next_step=f"Install {container.engine}.",
        ) from error
    missing = _missing_of(error) if ending else None
    if missing is not None:
        raise MissingProgramError(
            f"commands in a container cannot be ended: {_without(container, missing)} {_NEEDS}",
            next_step=f"Install {missing} in the running container, or start the database again from an image that has"
            " these programs.",
        ) from error


@dataclass(frozen=True)
class Run:
    """One run of a client: its environment, and what ends it inside; None where it runs on this machine."""

    environment: Mapping[str, str]
    end: Callable[[], None] | None = None


@contextmanager
def running(container: Container | None, environment: Mapping[str, str], host: Host) -> Iterator[Run]:
    """Yield the run of a client, and end it inside if it is given up.

    A client that is given up, or whose output broke (for example on a full disk), would otherwise go on inside.
    """
    if container is None:
        yield Run(environment)
        return
    number = secrets.token_hex(8)

    def end() -> None:
        with contextlib.suppress(SqlError, MissingProgramError):  # the error that led here is the one to report
            _end(container, f"{_CLIENT_VARIABLE}={number}", host)

    try:
        yield Run({**environment, _CLIENT_VARIABLE: number}, end)
    except BaseException:
        end()
        raise
