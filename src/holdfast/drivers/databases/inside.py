"""Client programs that run inside the server's container, by `docker exec` and `podman exec`.

Facts from the documentation of both and measured on Docker 20.10: a variable that is named without a value comes from
the environment of `docker` itself; the exit code is the program's; a program runs on after its `docker exec` was
killed, its input at an end and what it prints thrown away. What such a program starts is, once it is orphaned, a child
of the server, and PostgreSQL takes a child that is killed for a crash of its own: so no client is run that has children.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from holdfast.errors import CancelledError, CommandFailedError, StepError
from holdfast.host import OPERATION_VARIABLE, Host

_ROUNDS = 100
_ROUND_SECONDS = 1  # at most: where `sleep` takes no fractions
# Looks at every process by what stands in its environment. Asked first as by Ctrl-C, a client stops its statement too.
_END = """
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
    """A container that runs. `engine` is `docker` or `podman`, `name` what it knows the container by."""

    engine: str
    name: str

    @classmethod
    def parsed(cls, text: str) -> Container | None:
        """Of `docker:NAME` or `podman:NAME`; None where there is none."""
        engine, _, name = text.partition(":")
        return cls(engine, name) if text else None

    def argv(self, command: Sequence[str], variables: Iterable[str]) -> list[str]:
        """Runs a command inside, with variables of the environment of who runs this; no value stands among the words."""
        words = [f"--env={name}" for name in (*variables, OPERATION_VARIABLE)]
        return [self.engine, "exec", "--interactive", *words, self.name, *command]

    def ending(self, operation: str) -> list[str]:
        """Ends what an operation started inside; without a mark of its own.

        As the container's own user, as whom the others run: root is not shown the environment of others' processes.
        """
        words = ["sh", "-c", _END, "sh", f"{OPERATION_VARIABLE}={operation}", str(_ROUNDS)]
        return [self.engine, "exec", self.name, *words]

    def running(self) -> list[str]:
        return [self.engine, "inspect", "--type=container", "--format={{.State.Running}}", self.name]


def end_inside(container: Container | None, operation: str | None, host: Host) -> None:
    """Ends what an operation's clients still do inside; in a container that does not run nothing does.

    Raises StepError where something goes on, or nobody can tell.
    """
    if container is None or operation is None:
        return
    try:
        if host.capture(container.running()).strip() == "true":
            host.run(container.ending(operation), ignore_cancel=True, timeout_seconds=2 * _ROUNDS * _ROUND_SECONDS)
    except CommandFailedError as error:
        raise StepError(
            f"what {operation} started inside the container {container.name} may go on: {error.output_tail.strip() or error.what}",
            next_step=f"See that {container.engine} answers, and that {container.name} is there; then type the command again.",
        ) from error


@contextmanager
def ended_inside(container: Container | None, host: Host) -> Iterator[None]:
    """A program that is given up goes on inside unless it is ended there too; also where its way out broke, as on a full disk."""
    try:
        yield
    except BaseException:
        end_inside(container, host.operation, host)
        raise


@contextmanager
def session_inside(container: Container | None, host: Host) -> Iterator[None]:
    """The same of a session: what is raised besides in its course leaves it to end with its input."""
    try:
        yield
    except CancelledError:
        end_inside(container, host.operation, host)
        raise
