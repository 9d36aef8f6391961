"""Man pages in roff, from the same help texts as `--help`: one page for holdfast, one for each command or group."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from holdfast import VERSION
from holdfast.cli.catalogue import COMMANDS, SECTIONS
from holdfast.cli.command import COMMON, common_options, first_sentence
from holdfast.cli.main import holdfast
from holdfast.errors import EXIT_CODES


def pages() -> dict[str, str]:
    """Return the texts by their file names."""
    root = click.Context(holdfast, info_name="holdfast")
    found = {"holdfast.1": "\n".join(_root(root))}
    for name in COMMANDS:
        command = holdfast.get_command(root, name)
        assert command is not None
        found[f"holdfast-{name}.1"] = "\n".join(_page(command, click.Context(command, parent=root, info_name=name)))
    return {name: f"{text}\n" for name, text in found.items()}


def _root(root: click.Context) -> Iterator[str]:
    yield from _head("holdfast", holdfast)
    yield from (".SH SYNOPSIS", ".B holdfast", _escaped("[OPTIONS] COMMAND [ARGS]..."))
    yield from (".SH DESCRIPTION", *_paragraphs(holdfast.help or ""))
    for title, commands in SECTIONS.items():
        yield f".SH {title.upper()}"
        for name, (_, text) in commands.items():
            yield from _entry(f"holdfast-{name}(1)", text)
    yield from (".SH OPTIONS", *_options(common_options(), root))
    yield ".SH EXIT STATUS"
    for code, text in EXIT_CODES.items():
        yield from _entry(str(code), text)
    yield from _examples(holdfast)


def _page(command: click.Command, context: click.Context) -> Iterator[str]:
    yield from _head(context.command_path.replace(" ", "-"), command)
    if not isinstance(command, click.Group):
        yield ".SH SYNOPSIS"
        yield from _command(command, context, ".SH DESCRIPTION", ".SH OPTIONS")
    else:
        yield from (".SH DESCRIPTION", *_paragraphs(command.help or ""), ".SH COMMANDS")
        for name, inner in command.commands.items():
            yield f'.SS "{_escaped(name)}"'
            yield from _command(inner, click.Context(inner, parent=context, info_name=name), "", "")
    yield from (".SH SEE ALSO", ".BR holdfast (1),", "which has the common options and the exit status.")


def _command(command: click.Command, context: click.Context, description: str, options: str) -> Iterator[str]:
    yield f".B {_escaped(context.command_path)}"
    yield _escaped(" ".join(command.collect_usage_pieces(context)))
    yield from ([description] if description else [])
    yield from _paragraphs(command.help or "")
    own = [one for one in command.params if isinstance(one, click.Option) and one.name not in COMMON]
    if own:
        yield from ([options] if options else [])
        yield from _options(own, context)
    yield from _examples(command)


def _head(name: str, command: click.Command) -> Iterator[str]:
    yield f'.TH "{_escaped(name.upper())}" 1 "" "Holdfast {VERSION}" "Holdfast"'
    yield from (".SH NAME", f"{_escaped(name)} \\- {_escaped(first_sentence(command.help or '').rstrip('.'))}")


def _options(options: list[click.Option], context: click.Context) -> Iterator[str]:
    for option in options:
        record = option.get_help_record(context)
        if record is not None:
            yield from _entry(*record)


def _entry(term: str, text: str) -> tuple[str, ...]:
    return ".TP", f".B {_escaped(term)}", _escaped(text)


def _examples(command: click.Command) -> Iterator[str]:
    for number, (example, purpose) in enumerate(getattr(command, "examples", ())):
        if number == 0 and isinstance(command, click.Group):
            yield ".SH EXAMPLES"
        yield from (".PP", _escaped(purpose), ".RS", ".nf", _escaped(f"holdfast {example}"), ".fi", ".RE")


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        yield from (".PP", _escaped(" ".join(paragraph.split())))


def _escaped(text: str) -> str:
    """Return a text in which nothing is a request or an escape of roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
