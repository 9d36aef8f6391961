"""The root command. Each command has a module of its own, which is imported only when it is called."""

from __future__ import annotations

import importlib
import os
import sys

import click

from holdfast import VERSION

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("init", "Write a commented holdfast.toml for this folder."),
    "check": ("check", "Find problems and risks; print what fixes them."),
    "status": ("status", "Show services, release, last backup and open operations."),
    "adopt": ("adopt", "Take over a project whose containers are running."),
    "install": ("install", "Install the application for the first time."),
    "upgrade": ("upgrade", "Upgrade to a release; a bad one is undone."),
    "rollback": ("rollback", "Go back to the previous release."),
    "backup": ("backup", "Create, list, show, verify, restore, prune and pin backups."),
    "clone": ("clone", "Copy one environment's data to another."),
    "import": ("import_", "Import a dump or files that another tool made."),
    "recover": ("recover", "Bring an interrupted operation to its end."),
    "package": ("package", "Build, list, deploy and prune packages."),
    "release": ("release", "List releases."),
    "maintenance": ("maintenance", "Show visitors the maintenance page, or let them in."),
    "service": ("service", "Show, stop, start and restart services."),
    "console": ("console", "Run the application's console with arguments."),
    "log": ("log", "Show operations with every command and its output."),
    "config": ("config", "Validate, show and explain the configuration."),
    "demo": ("demo", "Demonstrate everything on a small application."),
}


class LazyGroup(click.Group):
    """A group that knows names and one-line helps without importing the commands."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"holdfast.cli.{COMMANDS[name][0]}")
        command: click.Command = getattr(module, COMMANDS[name][0])
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="holdfast")
def holdfast() -> None:
    """Keep self-hosted web applications alive through maintenance.

    Every operation is a journalled transaction over code, databases and files: whatever fails, the application ends up
    whole, on the new version or on the old one with its old data.

    Exit codes: 0 done; 2 usage; 3 configuration; 4 refused, nothing changed; 5 another operation runs; 6 failed and
    undone; 7 stuck; 8 interrupted, run `holdfast recover`; 9 damaged backup; 10 degraded; 130 stopped on
    request, and undone.
    """


def _open_streams() -> None:
    """Open standard streams that the caller closed: otherwise the next opened file would become one."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # os.open returns the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))


_UMASK = 0o022


def main() -> None:
    _open_streams()
    # Other accounts read code and pages, whatever the shell's umask is. What is private has a mode of its own.
    os.umask(_UMASK)
    try:
        holdfast.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
