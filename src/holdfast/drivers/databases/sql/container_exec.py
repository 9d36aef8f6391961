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
from holdfast.errors import CommandFailedError, CommandTimeoutError
from holdfast.model import Server
from holdfast.system.host import OPERATION_VARIABLE, Host

_CLIENT_VARIABLE = "HOLDFAST_CLIENT"
_ROUNDS = 100
_ROUND_SECONDS = 1  # at most: some versions of `sleep` accept no fractions
# The script looks at the environment of every process. SIGINT comes first, as from Ctrl-C, because on it a client also
# cancels its statement.
_END = """
for program in seq tr grep sleep; do
    command -v $program > /dev/null || { echo "the image has no $program" >&2; exit 127; }
done
for round in $(seq 0 "$2"); do
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
done
exit 1
"""


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

    def argv(self, command: Sequence[str], variables: Iterable[str]) -> list[str]:
        """Return the argv that runs a command inside, with variables of the caller's environment.

        No value of a variable appears in the argv.
        """
        options = [f"--env={name}" for name in (*variables, OPERATION_VARIABLE, _CLIENT_VARIABLE)]
        return [self.engine, "exec", "--interactive", *options, self.name, *command]

    def ending(self, variable: str) -> list[str]:
        """Return the argv that ends the processes with a variable, `NAME=value`, in their environment; without our own.

        It runs as the container's own user, like the others: root may not read the environment of others' processes.
        """
        options = ["sh", "-c", _END, "sh", variable, str(_ROUNDS)]
        return [self.engine, "exec", self.name, *options]

    def inspection(self) -> list[str]:
        """Return the argv that prints `true` while the container runs."""
        return [self.engine, "inspect", "--type=container", "--format={{.State.Running}}", self.name]


def end_inside(container: Container | None, operation: str, host: Host) -> None:
    """End the processes of an operation's clients inside a container that runs.

    Raise SqlError where something still runs or that cannot be determined, for example while the container restarts.
    """
    if container is not None:
        _end(container, f"{OPERATION_VARIABLE}={operation}", host)


def _end(container: Container, variable: str, host: Host) -> None:
    try:
        if host.capture(container.inspection()).strip() == "true":
            host.run(container.ending(variable), ignore_cancel=True, timeout_seconds=2 * _ROUNDS * _ROUND_SECONDS)
    except (CommandFailedError, CommandTimeoutError) as error:
        raise SqlError(
            f"processes started inside the container {container.name} may still run:"
            f" {error.state.strip() or error.what}",
            next_step=f"Check that {container.engine} answers and that {container.name} runs,"
            " then run the command again.",
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
        with contextlib.suppress(SqlError):  # the error that led here is the one to report
            _end(container, f"{_CLIENT_VARIABLE}={number}", host)

    try:
        yield Run({**environment, _CLIENT_VARIABLE: number}, end)
    except BaseException:
        end()
        raise
