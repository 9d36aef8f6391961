"""`holdfast credentials show [SELECTOR]`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import click

from holdfast.cli.command import group
from holdfast.cli.session import Session, common
from holdfast.errors import RefusedError


@group()
def credentials() -> None:
    """Show how to reach databases and services of an environment that is no production."""


@credentials.command(
    examples=[
        ("credentials show -e staging", "All of them, as YAML."),
        ("credentials show databases.main.password -e staging", "One value."),
    ]
)
@click.argument("selector", required=False)
@click.option(
    "--format", "format_", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True, help="How to print."
)
@common
def show(session: Session, selector: str | None, format_: str) -> None:
    """Show the credentials of databases, and the secrets in the environments of services.

    SELECTOR chooses a part, as `databases.main` or `[databases][main]`. Production is refused.
    """
    from holdfast.config.similar import no_such
    from holdfast.system.secrets import is_secret

    app = session.app()
    if app.loaded.environment_type == "prod":
        raise RefusedError(
            "the credentials of a production environment are not shown",
            next_step="`holdfast config show` has the references to them.",
        )
    configuration, host = app.loaded.configuration, app.context.host
    found: dict[str, object] = {"databases": {}, "environment": host.resolved(_secrets(configuration.environment))}
    found["databases"] = {
        name: {
            key: host.resolve_secret(value) if is_secret(str(value)) else value
            for key in ("kind", "path", "host", "port", "name", "user", "password")
            if (value := getattr(database, key))
        }
        for name, database in configuration.databases.items()
    }
    found["services"] = {
        name: host.resolved(_secrets(service.environment)) for name, service in configuration.services.items()
    }
    chosen: object = found
    for word in re.sub(r"\]\[|\[|\]", ".", selector or "").strip(".").split(".") if selector else ():
        if not isinstance(chosen, Mapping) or word not in chosen:
            known = list(chosen) if isinstance(chosen, Mapping) else []
            raise no_such("credential", selector or "", [str(name) for name in known])
        chosen = chosen[word]
    if format_ == "json":
        text = json.dumps(chosen, indent=1)
    else:
        import yaml

        text = (
            chosen if isinstance(chosen, str) else yaml.safe_dump(chosen, sort_keys=False, allow_unicode=True).rstrip()
        )
    session.renderer.line(text, whole=True)
    session.renderer.result({"credentials": chosen})


def _secrets(environment: Mapping[str, str]) -> dict[str, str]:
    from holdfast.system.secrets import is_secret

    return {name: value for name, value in environment.items() if is_secret(value)}
