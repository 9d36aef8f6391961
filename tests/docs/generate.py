"""Writes the reference pages that are made from the code: `python -m tests.docs.generate`."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.cli.catalogue import COMMANDS
from holdfast.cli.main import holdfast
from holdfast.config import reference
from holdfast.errors import EXIT_CODES
from tests.docs import man

DOCS = Path(__file__).parents[2] / "docs"


def commands() -> str:
    """The page of all commands, from their own help."""
    lines = [
        "# Commands",
        "",
        "Generated from the commands' help by `make docs`; a test verifies that it is current.",
        "",
        "What they show in use: on terminals of [80](screens/terminal-80.txt) and [120](screens/terminal-120.txt)",
        "columns, and in a [pipe](screens/pipe.txt). There are also man pages (`man holdfast`).",
        "",
        "```",
        _help(holdfast, "holdfast"),
        "```",
        "",
        "## Exit codes",
        "",
        "Scripts may rely on them. `holdfast help exit-codes` prints this table.",
        "",
        "| code | meaning |",
        "|---|---|",
        *(f"| {code} | {text} |" for code, text in EXIT_CODES.items()),
    ]
    context = click.Context(holdfast)
    for name in COMMANDS:
        command = holdfast.get_command(context, name)
        assert command is not None
        lines += ["", f"## holdfast {name}", ""]
        if isinstance(command, click.Group):
            for inner, found in command.commands.items():
                lines += [
                    f"### holdfast {name} {inner}",
                    "",
                    "```",
                    _help(found, f"holdfast {name} {inner}"),
                    "```",
                    "",
                ]
        else:
            lines += ["```", _help(command, f"holdfast {name}"), "```"]
    return "\n".join(lines).rstrip() + "\n"


def _help(command: click.Command, path: str) -> str:
    context = click.Context(command, info_name=path, max_content_width=100, terminal_width=100)
    return command.get_help(context).rstrip()


def pages() -> dict[Path, str]:
    return {
        DOCS / "reference" / "configuration.md": reference.markdown(),
        DOCS / "reference" / "commands.md": commands(),
        **{DOCS / "man" / name: text for name, text in man.pages().items()},
    }


if __name__ == "__main__":
    found = pages()
    for path in (DOCS / "man").glob("*.1"):
        if path not in found:
            path.unlink()
    for path, text in found.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
