"""What all commands have in common on the command line: options, the form of their help, suggestions."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# `Any` in this module is that of click, whose commands and decorators take keywords of any type.
_META = "holdfast.common"
WIDEST_HELP = 100
SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": WIDEST_HELP}


def common_options() -> list[click.Option]:
    """Return the options that every command takes, and every group before the name of a command."""
    return [
        click.Option(["-c", "--config"], metavar="FILE", help="holdfast.toml; default: here or in a folder above."),
        click.Option(["-e", "--environment"], metavar="NAME", help="Environment; its overlay is holdfast.NAME.toml."),
        click.Option(["-v", "--verbose"], count=True, help="Print each command as it runs (-vvv: with tracebacks)."),
        click.Option(["-q", "--quiet"], is_flag=True, help="Print only results and errors."),
        click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON object on standard output."),
        click.Option(
            ["--color"],
            type=click.Choice(["auto", "always", "never"]),
            metavar="WHEN",
            help="Use colours: auto (on a terminal, unless NO_COLOR is set), always or never.",
        ),
        click.Option(["-y", "--yes"], is_flag=True, help="Do not ask for confirmation."),
    ]


COMMON = tuple(str(option.name) for option in common_options())
_COMMON_LINE = "-c, -e, -v, -q, --json, --color and -y: see `holdfast help options`."


def _offered(
    parameter: click.Parameter,
    offer: Callable[[click.Context, click.Parameter, str], list[CompletionItem]],
    context: click.Context,
    incomplete: str,
) -> list[CompletionItem]:
    """Return the known values of a parameter, or else what click offers, such as files."""
    return offer(context, parameter, incomplete) or parameter.type.shell_complete(context, parameter, incomplete)


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    if value:
        context.meta.setdefault(_META, {})[parameter.name] = value
    return value


def given_before(context: click.Context) -> dict[str, Any]:
    """Return the common options that stand before the name of the command."""
    found: dict[str, Any] = context.meta.get(_META, {})
    return found


def first_sentence(text: str) -> str:
    """Return the first sentence of a help text, on one line."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return re.split(r"(?<=[.?!]) (?=[A-Z`])", paragraph)[0]


class _Help(click.Command):
    """A command whose help has examples, and its own options only."""

    def __init__(self, *arguments: Any, examples: Sequence[tuple[str, str]] = (), **more: Any) -> None:
        more["context_settings"] = {**SETTINGS, **(more.get("context_settings") or {})}
        super().__init__(*arguments, **more)
        self.examples = examples

    def get_help_option_names(self, context: click.Context) -> list[str]:
        """Return the same names in every context: click remembers those of the first one that asks."""
        return list(SETTINGS["help_option_names"])

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        if more.get("resilient_parsing"):
            self._offer_values()
        return super().make_context(*arguments, **more)

    def _offer_values(self) -> None:
        """Let parameters offer values to a shell that completes a line."""
        from holdfast.cli.values import offer

        for parameter in self.params:
            if not isinstance(parameter.type, click.Choice):
                parameter.shell_complete = functools.partial(_offered, parameter, offer)  # type: ignore[method-assign]

    def own_options(self, context: click.Context) -> list[tuple[str, str]]:
        options = (one for one in self.get_params(context) if isinstance(one, click.Option))
        parameters = [one for one in options if one.name not in COMMON]
        records = [one.get_help_record(context) for one in parameters]
        return [record for record in records if record is not None]

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Options"):
            formatter.write_dl(self.own_options(context))
        with formatter.section("Common options"):
            formatter.write_text(_COMMON_LINE)
        self.format_examples(formatter)

    def format_examples(self, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                for command, purpose in self.examples:
                    formatter.write_text(f"# {purpose}")
                    formatter.write(f"{'':{formatter.current_indent}}holdfast {command}\n")


class Command(_Help):
    """A command."""


class Group(_Help, click.Group):
    """A group of commands, which takes the common options, too, and suggests the name of a command."""

    command_class = Command

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        for option in common_options():
            option.expose_value, option.callback = False, _remember
            self.params.append(option)

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(context, formatter)
        super().format_options(context, formatter)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        found = [(name, self.get_command(context, name)) for name in self.list_commands(context)]
        rows = [(name, first_sentence(command.help or "")) for name, command in found if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(context, arguments[0]) is None and not context.resilient_parsing:
            self.refuse_command(context, arguments[0])
        return super().resolve_command(context, arguments)

    def refuse_command(self, context: click.Context, name: str, more: Sequence[str] = ()) -> NoReturn:
        """Raise UsageError for a command that does not exist, with similar ones."""
        from holdfast.config.similar import did_you_mean

        question = did_you_mean(name, [*self.list_commands(context), *more])
        raise click.UsageError(f"there is no command {name!r}. {question}".rstrip(), context)


def command(name: str | None = None, **more: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a command of a function."""
    return click.command(name, cls=Command, **more)


def group(name: str | None = None, **more: Any) -> Callable[[Callable[..., Any]], Group]:
    """Make a group of a function."""
    return click.group(name, cls=Group, **more)
