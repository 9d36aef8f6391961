"""`holdfast init`."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.cli.command import command
from holdfast.cli.session import Session, common


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
    """Write a commented holdfast.toml for a folder."""
    from holdfast.scaffold import init as operation

    path, findings = operation.write(Path(folder).resolve(), preset=preset, force=force, host=session.host)
    session.renderer.line(f"wrote {path}")
    for finding in findings:
        session.renderer.line(f"  {finding}")
    first = "adopt" if operation.is_of_containers(path) else "install REF"
    session.renderer.line("Next:")
    for number, step in enumerate(
        (f"Read {path.name} and correct it", "holdfast config validate", "holdfast check", f"holdfast {first}"), 1
    ):
        session.renderer.line(f"  {number}. {step}")
    session.renderer.result({"path": str(path), "findings": findings})
