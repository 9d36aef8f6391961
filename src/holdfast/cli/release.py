"""`holdfast release list`."""

from __future__ import annotations

from msgspec.structs import asdict

from holdfast.cli.command import group
from holdfast.cli.render import Column
from holdfast.cli.session import Session, common
from holdfast.cli.text import local_minute, local_zone


@group()
def release() -> None:
    """List releases."""


@release.command("list", examples=[("release list", "To which releases can `rollback --to` go?")])
@common
def list_(session: Session) -> None:
    """List the kept releases, newest first."""
    from holdfast.steps.release import known_releases

    app = session.app()
    found = known_releases(app.context)
    current = app.context.current_release()
    session.renderer.table(
        ["RELEASE", Column("PACKAGE", optional=True), "COMMIT", f"DEPLOYED ({local_zone()})", ""],
        [
            [
                item.id,
                item.package,
                item.commit[:12],
                local_minute(item.deployed_at),
                "current" if current and item.id == current.id else "",
            ]
            for item in found
        ],
        empty="Nothing is installed yet. To install a release, run: holdfast install REF",
    )
    session.renderer.result({"releases": [asdict(item) for item in found], "current": current.id if current else None})
