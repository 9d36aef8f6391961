"""`holdfast help [COMMAND | exit-codes | names | options]`."""

from __future__ import annotations

import click

from holdfast.cli.catalogue import COMMANDS, TOPICS
from holdfast.cli.colon_names import form_of, names
from holdfast.cli.command import WIDEST_HELP, Group, command, common_options
from holdfast.cli.session import Session, common
from holdfast.errors import EXIT_CODES


def exit_codes() -> str:
    """Return the table of exit codes."""
    formatter = click.HelpFormatter(width=_width())
    formatter.write_text("Holdfast ends with one of these exit codes; scripts may rely on them.")
    with formatter.section("Exit codes"):
        formatter.write_dl([(str(code), text) for code, text in EXIT_CODES.items()])
    return formatter.getvalue().rstrip()


def options(context: click.Context) -> str:
    """Return the help of the common options, and of what the environment says."""
    formatter = click.HelpFormatter(width=_width())
    formatter.write_text("Every command takes these options, before or after its name.")
    with formatter.section("Common options"):
        records = [option.get_help_record(context) for option in common_options()]
        formatter.write_dl([record for record in records if record is not None])
    with formatter.section("Environment variables"):
        formatter.write_dl(
            [
                ("HOLDFAST_CONFIG", "holdfast.toml, if --config does not name it."),
                ("HOLDFAST_ENVIRONMENT", "Environment, if --environment does not name one."),
                ("NO_COLOR", "If set, no colours are used."),
                ("TERM=dumb", "The progress is printed in plain lines, and no colours are used."),
                ("COLUMNS", "Width of the output, if it is not that of the terminal."),
            ]
        )
    return formatter.getvalue().rstrip()


def other_names() -> str:
    """Return the table of the names of orocloud-cli, each with what it means here."""
    formatter = click.HelpFormatter(width=_width())
    formatter.write_text(
        "A leading `app:` is left out, and each colon means a blank: `service:stop:consumer` is `service stop"
        " consumer`. Scripts that call orocloud-cli run by a link of that name to holdfast, with HOLDFAST_CONFIG as the"
        " path of holdfast.toml."
    )
    with formatter.section("Names"):
        forms = {name: form_of(name) for name in names()}
        formatter.write_dl(
            [(name, form.answer or f"holdfast {' '.join(form.words)}") for name, form in forms.items()], col_max=26
        )
    return formatter.getvalue().rstrip()


def _width() -> int:
    return click.Context(click.Command("help"), max_content_width=WIDEST_HELP).make_formatter().width


@command(examples=[("help backup restore", "One command."), ("help exit-codes", "What does exit code 6 mean?")])
@click.argument("words", metavar="[COMMAND | exit-codes | names | options]...", nargs=-1)
@common
def help(session: Session, words: tuple[str, ...]) -> None:
    """Show the help of a command, the common options, the exit codes, or the names of orocloud-cli."""
    context = click.get_current_context()
    if words == ("exit-codes",):
        text = exit_codes()
    elif words == ("options",):
        text = options(context)
    elif words == ("names",):
        text = other_names()
    else:
        found, place = _found(context, words)
        text = found.get_help(place)
    session.renderer.line(text, whole=True)
    session.renderer.result({"text": text, "exit_codes": EXIT_CODES})


def _found(context: click.Context, words: tuple[str, ...]) -> tuple[click.Command, click.Context]:
    """Return a command by its words, with its context. Raise UsageError."""
    found, place = context.find_root().command, context.find_root()
    if len(words) == 1 and words[0] not in COMMANDS and words[0] in names() and form_of(words[0]).words:
        words = tuple(word for word in form_of(words[0]).words if word[0] not in "-@")
    for word in words:
        inner = found.get_command(place, word) if isinstance(found, click.Group) else None
        if inner is None:
            if isinstance(found, Group):
                found.refuse_command(place, word, TOPICS if found is context.find_root().command else ())
            raise click.UsageError(f"{place.command_path} has no commands", context)
        found = inner
        place = click.Context(inner, parent=place, info_name=word)
    return found, place
