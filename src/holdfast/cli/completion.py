"""`holdfast completion bash | zsh | fish`."""

from __future__ import annotations

import re

import click
from click.shell_completion import get_completion_class

from holdfast.cli.command import command
from holdfast.cli.session import Session, common

VARIABLE = "_HOLDFAST_COMPLETE"


@command(
    examples=[
        ("completion bash > /etc/bash_completion.d/holdfast", "For every account, with bash."),
        ('completion zsh > "${fpath[1]}/_holdfast"', "With zsh."),
        ("completion fish > ~/.config/fish/completions/holdfast.fish", "With fish."),
    ]
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
def completion(session: Session, shell: str) -> None:
    """Print a script with which a shell completes commands, options and values, such as ids of backups."""
    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(click.get_current_context().find_root().command, {}, "holdfast", VARIABLE)
    # Not `source`, which starts bash to ask for its version.
    script = made.source_template % made.source_vars()
    script = re.sub(r"(_complete (?:\$1|holdfast)|\(commandline -t\) holdfast)\)", r"\1 2>/dev/null)", script).strip()
    session.renderer.line(script, whole=True)
    session.renderer.result({"shell": shell, "script": script})
