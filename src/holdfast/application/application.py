"""One configured application with its drivers opened, and the runner of its operations."""

from __future__ import annotations

import getpass
import os
import shlex
import signal
from collections.abc import Callable

import msgspec

from holdfast.application.context import ApplicationContext
from holdfast.config.load import ResolvedConfig
from holdfast.engine.journal import Journal
from holdfast.engine.runner import Result, Runner
from holdfast.model import Plan


class App(msgspec.Struct):
    context: ApplicationContext
    runner: Runner
    command: str
    rewire: Callable[[ApplicationContext], None] = lambda application: None
    """Opens again what depends on the parts of a configuration that a release may bring."""

    @property
    def loaded(self) -> ResolvedConfig:
        return self.context.loaded

    @property
    def journal(self) -> Journal:
        return self.context.journal

    def use_configuration(self, loaded: ResolvedConfig) -> None:
        """Use another configuration from now on: the same one with what a release brings of its own."""
        self.context.loaded = loaded
        self.rewire(self.context)

    def run(self, plan: Plan, *, wait_seconds: float = 0) -> Result:
        """Run a plan as one operation of this application. Raise what Runner.run raises."""
        return self.runner.run(
            plan,
            command=self.command,
            configuration=self.loaded.dump(),
            user=getpass.getuser(),
            wait_seconds=wait_seconds,
        )

    def end_backup(self) -> bool:
        """Ask a running backup to stop and undo itself, as Ctrl-C does; return whether one ran."""
        holder = self.runner.lock("backup").holder()
        if holder is None or not holder.alive() or not holder.what.startswith("backup"):
            return False
        os.kill(holder.pid, signal.SIGTERM)
        return True

    def close(self) -> None:
        if self.context.registry is not None:
            self.context.registry.close()
        self.journal.close()


def command_line(arguments: list[str]) -> str:
    """Return the command that the operator typed."""
    return shlex.join(["holdfast", *arguments])
