"""`holdfast console -- ARGS`."""

from __future__ import annotations

import sys

import click

from holdfast.cli.command import command
from holdfast.cli.session import Session, common


@command(
    examples=[("console -- migrate --plan", "Run the application's own command with arguments.")],
    context_settings={"ignore_unknown_options": True},
)
@click.argument("arguments", metavar="[-- ARGS]...", nargs=-1, type=click.UNPROCESSED)
@common
def console(session: Session, arguments: tuple[str, ...]) -> None:
    """Run the application's console in the current release, on this terminal.

    The arguments arrive unchanged, and its exit code is passed on. Without a terminal it is ended, with everything
    that it started, after `limits.console_timeout_seconds`.
    """
    from holdfast.application.commands import filled
    from holdfast.model import ReleaseCommand
    from holdfast.operations import parts

    app = session.app()
    parts.refuse_without_task(app, "console")
    release = parts.require_installed(app)
    configuration = app.loaded.configuration
    argv = [*filled(app.context, configuration.tasks.console, release.path, None), *arguments]
    environment = app.context.resolved_environment(release)
    command = ReleaseCommand(configuration.task_service(), release.path, argv, environment, configuration.task_user())
    on_terminal = sys.stdin.isatty()
    limit = None if on_terminal else configuration.limits.console_timeout_seconds
    raise SystemExit(app.context.runtime.run_console(command, terminal=on_terminal, timeout_seconds=limit))
