"""`holdfast config validate | show | help | schema`."""

from __future__ import annotations

import json

import click

from holdfast.cli.command import group
from holdfast.cli.session import Session, common


@group()
def config() -> None:
    """Validate, show and explain the configuration."""


@config.command(examples=[("config validate", "Every mistake at once.")])
@common
def validate(session: Session) -> None:
    """Check the configuration and print every problem at once."""
    loaded = session.loaded()
    session.renderer.line(f"{loaded.root}: the configuration of {loaded.owner} is valid")
    session.renderer.result({"valid": True, "root": str(loaded.root)})


@config.command(examples=[("config show -e staging", "Which values has staging, and from where?")])
@common
def show(session: Session) -> None:
    """Show the merged configuration with the origin of each key."""
    from holdfast.config.reference import flatten
    from holdfast.config.validation import plain

    loaded = session.loaded()
    values = flatten(plain(loaded.configuration))
    for key, value in values.items():
        session.renderer.line(f"{key} = {json.dumps(value)}  # {loaded.origins.get(key, 'default')}", whole=True)
    session.renderer.result({"values": values, "origins": dict(loaded.origins)})


@config.command("help", examples=[("config help gate.listen", "One key."), ("config help backup", "A section.")])
@click.argument("key", required=False)
@common
def help_(session: Session, key: str | None) -> None:
    """Explain a key, such as `gate.listen` or `services.web.command`; without one, list all."""
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
