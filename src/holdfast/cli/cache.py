"""`holdfast cache rebuild`."""

from __future__ import annotations

import click

from holdfast.cli.command import group
from holdfast.cli.session import Session, common


@group()
def cache() -> None:
    """Rebuild the cache of the running release."""


@cache.command(examples=[("cache rebuild", "Visitors use the old cache until the new one is warm.")])
@click.option("--dry-run", is_flag=True, help="Print what would happen.")
@common
def rebuild(session: Session, dry_run: bool) -> None:
    """Warm a new cache with `tasks.warm_cache` next to the old one, then switch to it.

    It works like a source upgrade to the same commit. Sessions stay.
    """
    from holdfast.operations import cache as operation

    app = session.changing_app()
    session.run(app, operation.plan(app), dry_run=dry_run)
