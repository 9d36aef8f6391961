"""Where services run."""

from __future__ import annotations

from typing import Protocol

from holdfast.model import (
    Problem,
    ServiceInstance,
    ServiceStatus,
)


class Runtime(Protocol):
    """Where services run. Instances are found by name; nothing starts by itself after a reboot."""

    def prepare(self) -> None:
        """Makes the runtime answer, starting it if it is ours. May be repeated."""

    def statuses(self) -> dict[str, ServiceStatus]:
        """All known instances, empty while the runtime is down."""

    def start(self, instance: ServiceInstance) -> None:
        """Starts an instance, replacing another definition of that name; a running equal one stays. May be repeated.

        Returns once it is begun: whether it stays up and is well is for the caller to verify. Raises StepError.
        """

    def stop(self, name: str) -> float | None:
        """Stop and forget an instance; an unknown one is fine. May be repeated.

        Return the seconds after which it had to be killed; None where it ended by itself.
        """

    def release_of(self, name: str) -> str | None:
        """The release that the running process of an instance was really started from."""

    def output_tail(self, name: str) -> str:
        """The last lines an instance printed."""

    def shut_down(self) -> None:
        """Stops every instance and the runtime itself if it is ours. May be repeated."""

    def check(self) -> list[Problem]: ...
