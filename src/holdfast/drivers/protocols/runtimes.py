"""Protocol of the runtimes, which run services and the application's own commands."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

from holdfast.model import Problem, ReleaseCommand, ServiceInstance, ServiceStatus
from holdfast.system.host import CommandResult


class RunsServices(Protocol):
    """Instances are identified by name; nothing starts by itself after a reboot."""

    keeps_stopped: bool
    """Whether a stopped instance can be kept, so that its next start continues with the files that it wrote."""

    def prepare(self) -> None:
        """Make the runtime answer; start it if it belongs to Holdfast. Idempotent."""

    def statuses(self) -> dict[str, ServiceStatus]:
        """Return the status of every known instance; empty while the runtime is down."""

    @property
    def creates_ahead(self) -> bool:
        """Return whether `create` and `prepare_task` have anything to do."""

    def create(self, *instances: ServiceInstance) -> None:
        """Prepare the start of these instances while others serve; nothing runs. Idempotent.

        A start makes what is missing. `stop` removes what was made. Raise StepError.
        """

    def start(self, *instances: ServiceInstance) -> None:
        """Start instances side by side, replacing other definitions of their names; a running equal one stays.

        Return once the starts have begun: the caller verifies that each instance stays up and is healthy. Idempotent.
        Raise StepError.
        """

    def stop(self, *names: str, keep: bool = False, at_most_seconds: float | None = None) -> dict[str, float]:
        """Stop and forget instances side by side; an unknown one is fine. Idempotent.

        With `keep`, what a next start of the same instance can use is kept, where there is something; it is removed by
        a stop without. `at_most_seconds` shortens the time that each of them has to end by itself, where the runtime
        can shorten it. Return by name the seconds after which an instance had to be killed.
        """

    def end_unmanaged(self) -> None:
        """End what runs as one of the application's services and was not started by Holdfast. Idempotent."""

    def release_of(self, name: str) -> str | None:
        """Return the release from which the running process of an instance was really started."""

    def output_tail(self, name: str) -> str:
        """Return the last lines that an instance printed."""

    def outputs(self) -> list[str]:
        """Return the instances of which output is kept, the newest first; some of them may no longer exist."""

    def output(
        self, name: str, *, lines: int, since_seconds: float | None = None, follow: bool = False
    ) -> Iterator[bytes]:
        """Yield pieces of what an instance printed: its last lines; with `follow` also what it prints from now on.

        Raise RefusedError for `since_seconds` where nobody knows when a line was printed.
        """

    def shut_down(self) -> None:
        """Stop every instance, and the runtime itself if it belongs to Holdfast. Idempotent."""

    def check(self) -> list[Problem]: ...


class KnowsReleases(Protocol):
    """What a runtime says of a release before anything is stopped for it."""

    takes_over: bool
    """Whether it can take over what the operator's own command started."""

    tells_port: bool
    """Whether it tells a service its port, by a variable and in its command."""

    def services_of(self, directory: str, configured: Collection[str]) -> list[str]:
        """Return those of the configured services that a release has."""

    def refused(self, directory: str) -> list[str]:
        """Return the reasons why a release cannot run, before anything is stopped for it."""

    def beside(self, directory: str, services: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return what prevents second instances of these services while the first run, and what they would lack."""

    def missing_images(self, directory: str, services: Collection[str] | None = None) -> list[str]:
        """Return images of a release, or of some of its services, that are missing or differ."""

    def blocked_by_dependents(self, services: Collection[str], order: Sequence[str]) -> dict[str, str]:
        """Return instances of these services that cannot be removed while another one exists, with the other's name.

        Those of services that come earlier in `order` count as removed already.
        """

    def storage_paths(self) -> list[Path]:
        """Return the folders of this machine in which it keeps what its services run."""

    def place(self) -> tuple[str, str] | None:
        """Return what no other environment may share with this one: what it is, and its name; None if nothing."""

    def address_of(self, instance: ServiceInstance, *, inside: bool) -> str:
        """Return where an instance is reached: from this machine, or from `inside` the network of its services."""


class RunsCommands(Protocol):
    """The application's one-off commands, which run in the way the services of a release do."""

    def prepare_task(self, command: ReleaseCommand, operation: str) -> None:
        """Prepare the run of the same command of this operation while others serve; nothing runs.

        `end_tasks` removes it. Raise what `Host.run` raises.
        """

    def run_task(
        self,
        command: ReleaseCommand,
        operation: str,
        *,
        timeout_seconds: float | None = None,
        output: IO[bytes] | None = None,
    ) -> CommandResult:
        """Run a command of a release to its end; nothing of it goes on afterwards. Raise what `Host.run` raises."""

    def run_console(
        self,
        command: ReleaseCommand,
        *,
        terminal: bool,
        timeout_seconds: float | None = None,
    ) -> int:
        """Run a command of a release on the operator's terminal; return its exit code.

        Raise CommandTimeoutError once everything that it started is ended.
        """

    def end_tasks(self, operation: str) -> None:
        """End the processes that an operation's commands left in the runtime. Idempotent.

        Raise StepError if something still runs.
        """


class Runtime(RunsServices, KnowsReleases, RunsCommands, Protocol):
    """A runtime, which runs the services and the commands of the application."""
