"""`holdfast package build | list | deploy | prune`."""

from __future__ import annotations

import click
from msgspec.structs import asdict

from holdfast.cli.command import group
from holdfast.cli.render import Column
from holdfast.cli.session import Session, common
from holdfast.cli.text import human_bytes, local_minute, local_zone


@group()
def package() -> None:
    """Build, list, deploy and prune packages."""


@package.command(examples=[("package build v2", "Build now, deploy later.")])
@click.argument("reference", metavar="REF")
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@common
def build(session: Session, reference: str, dry_run: bool) -> None:
    """Build the package of a tag, branch or commit; deploy nothing."""
    from holdfast.operations import package as operation

    app = session.changing_app()
    session.run(app, operation.plan(app, reference), dry_run=dry_run)


@package.command("list", examples=[("package list", "What is built?")])
@common
def list_(session: Session) -> None:
    """List packages, oldest first."""
    app = session.app()
    found = app.context.packages.packages()
    session.renderer.table(
        ["PACKAGE", "COMMIT", f"BUILT ({local_zone()})", Column("SIZE", right=True)],
        [[item.id, item.commit[:12], local_minute(item.built_at), human_bytes(item.size_bytes)] for item in found],
        empty="There is no package yet. To build one, run: holdfast package build REF",
    )
    session.renderer.result({"packages": [asdict(item) for item in found]})


@package.command(examples=[("package deploy v2-6ad7e64c0b20", "Deploy what was built.")])
@click.argument("reference", metavar="PACKAGE")
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@common
def deploy(session: Session, reference: str, dry_run: bool) -> None:
    """Deploy a package: an upgrade in maintenance mode, or the first installation."""
    from holdfast.operations import install, upgrade

    app = session.changing_app()
    first = app.context.current_release() is None
    plan = install.plan(app, reference) if first else upgrade.plan(app, reference)
    session.run(app, plan, dry_run=dry_run, wait_seconds=app.loaded.configuration.backup.wait_seconds)


@package.command(examples=[("package prune --dry-run", "What would be removed?")])
@click.option("--dry-run", is_flag=True, help="Print which would be removed.")
@common
def prune(session: Session, dry_run: bool) -> None:
    """Remove packages of which no release is kept."""
    from holdfast.operations import package as operation

    app = session.changing_app()
    unused = operation.unused(app)
    if unused and not dry_run:
        session.confirm(f"Remove {len(unused)} packages?", tuple(unused))
        with app.runner.lock("change").acquire("package prune"):
            for name in unused:
                app.context.packages.remove(name)
    session.renderer.line("\n".join(unused) or "no package is unused")
    session.renderer.result({"removed": [] if dry_run else unused, "unused": unused})
