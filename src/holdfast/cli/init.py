"""`holdfast init`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdfast.cli.command import command
from holdfast.cli.session import Session, common
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from holdfast.scaffold.guesses import Guess


@command(
    examples=[
        ("init", "Describe the application in this folder."),
        ("init --preset django", "Begin with what is known of Django projects."),
    ]
)
@click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False))
@click.option("--preset", help="Start from a preset that Holdfast contains.")
@click.option("--force", is_flag=True, help="Replace an existing holdfast.toml.")
@common
def init(session: Session, folder: str, preset: str | None, force: bool) -> None:
    """Write a commented holdfast.toml for a folder.

    On a terminal it asks about each guess; with --yes, or without a terminal, guesses are marked with `?`. It also
    writes holdfast.schema.json, with which editors complete and check the file.
    """
    from holdfast.scaffold import init as operation

    asks = session.can_ask and not session.yes
    if asks:
        session.renderer.aside("Press Enter to take what was found, or type something else.")
    path, findings = operation.write(
        Path(folder).resolve(), preset=preset, force=force, host=session.host, ask=_ask if asks else None
    )
    session.renderer.line(f"wrote {path}")
    for finding in findings:
        session.renderer.line(f"  {finding}")
    for problem in _problems(path):
        session.renderer.aside(f"  to correct: {problem}")
    first = "adopt" if operation.is_of_containers(path) else "install REF"
    session.renderer.line("Next:")
    for number, step in enumerate(
        (f"Read {path.name} and correct it", "holdfast config validate", "holdfast check", f"holdfast {first}"), 1
    ):
        session.renderer.line(f"  {number}. {step}")
    session.renderer.result({"path": str(path), "findings": findings})


def _ask(guess: Guess) -> str:
    """Ask a person about a guess."""
    why = f" ({guess.why})" if guess.why else ""
    answer: str = click.prompt(f"{guess.key}{why}", default=guess.value, err=True)
    return answer


def _problems(path: Path) -> list[str]:
    """Return what must be filled in or corrected before the file can be used."""
    from holdfast.config.load import load

    try:
        load(str(path))
    except ConfigurationError as error:
        return list(error.problems)
    return []
