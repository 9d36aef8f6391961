"""`holdfast release list`."""

from __future__ import annotations

import click
from msgspec.structs import asdict

from holdfast.cli.session import Session, common


@click.group()
def release() -> None:
    """List releases."""


@release.command("list")
@common
def list_(session: Session) -> None:
    """List the kept releases, newest first."""
    from holdfast.steps.release import known_releases

    app = session.app()
    found = known_releases(app.context)
    current = app.context.current_release()
    session.renderer.table(
        ["RELEASE", "PACKAGE", "COMMIT", "DEPLOYED", ""],
        [
            [
                item.id,
                item.package,
                item.commit[:12],
                item.deployed_at,
                "current" if current and item.id == current.id else "",
            ]
            for item in found
        ],
    )
    session.renderer.result({"releases": [asdict(item) for item in found], "current": current.id if current else None})
