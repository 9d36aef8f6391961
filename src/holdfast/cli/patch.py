"""`holdfast patch list | view | apply | revert`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from holdfast.cli.command import group
from holdfast.cli.session import Session, common
from holdfast.cli.text import local_minute, local_zone

if TYPE_CHECKING:
    from holdfast.application.application import App
    from holdfast.operations.patches import Patches
    from holdfast.operations.provision import Provision


@group()
def patch() -> None:
    """List, view, apply and revert patches of the running release."""


@patch.command("list", examples=[("patch list", "Which patches does the running release have?")])
@common
def list_(session: Session) -> None:
    """List the patches of the running release, in the order in which they were applied."""
    from holdfast.operations import patches

    app = session.app()
    found = patches.applied(app)
    session.renderer.table(
        ["ID", f"APPLIED ({local_zone()})", "PATCH", "FILES"],
        [[one.id[:12], local_minute(one.applied_at), one.name, ", ".join(one.paths)] for one in found],
        empty="The running release has no patches.",
    )
    session.renderer.result({"patches": [msgspec.to_builtins(one) for one in found]})


@patch.command(examples=[("patch view 3f2a9c", "What does it change?")])
@click.argument("id", metavar="ID")
@common
def view(session: Session, id: str) -> None:
    """Print a patch of the running release, by its id, the begin of that, or its name."""
    from holdfast.operations import patches

    app = session.app()
    found = patches.find(app, id)
    text = patches.text(app, found).decode(errors="replace")
    session.renderer.line(text.rstrip("\n"), whole=True)
    session.renderer.result({"patch": msgspec.to_builtins(found), "text": text})


@patch.command(
    examples=[
        ("patch apply fix.patch", "Does it apply? Nothing is changed."),
        ("patch apply fix.patch --force", "Apply it, in a release of its own."),
    ]
)
@click.argument("file", metavar="FILE")
@click.option("-p", "strip", type=click.IntRange(0, 9), help="Leading parts of its paths to cut. Default: 1, else 0.")
@click.option("--force", is_flag=True, help="Apply it; without this, only whether it applies is printed.")
@click.option("--dry-run", is_flag=True, help="With --force: print the plan; change nothing.")
@common
def apply(session: Session, file: str, strip: int | None, force: bool, dry_run: bool) -> None:
    """Apply a patch to the running release, if all of its hunks apply.

    The patched release has a folder of its own, and the services switch to it as in an upgrade of the code alone. So
    `holdfast rollback` goes back, and a patched release that does not start is undone.
    """
    from holdfast.operations import patches

    app = session.changing_app()
    if not force and not dry_run:
        fit = patches.examine(app, file, strip)
        session.renderer.line(f"{file} applies (-p{fit.patch.strip}). It changes:")
        for path in fit.patch.paths:
            session.renderer.line(f"  {path}")
        session.renderer.line("Nothing was changed. To apply it, add --force.")
        paths = list(fit.patch.paths)
        session.renderer.result({"applies": True, "id": fit.patch.id, "strip": fit.patch.strip, "paths": paths})
        return
    session.run(app, patches.plan_apply(app, file, strip), dry_run=dry_run)


@patch.command(
    examples=[
        ("patch revert 3f2a9c", "Can it be taken back? Nothing is changed."),
        ("patch revert 3f2a9c --force", "Take it back."),
    ]
)
@click.argument("id", metavar="ID")
@click.option("--force", is_flag=True, help="Take it back; without this, only whether that is possible is printed.")
@click.option("--dry-run", is_flag=True, help="With --force: print the plan; change nothing.")
@common
def revert(session: Session, id: str, force: bool, dry_run: bool) -> None:
    """Take a patch of the running release back, by its id, the begin of that, or its name."""
    from holdfast.operations import patches

    app = session.changing_app()
    if not force and not dry_run:
        found = patches.require_revertible(app, id)
        session.renderer.line(f"{found.name} can be taken back. It changes:")
        for path in found.paths:
            session.renderer.line(f"  {path}")
        session.renderer.line("Nothing was changed. To take it back, add --force.")
        session.renderer.result({"reverts": True, "id": found.id, "paths": list(found.paths)})
        return
    session.run(app, patches.plan_revert(app, id), dry_run=dry_run)


def what_becomes_of_patches(session: Session, app: App, provided: Provision, *, skip: bool, reapply: bool) -> Patches:
    """Return what an upgrade does with the patches of the running release, after asking on a terminal."""
    from holdfast.errors import UsageError
    from holdfast.operations import patches

    if skip and reapply:
        raise UsageError("--skip-check-patches and --reapply-patches exclude each other")
    if skip or reapply:
        return "drop" if skip else "reapply"
    left = patches.left(app, provided)
    if not left or not session.can_ask or session.yes:
        return "refuse"
    for one in left:
        session.renderer.note(f"{one.name}: {', '.join(one.paths)}")
    count = "A patch" if len(left) == 1 else f"{len(left)} patches"
    question = f"{count} of the running release may be missing in the new one. Apply again?"
    if click.confirm(question, default=True, err=True):
        return "reapply"
    session.confirm("Go on without them?")
    return "drop"
