"""Client programs that run inside the server's container, by `docker exec` and `podman exec`.

Facts from the documentation of both and measured on Docker 20.10 and Podman 4.3: a variable that is named without a
value comes from the environment of the command itself; the exit code is the program's; a program runs on after its
`exec` was killed, its input at an end and what it prints thrown away. What such a program starts is, once it is
orphaned, a child of the server, and PostgreSQL takes a child that is killed for a crash of its own: so no client is run
that has children.
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
_ROUND_SECONDS = 1  # at most: where `sleep` takes no fractions
# Looks at every process by what stands in its environment. Asked first as by Ctrl-C, a client stops its statement too.
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
    """A container that runs. `engine` is `docker` or `podman`, `find` tells what it knows the container by.

    A name outlives its container, which its operator may make anew: so it is asked for once.
    """

    engine: str
    find: Callable[[], str]

    @classmethod
    def of(cls, server: Server) -> Container | None:
        """The one that a server's clients run in; None where they run on this machine."""
        engine, _, name = server.container.partition(":")
        find = server.find_container if not name and server.find_container is not None else lambda: name
        return cls(engine, functools.cache(find)) if engine else None

    @property
    def name(self) -> str:
        """Raises StepError where it is to be found and is not there."""
        return self.find()

    def argv(self, command: Sequence[str], variables: Iterable[str]) -> list[str]:
        """Runs a command inside, with variables of the environment of who runs this; no value stands among the words."""
        words = [f"--env={name}" for name in (*variables, OPERATION_VARIABLE, _CLIENT_VARIABLE)]
        return [self.engine, "exec", "--interactive", *words, self.name, *command]

    def ending(self, mark: str) -> list[str]:
        """Ends what has a variable in its environment, `NAME=value`; without that of its own.

        As the container's own user, as whom the others run: root is not shown the environment of others' processes.
        """
        words = ["sh", "-c", _END, "sh", mark, str(_ROUNDS)]
        return [self.engine, "exec", self.name, *words]

    def inspection(self) -> list[str]:
        """Prints `true` while it runs."""
        return [self.engine, "inspect", "--type=container", "--format={{.State.Running}}", self.name]


def end_inside(container: Container | None, operation: str, host: Host) -> None:
    """Ends what an operation's clients still do inside; in a container that does not run nothing does.

    Raises SqlError where something goes on, or nobody can tell, as while the container is coming back.
    """
    if container is not None:
        _end(container, f"{OPERATION_VARIABLE}={operation}", host)


def _end(container: Container, mark: str, host: Host) -> None:
    try:
        if host.capture(container.inspection()).strip() == "true":
            host.run(container.ending(mark), ignore_cancel=True, timeout_seconds=2 * _ROUNDS * _ROUND_SECONDS)
    except (CommandFailedError, CommandTimeoutError) as error:
        raise SqlError(
            f"what was started inside the container {container.name} may go on: {error.state.strip() or error.what}",
            next_step=f"See that {container.engine} answers, and that {container.name} runs; then type the command again.",
        ) from error


@dataclass(frozen=True)
class Run:
    """One client's: its environment, and what ends it inside; None where it is outside and gets its signals itself."""

    environment: Mapping[str, str]
    end: Callable[[], None] | None = None


@contextmanager
def running(container: Container | None, environment: Mapping[str, str], host: Host) -> Iterator[Run]:
    """A client that is given up, or whose way out broke as on a full disk, goes on inside unless it is ended there."""
    if container is None:
        yield Run(environment)
        return
    number = secrets.token_hex(8)

    def end() -> None:
        with contextlib.suppress(SqlError):  # what led here is to be told
            _end(container, f"{_CLIENT_VARIABLE}={number}", host)

    try:
        yield Run({**environment, _CLIENT_VARIABLE: number}, end)
    except BaseException:
        end()
        raise
