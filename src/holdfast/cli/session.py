"""The common part of all commands: options, an open application, errors turned into exit codes."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate

import click

from holdfast.cli.command import COMMON, common_options, given_before
from holdfast.cli.forecast import forecast, window_of
from holdfast.cli.progress import ProgressObserver
from holdfast.cli.render import Renderer
from holdfast.cli.text import human_seconds, whole_seconds
from holdfast.errors import CancelledError, HoldfastError, UsageError

if TYPE_CHECKING:  # heavy modules are imported where a command first needs them, so that `--help` stays quick
    from holdfast.application.application import App
    from holdfast.config.load import ResolvedConfig
    from holdfast.model import Plan
    from holdfast.system.host import Host


_READ_ONLY = {
    "backup diff",
    "backup files",
    "backup find",
    "backup list",
    "backup show",
    "check",
    "completion",
    "config help",
    "config schema",
    "config show",
    "config validate",
    "credentials show",
    "help",
    "import list",
    "index list",
    "log list",
    "log show",
    "maintenance status",
    "media download",
    "media dump",
    "media list",
    "package list",
    "package show",
    "package verify",
    "patch list",
    "patch view",
    "queue list",
    "queue peek",
    "release list",
    "schedule list",
    "secret list",
    "service logs",
    "service status",
    "status",
}


class Session:
    """One run of one command."""

    def __init__(self, renderer: Renderer, *, config: str | None, environment: str | None, yes: bool) -> None:
        self.renderer = renderer
        self.config = config
        self.environment = environment
        self.yes = yes
        self.observer = ProgressObserver(renderer)
        self._host: Host | None = None
        self._losses: tuple[str, ...] = ()

    @property
    def host(self) -> Host:
        if self._host is None:
            from holdfast.system.host import Host

            self._host = Host()
            if self.renderer.verbosity:
                self._host.announce = lambda line: self.renderer.aside(f"$ {line}")
        return self._host

    def loaded(self) -> ResolvedConfig:
        from holdfast.config.load import load

        return load(self.config, self.environment)

    def app(self) -> App:
        """Return the open application; its journal is closed when the process ends."""
        return self.opened(self.loaded(), self.host)

    def opened(self, loaded: ResolvedConfig, host: Host | None = None) -> App:
        """Return the open application of a configuration.

        Each of two applications needs a host of its own, because a host logs for one of them.
        """
        from holdfast.application.application import command_line
        from holdfast.wiring import open_app

        return open_app(loaded, command=command_line(sys.argv[1:]), observer=self.observer, host=host)

    def changing_app(self) -> App:
        """Return the application for a command that changes it; refuse while an operation waits for `recover`."""
        app = self.app()
        app.runner.refuse_if_interrupted()
        return app

    @property
    def can_ask(self) -> bool:
        """Return whether somebody reads and types on a terminal."""
        return sys.stdin.isatty() and sys.stderr.isatty() and not self.renderer.as_json

    def confirm(self, question: str, losses: tuple[str, ...] = ()) -> None:
        """Ask before something is lost. Without a terminal `--yes` is needed. Raise UsageError or CancelledError."""
        if self.yes:
            return
        for loss in losses:
            self.renderer.note(loss)
        self._losses = losses
        if not sys.stdin.isatty():
            raise UsageError(
                "standard input is not a terminal, so Holdfast cannot ask for confirmation",
                next_step="Run the command again with --yes.",
            )
        if not click.confirm(question, err=True):
            raise CancelledError("stopped at the confirmation", state="Nothing was changed.")

    def run(self, app: App, plan: Plan, *, dry_run: bool = False, wait_seconds: float = 0) -> None:
        """Print a plan, or run it and print its outcome."""
        if dry_run:
            handlers = app.runner.handlers
            commands = {n: handlers[step.name].describe(step.parameters) for n, step in enumerate(plan.all_steps, 1)}
            has_gate = app.loaded.configuration.gate.kind != "none"
            expected = forecast(plan, app.journal.typical_seconds, has_gate=has_gate)
            self.renderer.plan(plan, commands, expected)
            steps = [
                {"name": s.name, "title": s.title, "commands": commands[n], "expected_seconds": expected.seconds[n - 1]}
                for n, s in enumerate(plan.all_steps, 1)
            ]
            self.renderer.result(
                {
                    "title": plan.title,
                    "notes": list(plan.notes),
                    "steps": steps,
                    "commit_after": len(plan.steps),
                    "expected_seconds": expected.total_seconds,
                    "expected_maintenance_seconds": expected.window_seconds,
                }
            )
            return
        silent = self.renderer.as_json or self.renderer.quiet
        for note in plan.notes if self._losses != plan.notes and not silent else ():
            self.renderer.note(f"note: {note}")
        expected = forecast(plan, app.journal.typical_seconds)
        self.observer.expect(list(expected.seconds))
        if expected.window and not silent and expected.window_seconds:
            about = whole_seconds(max(expected.window_seconds, 1.0))
            self.renderer.note(f"note: Visitors will be held for about {about}.")
        result = app.run(plan, wait_seconds=wait_seconds)
        self.renderer.line(f"{plan.title}: {result.outcome} in {human_seconds(result.seconds)} ({result.operation})")
        held = held_seconds(app, result.operation)
        if held:
            self.renderer.line(f"{held_how(app)} {human_seconds(held)}")
        if result.facts.get("set_id"):
            self.renderer.line(f"backup {result.facts['set_id']}")
        if self.renderer.to_person:
            from holdfast.cli.next_steps import after

            self.renderer.hints(after(app, plan, result))
        self.renderer.result(
            {
                "operation": result.operation,
                "outcome": str(result.outcome),
                "seconds": round(result.seconds, 3),
                "maintenance_seconds": round(held, 3),
                "expected_maintenance_seconds": expected.window_seconds,
                "facts": result.facts,
            }
        )


def held_seconds(app: App, operation: str) -> float:
    """Return how long an operation held visitors; 0 if it did not."""
    steps = app.journal.steps(operation)
    return sum(steps[number].seconds or 0 for number in window_of([step.name for step in steps]))


def held_how(app: App) -> str:
    has_gate = app.loaded.configuration.gate.kind != "none"
    return "visitors saw the maintenance page for" if has_gate else "visitors got no answer for"


def common(function: Callable[Concatenate[Session, ...], None]) -> Callable[..., None]:
    """Add the common options, and pass a Session to the command as its first argument."""

    @click.pass_context
    @functools.wraps(function)
    def command(context: click.Context, /, **options: Any) -> None:
        before = given_before(context)
        given = {name: options.pop(name) or before.get(name) for name in COMMON}
        renderer = Renderer(
            context.command_path.partition(" ")[2],
            as_json=bool(given["as_json"]),
            verbosity=given["verbose"] or 0,
            quiet=bool(given["quiet"]),
            color=given["color"] or "auto",
        )
        session = Session(renderer, config=given["config"], environment=given["environment"], yes=bool(given["yes"]))
        try:
            function(session, **options)
        except HoldfastError as error:
            if renderer.command in _READ_ONLY and error.state == type(error).default_state:
                error.state = ""  # nobody expects a question to change anything
            redact = session.host.redactor.text
            session.renderer.error(error, redact(error.what))
            if session.renderer.verbosity >= 3:
                session.renderer.aside(redact(traceback.format_exc()))
            _leave(error.exit_code)
        except OSError as error:
            wrapped = HoldfastError(
                f"{error.strerror or error}: {error.filename or ''}".rstrip(": "),
                state="Run `holdfast status` to see the present state.",
            )
            session.renderer.error(wrapped, session.host.redactor.text(wrapped.what))
            if session.renderer.verbosity >= 3:
                session.renderer.aside(session.host.redactor.text(traceback.format_exc()))
            _leave(1)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:  # an error in Holdfast itself: print no traceback unless the user asked for it
            wrapped = HoldfastError(
                f"unexpected: {type(error).__name__}: {error}",
                state="Everything was undone, or waits for `holdfast recover`: run `holdfast status` to see which.",
                next_step="Run the command again with -vvv and report what it prints.",
            )
            session.renderer.error(wrapped, session.host.redactor.text(wrapped.what))
            if session.renderer.verbosity >= 3:
                session.renderer.aside(session.host.redactor.text(traceback.format_exc()))
            _leave(1)

    # As click's own decorators do it: options stand in the reverse order until the command is made of the function.
    parameters: list[click.Parameter] = command.__dict__.setdefault("__click_params__", [])
    parameters.extend(reversed(common_options()))
    return command


def _leave(code: int) -> None:
    try:
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(code)
