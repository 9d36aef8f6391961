"""The answers of a runtime whose services are processes of this machine, in the release's folder."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO

from holdfast.model import ReleaseCommand, ServiceInstance
from holdfast.system.accounts import account_of
from holdfast.system.host import CommandResult, Host


class ProcessRuntime:
    """A release has every configured service, needs no images, and ties nothing to anything."""

    takes_over = False
    tells_port = True
    creates_ahead = False
    keeps_stopped = False

    def __init__(self, host: Host) -> None:
        self._host = host

    def end_unmanaged(self) -> None:
        """Do nothing: a process that the operator started by hand is not known to be a service."""

    def services_of(self, directory: str, configured: Collection[str]) -> list[str]:
        return list(configured)

    def refused(self, directory: str) -> list[str]:
        return []

    def beside(self, directory: str, services: Sequence[str]) -> tuple[list[str], list[str]]:
        return [], []

    def missing_images(self, directory: str, services: Collection[str] | None = None) -> list[str]:
        return []

    def blocked_by_dependents(self, services: Collection[str], order: Sequence[str]) -> dict[str, str]:
        return {}

    def storage_paths(self) -> list[Path]:
        return []

    def place(self) -> tuple[str, str] | None:
        return None

    def address_of(self, instance: ServiceInstance, *, inside: bool) -> str:
        return f"127.0.0.1:{instance.port}"

    def create(self, *instances: ServiceInstance) -> None:
        """Do nothing: a process needs no preparation."""

    def prepare_task(self, command: ReleaseCommand, operation: str) -> None:
        """Do nothing: a process needs no preparation."""

    def run_task(
        self,
        command: ReleaseCommand,
        operation: str,
        *,
        timeout_seconds: float | None = None,
        output: IO[bytes] | None = None,
    ) -> CommandResult:
        return self._host.run(
            command.argv,
            cwd=command.directory,
            environment=command.environment,
            timeout_seconds=timeout_seconds,
            output=output,
            account=account_of(command.user),
        )

    def run_console(
        self,
        command: ReleaseCommand,
        *,
        terminal: bool,
        timeout_seconds: float | None = None,
    ) -> int:
        return self._host.interactive(
            command.argv,
            cwd=command.directory,
            environment=command.environment,
            account=account_of(command.user),
            timeout_seconds=timeout_seconds,
        )

    def end_tasks(self, operation: str) -> None:
        """Do nothing: the fence ends an operation's processes on this machine."""
