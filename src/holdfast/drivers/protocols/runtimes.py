"""Protocol of the runtimes, which run services."""

from __future__ import annotations

from typing import Protocol

from holdfast.model import (
    Problem,
    ServiceInstance,
    ServiceStatus,
)


class Runtime(Protocol):
    """A runtime, which runs the services. Instances are identified by name; nothing starts by itself after a reboot."""

    def prepare(self) -> None:
        """Make the runtime answer; start it if it belongs to Holdfast. Idempotent."""

    def statuses(self) -> dict[str, ServiceStatus]:
        """Return the status of every known instance; empty while the runtime is down."""

    def start(self, instance: ServiceInstance) -> None:
        """Start an instance, replacing another definition of that name; a running equal one stays. Idempotent.

        Return once the start has begun: the caller verifies that the instance stays up and is healthy. Raise StepError.
        """

    def stop(self, name: str) -> float | None:
        """Stop and forget an instance; an unknown one is fine. Idempotent.

        Return the seconds after which it had to be killed; None where it ended by itself.
        """

    def release_of(self, name: str) -> str | None:
        """Return the release from which the running process of an instance was really started."""

    def output_tail(self, name: str) -> str:
        """Return the last lines that an instance printed."""

    def shut_down(self) -> None:
        """Stop every instance, and the runtime itself if it belongs to Holdfast. Idempotent."""

    def check(self) -> list[Problem]: ...
