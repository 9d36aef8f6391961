"""The root command. Each command has a module of its own, which is imported only when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

import click

from holdfast import VERSION
from holdfast.cli.catalogue import COMMANDS, SECTIONS
from holdfast.cli.colon_names import Answered, called_as_other, families, translated
from holdfast.cli.command import Group, common_options

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_COMPLETE = "_HOLDFAST_COMPLETE"


class LazyGroup(Group):
    """A group that knows names and one-line helps without importing the commands."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"holdfast.cli.{COMMANDS[name][0]}")
        command: click.Command = getattr(module, COMMANDS[name][0])
        return command

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return commands and options without importing the commands."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, context, incomplete)]

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in commands.items()], col_max=14)
        with formatter.section("Names of orocloud-cli (holdfast help names)"):
            rows = [(f"{name}:" if any(more) else name, ", ".join(more)) for name, more in families().items()]
            formatter.write_dl(rows, col_max=14)
        with formatter.section("Options"):
            formatter.write_dl(self.own_options(context))
        with formatter.section("Common options, before or after the name of a command"):
            records = [option.get_help_record(context) for option in common_options()]
            formatter.write_dl([record for record in records if record is not None])
        self.format_examples(formatter)
        with formatter.section("More"):
            formatter.write_dl(
                [
                    ("holdfast help COMMAND", "what a command does, with examples"),
                    ("holdfast help exit-codes", "what the exit codes mean"),
                    ("holdfast config help", "all keys of holdfast.toml"),
                ]
            )


@click.command(
    cls=LazyGroup,
    examples=[
        ("upgrade v2 --dry-run", "What would an upgrade do, and for how long would visitors wait?"),
        ("upgrade v2", "Upgrade; whatever fails is undone."),
        ("backup create --comment 'before the fair'", "Make a backup by hand."),
    ],
)
@click.version_option(VERSION, prog_name="holdfast")
def holdfast() -> None:
    """Keep self-hosted web applications alive through maintenance.

    Every operation is a journalled transaction over code, databases and files: whatever fails, the application ends up
    whole, on the new version or on the old one with its old data.
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


def _refuse(error: click.ClickException, arguments: list[str]) -> None:
    """Print an error in the command line, as JSON if that is wanted anywhere in it."""
    from holdfast.cli.render import Renderer
    from holdfast.errors import UsageError

    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context is not None else "holdfast"
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    color = next((one.partition("=")[2] for one in own if one.startswith("--color=")), "auto")
    refused = UsageError(error.format_message(), next_step=f"Run `{path} --help` to see how it is used.")
    refused.state = ""
    Renderer(path.partition(" ")[2], as_json="--json" in own, color=color).error(refused, refused.what)


def _complete() -> None:
    """Answer a shell that completes a line. Nothing but values is ever printed, and nothing fails."""
    with open(os.devnull, "w") as nowhere:
        sys.stderr = nowhere
        try:
            holdfast.main([], prog_name="holdfast", complete_var=_COMPLETE)
        except BaseException:
            pass
        finally:
            sys.stderr = sys.__stderr__


def _in_own_words(arguments: list[str]) -> list[str]:
    """Return the command line without names of orocloud-cli. Raise click.UsageError for one that has no equivalent."""
    try:
        return translated(arguments, COMMANDS, own=called_as_other())
    except Answered as answer:
        raise click.UsageError(str(answer)) from None


def main() -> None:
    _open_streams()
    if os.environ.get(_COMPLETE):
        _complete()
        return
    # Other accounts read code and pages, whatever the shell's umask is. What is private has a mode of its own.
    os.umask(_UMASK)
    arguments = sys.argv[1:] or ["--help"]  # a question that is answered even while an operation runs
    try:
        arguments = _in_own_words(arguments)
        holdfast.main(arguments, prog_name="holdfast", standalone_mode=False)
    except click.UsageError as error:
        if error.__class__.__name__ == "NoArgsIsHelpError":  # a group without a command, since click 8.2
            error.show()
        else:
            _refuse(error, arguments)
        sys.exit(2)
    except click.ClickException as error:
        _refuse(error, arguments)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
