"""`holdfast config validate | show | help | schema`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from holdfast.cli.command import group
from holdfast.cli.session import Session, common


@group()
def config() -> None:
    """Validate, show and explain the configuration."""


@config.command(
    examples=[
        ("config validate", "Every mistake at once."),
        ("config validate holdfast.toml holdfast.prod.toml", "Files of another place, merged in this order."),
    ]
)
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path())
@common
def validate(session: Session, files: tuple[str, ...]) -> None:
    """Check the configuration and print every problem at once.

    With several files, the result of merging them in this order is checked. One file is checked alone: what it needs
    from other files may be missing in it.
    """
    if files:
        from holdfast.config.load import validate_files

        validate_files([Path(name) for name in files])
        session.renderer.line(f"{' + '.join(files)}: valid")
        session.renderer.result({"valid": True, "files": list(files)})
        return
    loaded = session.loaded()
    session.renderer.line(f"{loaded.root}: the configuration of {loaded.owner} is valid")
    session.renderer.result({"valid": True, "root": str(loaded.root)})


@config.command(examples=[("config show -e staging", "Which values has staging, and from where?")])
@common
def show(session: Session) -> None:
    """Show the merged configuration with the origin of each key: its file and line."""
    from holdfast.config.places import Places
    from holdfast.config.reference import flatten
    from holdfast.config.validation import plain

    loaded = session.loaded()
    values = flatten(plain(loaded.configuration))
    places = Places(loaded.origins, loaded.root)
    lines: dict[str, int] = {}
    for key, value in values.items():
        origin, line = places.at(key) if key in loaded.origins else ("default", 0)
        lines |= {key: line} if line else {}
        session.renderer.line(f"{key} = {json.dumps(value)}  # {origin}{f':{line}' if line else ''}", whole=True)
    session.renderer.result({"values": values, "origins": dict(loaded.origins), "lines": lines})


@config.command("help", examples=[("config help gate.listen", "One key."), ("config help backup", "A section.")])
@click.argument("key", required=False)
@common
def help_(session: Session, key: str | None) -> None:
    """Explain a key, such as `gate.listen` or `services.web.command`; without one, list all.

    It may begin with the root, and each part in brackets: `holdfast.gate.listen`, `[gate][listen]`.
    """
    from holdfast.config.reference import explain

    lines = explain(key)
    for line in lines:
        session.renderer.line(line)
    session.renderer.result({"lines": lines})


@config.command(examples=[("config schema > holdfast.schema.json", "For an editor that knows JSON Schema.")])
@common
def schema(session: Session) -> None:
    """Print the JSON Schema for editors."""
    import msgspec

    from holdfast.config.schema import Configuration

    value = msgspec.json.schema(Configuration)
    session.renderer.line(json.dumps(value, indent=1), whole=True)
    session.renderer.result({"schema": value})
