"""`holdfast index list | rebuild [NAME]`."""

from __future__ import annotations

import click

from holdfast.cli.command import group
from holdfast.cli.render import Column
from holdfast.cli.session import Session, common
from holdfast.cli.text import human_bytes


@group()
def index() -> None:
    """Show search indices; build them again."""


@index.command("list", examples=[("index list", "Is each of them current?")])
@common
def list_(session: Session) -> None:
    """Show the search indices with their documents, and which are out of date."""
    import msgspec

    from holdfast.reports.indices import report

    found = report(session.app())
    session.renderer.table(
        [
            "INDEX",
            "IN A BACKUP",
            Column("DOCUMENTS", right=True),
            Column("SIZE", right=True),
            Column("STATE", wraps=True),
        ],
        [
            [
                item.name,
                item.content,
                "-" if item.documents is None else f"{item.documents:,}",
                "-" if item.size_bytes is None else human_bytes(item.size_bytes),
                item.state,
            ]
            for item in found
        ],
        empty="No search index is configured.",
    )
    session.renderer.result({"indices": msgspec.to_builtins(found)})


@index.command(examples=[("index rebuild", "All of them."), ("index rebuild search", "One of them.")])
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@common
def rebuild(session: Session, names: tuple[str, ...], dry_run: bool) -> None:
    """Build search indices again with the application's own command, while visitors are served."""
    from holdfast.operations import index as operation

    app = session.changing_app()
    session.run(app, operation.plan(app, names), dry_run=dry_run)
