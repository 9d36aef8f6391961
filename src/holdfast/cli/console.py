"""`holdfast console -- ARGS`."""

from __future__ import annotations

import os
import sys

import click

from holdfast.cli.session import Session, common


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", metavar="[-- ARGS]...", nargs=-1, type=click.UNPROCESSED)
@common
def console(session: Session, arguments: tuple[str, ...]) -> None:
    """Run the application's console in the current release, on this terminal."""
    from holdfast.operations import parts

    app = session.app()
    parts.refuse_without_task(app, "console")
    release = parts.refuse_second_install(app)
    command = [*app.loaded.configuration.tasks.console, *arguments]
    environment = app.opened.resolved_environment(release)
    containers, own = app.opened.containers, f"console-{os.getpid()}"
    if containers is not None:
        service = app.loaded.configuration.task_service()
        terminal = sys.stdin.isatty()
        command = containers.one_off(service, release.path, command, environment, own, terminal=terminal)
    code = app.opened.host.interactive(command, cwd=release.path, environment=environment)
    if containers is not None:
        containers.end_one_offs(own)
    raise SystemExit(code)
